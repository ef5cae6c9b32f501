"""A Lightning training as a `Workload`: trials in place, driven through Lightning's own optimization loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch.optim import Optimizer

from optselect.callbacks.borrowing import KEPT_ATTRIBUTES, trainer_borrowed
from optselect.callbacks.counters import (
    Progress,
    fresh_progress,
    progress_of,
    restore_progress,
    set_progress,
    stored_progress,
)
from optselect.callbacks.data import TrialData
from optselect.callbacks.fit_facts import refuse_unsearchable, steps_to_come, users_optimizers
from optselect.callbacks.judging import Judge
from optselect.callbacks.loop import LightningTraining, TrialLoop
from optselect.callbacks.muting import logging_replaced
from optselect.callbacks.other_callbacks import keeps_best
from optselect.callbacks.thawing import obstacle_to_thawing
from optselect.configuration.goal import Mode
from optselect.errors import UnsupportedModuleError
from optselect.optim.modes import to_training
from optselect.optim.passes import passes
from optselect.optim.rescaling import scaled
from optselect.workload.borrowed_model import BorrowedModel, training_bytes
from optselect.workload.class_state import classes_restored
from optselect.workload.protocol import UNSCALED, Build, DataSource
from optselect.workload.rng import rng_isolated, seed_rng
from optselect.workload.training import Paused, identity_of, inspected

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class _Borrowed:
    """What trials work on: the model, the loop, and the loop's counters as they stood before."""

    model: BorrowedModel
    loop: TrialLoop
    progress: Progress


