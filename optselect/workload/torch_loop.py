"""A plain PyTorch training loop as a `Workload`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optselect.configuration.evaluation import Evaluation
from optselect.configuration.goal import Mode
from optselect.configuration.own_optimizer import OwnOptimizer
from optselect.errors import ConfigurationError, UnsupportedModuleError
from optselect.optim.modes import evaluated, to_training
from optselect.optim.rescaling import scaled
from optselect.parameters.compilation import compilations_forgotten
from optselect.study.identity import Identity
from optselect.workload.batch_norm import RECALIBRATION_BATCHES, recalibrated, recalibrates, running_statistics
from optselect.workload.batches import HELD_BACK_BATCHES, BatchCache, TrialBatches
from optselect.workload.borrowed_model import BorrowedModel, evaluation_mode, training_bytes
from optselect.workload.class_state import classes_restored
from optselect.workload.identity import data_identity, function_facts, model_identity, optimizer_facts
from optselect.workload.loaders import is_one_shot, loader_borrowed, trial_loader
from optselect.workload.own_optimizer import own_optimizer_of
from optselect.workload.protocol import UNSCALED, Build, DataSource
from optselect.workload.rng import rng_isolated, seed_rng
from optselect.workload.training import Paused, Training

T = TypeVar("T")
LossFunction = Callable[[Any, Any], Tensor]


class TorchWorkload:
    """The training `for batch in loader: loss = loss_fn(model(inputs), target)`, `steps` optimizer steps long.

    A batch is `(input, …, target)`; for any other shape pass `step`, a function of model and batch that
    returns the loss, in place of `loss_fn`. `user_optimizer` builds the optimizer you would have used,
    `(optimizer, scheduler or None)` from the model; without it plain AdamW stands in its place. Trials
    are judged by the mean loss on `val_loader`, or without one on training batches held back from trials.
    `keeps_best` says that you will keep the weights of the best such loss, so that trials count as their best.

    Raises `ConfigurationError` when `steps` is not positive or neither or both of `loss_fn` and `step` are given.
    """

    mode: Mode = "min"

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction | None,
        train_loader: Iterable[Any],
        val_loader: Iterable[Any] | None = None,
        *,
        steps: int,
        step: Callable[[nn.Module, Any], Tensor] | None = None,
        user_optimizer: Build | None = None,
        max_validation_batches: int = 64,
        keeps_best: bool = False,
    ) -> None:
        if steps <= 0:
            raise ConfigurationError(
                f"steps is the number of optimizer steps of the training, 1 or more, but got {steps}"
            )
        if (loss_fn is None) == (step is None):
            raise ConfigurationError(
                "pass either loss_fn(output, target) or step(model, batch), and None for the other"
            )
        self.model = model
        self.steps: int | None = steps
        self.accumulate = 1
        self.keeps_best = keeps_best
        self._loss_fn = loss_fn
        self._step = step
        self._train_loader = train_loader
        self._val_loader = val_loader
        self._user_optimizer = user_optimizer
        self._max_validation_batches = max_validation_batches
        self.own_optimizer: OwnOptimizer | None = None
        self._own_facts: Any = None
        self._takes_derivatives = False
        self._borrowed: BorrowedModel | None = None

    @property
    def processes(self) -> int:
        """One."""
        return 1

    @property
    def monitor(self) -> str:
        """`validation loss`, or the training loss on batches held back."""
        return "validation loss" if self._val_loader is not None else "training loss on held-back batches"

    @property
    def validation_batches(self) -> int:
        """Those of the validation set, up to a fixed bound, and those that BatchNorm's statistics take."""
        return self._judged_batches + (RECALIBRATION_BATCHES if recalibrates(self.model) else 0)

    @property
    def _judged_batches(self) -> int:
        if self._val_loader is None:
            return min(self._max_validation_batches, HELD_BACK_BATCHES)
        return min(self._max_validation_batches, _length(self._val_loader) or self._max_validation_batches)

    @property
    def has_user_optimizer(self) -> bool:
        """Whether `user_optimizer` was given."""
        return self._user_optimizer is not None

    @property
    def obstacle_to_thawing(self) -> str | None:
        """None: the loop steps the scheduler, which thaws."""
        return None

    @property
    def obstacle_to_scheduling(self) -> str | None:
        """None: the loop steps the scheduler with its optimizer."""
        return None

    @property
    def caveats(self) -> tuple[str, ...]:
        """None: trials are the loop itself."""
        return ()

    @property
    def identity(self) -> Identity:
        """Of the model, the loss, the data, the steps, and inside `borrowed()` the user's own optimizer."""
        loss = function_facts(self._loss_fn if self._step is None else self._step)
        facts = {
            "loss function": loss,
            "length": [self.steps],
            "own optimizer": self._own_facts,
            "judgement": [self._max_validation_batches, self.keeps_best],
        }
        return (
            model_identity(self.model)
            .joined(facts)
            .merged(
                data_identity("training data", [self._train_loader]),
                data_identity("validation data", [] if self._val_loader is None else [self._val_loader]),
            )
        )

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Leave weights, gradients, attributes, modes and random numbers as they came."""
        if self._borrowed is not None:
            yield
            return
        loaders = [loader for loader in (self._train_loader, self._val_loader) if loader is not None]
        for loader in loaders:
            _refuse_one_shot(loader)
        with ExitStack() as stack:
            stack.enter_context(compilations_forgotten())
            stack.enter_context(rng_isolated())
            stack.enter_context(classes_restored(self.model.modules()))
            for loader in loaders:
                stack.enter_context(loader_borrowed(loader))
            self._borrowed = BorrowedModel(self.model)
            stack.callback(self._give_back, self._borrowed)
            self._train_batches = TrialBatches(
                lambda seed: trial_loader(self._train_loader, seed), epoch_batches=_length(self._train_loader)
            )
            self._train_batches.of(0)  # now: its order is the one that the training itself would draw
            self._val_batches = BatchCache(self._open_validation, epoch_batches=_length(self._val_loader))
            self._borrowed.begin()
            self._look_at_user_optimizer(self._borrowed)
            yield

    def _give_back(self, borrowed: BorrowedModel) -> None:
        borrowed.restore()
        self._borrowed = None
        # Their batches are kept in memory for trials alone.
        del self._train_batches, self._val_batches

    def _look_at_user_optimizer(self, borrowed: BorrowedModel) -> None:
        configure = self._user_optimizer
        if configure is not None:
            self.own_optimizer = own_optimizer_of(borrowed, lambda: self._only_optimizer(configure))

    def _only_optimizer(self, configure: Build) -> tuple[Optimizer, list[LRScheduler]]:
        optimizer, scheduler = configure(self.model)
        self._own_facts = optimizer_facts([optimizer], [scheduler])
        return optimizer, [] if scheduler is None else [scheduler]

    def source(self) -> DataSource:
        """Return the data set behind `train_loader`, or its first batches when it has none that can be indexed."""
        loader = self._train_loader
        return DataSource.of(loader, batches=_length(loader), head=self._first_batches)

    def _first_batches(self, count: int) -> list[Any]:
        return self._train_batches.first(count)

    def backward(self, batch: Any) -> float:
        """Return the loss of `batch` in training mode, and leave its gradients in `.grad`."""
        self.model.train()
        loss = self._loss(batch)
        loss.backward()
        return float(loss.detach())

    def begin(self, build: Build | None, seed: int, scales: Mapping[str, float] = UNSCALED) -> None:
        """Start from the borrowed weights with what `build` makes; None: with the user's own optimizer, at `scales`."""
        made_by = build or self._user_optimizer
        if made_by is None:
            raise ConfigurationError("this workload has no optimizer of its own; pass user_optimizer= to try it")
        self._model().begin()
        seed_rng(seed)
        self.model.train()
        optimizer, scheduler = scaled(made_by(self.model), **scales)
        schedulers = [scheduler] if scheduler is not None else []
        self._training = Training(optimizers=[optimizer], schedulers=schedulers, seed=seed)
        to_training(self._training.optimizers)

    def train(self, micro_batches: int) -> Sequence[float | None]:
        """Take one optimizer step, and one of the scheduler, for each batch."""
        training = self._training
        (optimizer,) = training.optimizers
        batches = self._train_batches.of(training.seed)
        losses = []
        for _ in range(micro_batches):
            batch = batches[self._held_back() + training.position]
            loss = self._stepped(optimizer, batch)
            for scheduler in training.schedulers:
                scheduler.step()
            training.position += 1
            losses.append(loss.detach())
        return torch.stack(losses).double().tolist() if losses else []

    def _stepped(self, optimizer: Optimizer, batch: Any) -> Tensor:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = self._loss(batch)
            loss.backward()
            return loss

        if isinstance(optimizer, LBFGS):
            # It evaluates the loss several times, and gives the first.
            loss: Tensor = optimizer.step(closure)
            return loss
        loss = closure()
        optimizer.step()
        return loss

    def validate(self) -> Evaluation:
        """Return the mean loss over the validation batches, weighted by their sizes, in evaluation mode."""
        held_back = self._val_loader is None
        batches = self._train_batches.of(0) if held_back else self._val_batches
        total, weight = 0.0, 0
        parts: list[tuple[float, float]] = []
        with (
            rng_isolated(),
            evaluated(self._training.optimizers),
            self._model().unmoved(),
            recalibrated(self.model, self._forward_recent, self._batches_left),
            evaluation_mode(self.model),
        ):
            for index in range(self._judged_batches):
                size = _samples(batches[index])
                loss = self._judged(batches, index)
                total += loss * size
                weight += size
                parts.append((loss, float(size)))
                if not held_back and self._val_batches.is_last_of_epoch(index):
                    break
        return Evaluation.of(total / weight, parts)

    @property
    def _batches_left(self) -> float:
        return math.inf if self.steps is None else self.steps - self._training.position

    def _judged(self, batches: BatchCache, index: int) -> float:
        """Compute the loss of a batch that is not trained on: with gradients only where the loss takes some itself."""
        try:
            with torch.set_grad_enabled(self._takes_derivatives):
                return float(self._loss(batches[index]).detach())
        except RuntimeError as error:
            if self._takes_derivatives or "does not require grad" not in str(error):
                raise
        self._takes_derivatives = True
        return self._judged(batches, index)

    def _forward_recent(self) -> None:
        batches = self._train_batches.of(self._training.seed)
        with self._model().unmoved(running_statistics(self.model)):
            for index in self._training.recent_batches(self._held_back()):
                self._judged(batches, index)

    def pause(self) -> Paused[Training]:
        """Put the training and the model's state aside."""
        return Paused(training=self._training, model=self._model().pause())

    def resume(self, paused: Paused[Training]) -> None:
        """Go on with a paused training."""
        self._training = paused.training
        self._model().resume(paused.model)

    def store(self) -> dict[str, Any] | None:
        """Return optimizer, scheduler, position and the model's state, in builtins and tensors."""
        return self._training.store(self._model())

    def restore(self, stored: dict[str, Any], build: Build | None, scales: Mapping[str, float] = UNSCALED) -> None:
        """Go on with what was stored, with an optimizer of the same kind."""
        seed, _ = stored["at"]
        self.begin(build, seed, scales)
        self._training.restore(self._model(), stored)

    def paused_bytes(self) -> int:
        """Count the bytes of weights, buffers and optimizer state."""
        return training_bytes(self.model, self._training.optimizers)

    def agree(self, value: T) -> T:
        """Return `value`: there is one process, and its own word counts."""
        return value

    def _model(self) -> BorrowedModel:
        if self._borrowed is None:
            raise ConfigurationError("trials run inside `with workload.borrowed():`, so that everything comes back")
        return self._borrowed

    def _held_back(self) -> int:
        return self._judged_batches if self._val_loader is None else 0

    def _loss(self, batch: Any) -> Tensor:
        if self._step is not None:
            return self._step(self.model, batch)
        if not isinstance(batch, Sequence) or len(batch) < 2 or self._loss_fn is None:
            raise ConfigurationError(
                f"a batch must be (input, …, target), but it is a {type(batch).__name__}; pass step(model, batch)"
            )
        *inputs, target = batch
        return self._loss_fn(self.model(*inputs), target)

    def _open_validation(self) -> Iterable[Any]:
        return trial_loader(() if self._val_loader is None else self._val_loader)


def _length(loader: Iterable[Any] | None) -> int | None:
    try:
        return len(loader)  # type: ignore[arg-type]  # not every iterable has a length
    except TypeError:
        return None


def _refuse_one_shot(loader: Iterable[Any]) -> None:
    if is_one_shot(loader):
        raise UnsupportedModuleError(
            f"a {type(loader).__name__} over an iterator can be read only once, so trials would take batches from "
            "the training; pass a loader that starts anew each time it is iterated"
        )


def _samples(batch: Any) -> int:
    first = (
        batch[0] if isinstance(batch, Sequence) else next(iter(batch.values())) if isinstance(batch, dict) else batch
    )
    return len(first) if isinstance(first, Tensor) and first.ndim else 1