class LightningWorkload:
    """The training that `trainer` is about to run on `module`.

    It lives inside `Trainer.fit`, where `configure_optimizers` is called: the device, `setup()` and loaded
    weights are all there by then. `user` is the module's own `configure_optimizers`, if it has one;
    `steps_done` are the optimizer steps in a checkpoint whose counters Lightning restores only later. Raises
    `UnsupportedModuleError` in `borrowed()`, before anything is changed, for a module that cannot be
    searched in place.
    """

    # Known from the first `borrowed()` on.
    _data: TrialData

    def __init__(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        *,
        user: Callable[[], Any] | None = None,
        monitor: str | None = None,
        mode: Mode = "min",
        steps_done: int = 0,
    ) -> None:
        self.model = module
        self.mode: Mode = mode
        # Much of a trainer is set by its connectors, which type checkers do not see.
        self._trainer = cast(Any, trainer)
        # Those of the fit: while the trainer is borrowed it has others.
        self._callbacks: list[Any] = list(self._trainer.callbacks)
        self._user = user
        self.user_passes = 1
        self._judge = Judge(trainer, module, monitor=monitor, mode=mode, callbacks=self._callbacks)
        self._steps_done = steps_done
        self._steps: int | None = None
        self._borrowed: _Borrowed | None = None

    @property
    def steps(self) -> int | None:
        """Optimizer steps to come, where Lightning's own estimate is true; else None.

        It is not for streams without `max_steps`, for `max_time`, and for an accumulation that changes.
        Known inside `borrowed()` and after it.
        """
        return self._steps

    @property
    def processes(self) -> int:
        """The trainer's world size."""
        return int(self._trainer.world_size)

    @property
    def accumulate(self) -> int:
        """The trainer's `accumulate_grad_batches`."""
        return int(self._trainer.accumulate_grad_batches)

    @property
    def monitor(self) -> str:
        """The logged name trials are judged by, or what it is in words. Known inside `borrowed()` and after it."""
        return self._judge.judged.name

    @property
    def validation_batches(self) -> int:
        """Those of the validation loaders, up to a bound, or held back; and those BatchNorm takes."""
        return self._judge.validation_batches(self._in_trial.loop)

    @property
    def has_user_optimizer(self) -> bool:
        """Whether the module has a `configure_optimizers` of its own."""
        return self._user is not None

    @property
    def obstacle_to_thawing(self) -> str | None:
        """Manual optimization, and a module that DDP has wrapped already."""
        return obstacle_to_thawing(self._trainer, self.model)

    @property
    def keeps_best(self) -> bool:
        """Whether an EarlyStopping or a ModelCheckpoint watches what trials are judged by."""
        return any(keeps_best(callback, self.monitor, self.mode) for callback in self._callbacks)

    @property
    def identity(self) -> str:
        """A digest of the module's class and weights, of the data set's size and two rows, and the length."""
        length = (self.steps, self._data.epoch_batches)
        facts = [self._data.digest(), type(self.model).__qualname__, *length, self.monitor, self.mode]
        return identity_of(self.model, facts)

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Module, trainer, loaders, data and random numbers as they were, on leaving."""
        if self._borrowed is not None:
            yield
            return
        trainer, module = self._trainer, self.model
        refuse_unsearchable(trainer, module)
        with ExitStack() as stack:
            stack.callback(self._replay_streams)
            stack.enter_context(rng_isolated())
            stack.enter_context(classes_restored(module.modules()))
            loggers = list(trainer.loggers)
            stack.enter_context(trainer_borrowed(trainer))
            pinned = [trainer, trainer.strategy, *trainer.loggers, *self._callbacks]
            silent = dict(zip(map(id, loggers), trainer.loggers, strict=True))
            pinned += [trainer.datamodule] if trainer.datamodule is not None else []
            model = BorrowedModel(module, pinned=pinned, instead=silent, kept=KEPT_ATTRIBUTES)
            stack.callback(self._give_back, model)
            progress = progress_of(trainer)
            model.begin()
            self._data = TrialData(trainer, stack)
            # Lightning's estimate asks the trainer for the loader, which by now is the unopened one.
            self._steps = steps_to_come(trainer, self._callbacks, self._steps_done)
            stack.enter_context(logging_replaced(module, self._judge.log))
            loop = TrialLoop(trainer, module, self._data, self._judge.end_epoch)
            self._borrowed = _Borrowed(model=model, loop=loop, progress=progress)
            self._look_at_user_optimizer(model)
            if self._judge.looks:
                self.begin(_idle, 0)
            self._judge.decide(loop, model)
            self.mode = self._judge.judged.mode
            yield

    def source(self) -> DataSource:
        """The training loader's data set, or its first batches when it has none that can be indexed."""
        return self._data.source()

    def backward(self, batch: Any) -> float:
        """One forward and backward pass through Lightning and the module's hooks, into `.grad`."""
        loop = self._in_trial.loop
        if not loop.has_begun:
            self.begin(_idle, 0)
        return loop.backward(batch)

    def begin(self, build: Build | None, seed: int, scales: Mapping[str, float] = UNSCALED) -> None:
        """Start from the borrowed weights, counters, attributes; None: with the user's own optimizer, at `scales`."""
        self._prepare(build, seed, scales)
        self._in_trial.loop.start()

    def _prepare(self, build: Build | None, seed: int, scales: Mapping[str, float]) -> None:
        trial = self._in_trial
        trial.model.begin()
        fresh_progress(trial.progress)
        self._trainer.should_stop = False
        seed_rng(seed)
        self._data.batches.of(seed)  # now: a training that is restored goes on with other random numbers
        if build is None:
            optimizers, schedulers = scaled(users_optimizers(self.model, self._user), **scales)
        else:
            optimizer, scheduler = build(self.model)
            optimizers = [optimizer]
            schedulers = [LRSchedulerConfig(scheduler, interval="step")] if scheduler is not None else []
        to_training(optimizers)
        trial.loop.attach(LightningTraining(optimizers=optimizers, schedulers=schedulers, seed=seed))

    def train(self, micro_batches: int) -> Sequence[float | None]:
        """Go on batch by batch, as Lightning's training epoch loop does, with the module's own hooks."""
        loop = self._in_trial.loop
        losses = [loop.train_batch() for _ in range(micro_batches)]
        # Read at the end of the stretch, not batch by batch: reading waits for the device.
        return [None if loss is None else float(loss) for loss in losses]

    def validate(self) -> float:
        """The monitored value, reduced by Lightning itself over the validation batches."""
        return self._judge.value(self._in_trial.loop, self._in_trial.model)

    def pause(self) -> Paused[LightningTraining]:
        """Optimizers, schedulers, counters and the model's state."""
        trial = self._in_trial
        training = trial.loop.training
        training.progress = progress_of(self._trainer)
        return Paused(training=training, model=trial.model.pause())

    def resume(self, paused: Paused[LightningTraining]) -> None:
        """Go on with a paused training."""
        trial = self._in_trial
        trial.model.resume(paused.model)
        set_progress(paused.training.progress)
        trial.loop.attach(paused.training)

    def store(self) -> dict[str, Any] | None:
        """Optimizers, schedulers, counters and the model's state; None for one-shot streams and loss scaling."""
        trial, trainer = self._in_trial, self._trainer
        training = trial.loop.training
        if self._data.replays or getattr(trainer.precision_plugin, "scaler", None) is not None:
            return None
        stored = training.store(trial.model)
        if stored is None:
            return None
        return {**stored, "progress": stored_progress(trainer), "at": [*stored["at"], training.batch_idx]}

    def restore(self, stored: dict[str, Any], build: Build | None, scales: Mapping[str, float] = UNSCALED) -> None:
        """Go on with what was stored, with optimizers of the same kinds; the hooks at the beginning are behind it."""
        seed, _, batch_idx = stored["at"]
        self._prepare(build, seed, scales)
        trial = self._in_trial
        training = trial.loop.training
        training.restore(trial.model, stored)
        restore_progress(self._trainer, stored["progress"])
        training.batch_idx = batch_idx

    def paused_bytes(self) -> int:
        """Weights, buffers and optimizer states."""
        return training_bytes(self.model, self._in_trial.loop.training.optimizers)

    def agree(self, value: T) -> T:
        """What rank 0 says."""
        agreed: T = self._trainer.strategy.broadcast(value)
        return agreed

    @property
    def _in_trial(self) -> _Borrowed:
        if self._borrowed is None:
            raise UnsupportedModuleError("trials run inside `with workload.borrowed():`, so that everything comes back")
        return self._borrowed

    def _give_back(self, model: BorrowedModel) -> None:
        model.restore()
        self._borrowed = None

    def _replay_streams(self) -> None:
        if (data := getattr(self, "_data", None)) is not None:
            for loop, source in data.replays:
                loop._data_source = source
            data.replays.clear()

    def _look_at_user_optimizer(self, model: BorrowedModel) -> None:
        if self._user is None:
            return
        optimizers = inspected(model, lambda: users_optimizers(self.model, self._user)[0])
        if len(optimizers) != 1:
            raise UnsupportedModuleError(
                f"configure_optimizers returns {len(optimizers)} optimizers; a search chooses exactly one"
            )
        self.user_passes = passes(optimizers[0])


def _idle(module: torch.nn.Module) -> tuple[Optimizer, None]:
    """An optimizer that moves nothing, for the passes before any choice."""
    return torch.optim.SGD(module.parameters(), lr=0.0), None
