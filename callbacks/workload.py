"""A Lightning training as a `Workload`: trials in place, driven through Lightning's own optimization loop."""

from __future__ import annotations

import hashlib
import json
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.core.optimizer import _init_optimizers_and_lr_schedulers
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer

from optselect.callbacks.borrowing import (
    KEPT_ATTRIBUTES,
    Progress,
    fresh_progress,
    is_named,
    logging_replaced,
    progress_of,
    restore_progress,
    set_progress,
    stored_progress,
    trainer_borrowed,
)
from optselect.callbacks.data import TrialData
from optselect.callbacks.thawing import obstacle_to_thawing
from optselect.configuration.goal import Mode
from optselect.errors import MetricNotLoggedError, UnsupportedModuleError
from optselect.optim.modes import evaluated, to_training
from optselect.optim.passes import passes
from optselect.optim.rescaling import scaled
from optselect.workload.batch_norm import RECALIBRATION_BATCHES, recalibrated, recalibrates
from optselect.workload.batches import HELD_BACK_BATCHES
from optselect.workload.borrowed_model import BorrowedModel, ModelState, evaluation_mode, training_bytes, weights_digest
from optselect.workload.protocol import AS_IT_IS, Build, DataSource
from optselect.workload.rng import rng_isolated, seed_rng
from optselect.workload.stored import (
    NotPlainError,
    restore_optimizer,
    restore_schedulers,
    stored_optimizer,
    stored_schedulers,
)

T = TypeVar("T")


@dataclass
class _Training:
    """The training that was begun: what Lightning steps, and how far it is."""

    optimizers: list[Optimizer]
    schedulers: list[LRSchedulerConfig]
    seed: int
    position: int = 0
    batch_idx: int = 0


@dataclass(frozen=True)
class _Paused:
    training: _Training
    model: ModelState
    progress: Progress


class LightningWorkload:
    """The training that `trainer` is about to run on `module`.

    It lives inside `Trainer.fit`, where `configure_optimizers` is called: the device, `setup()` and loaded
    weights are all there by then. `user` is the module's own `configure_optimizers`, if it has one;
    `steps_done` are the optimizer steps in a checkpoint whose counters Lightning restores only later. Raises
    `UnsupportedModuleError` in `borrowed()`, before anything is changed, for a module that cannot be
    searched in place.
    """

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
        self.mode = mode
        # Much of a trainer is set by its connectors, which type checkers do not see.
        self._trainer = cast(Any, trainer)
        self._callbacks: list[Any] = list(self._trainer.callbacks)
        self._user = user
        self.user_passes = 1
        self._monitor = monitor
        self._steps_done = steps_done
        self._borrowed: BorrowedModel | None = None
        self._training: _Training | None = None
        self._steps: int | None = None
        self._logged: dict[str, list[Any]] = {}
        self._hooks: dict[str, bool] = {}

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
        """The logged name trials are judged by, or the training loss on batches held back."""
        if self._monitor is not None:
            return self._monitor
        return "val_loss" if self._data.validates else "training loss on held-back batches"

    @property
    def validation_batches(self) -> int:
        """Those of the first validation loader, up to a bound, or held back; and those BatchNorm takes."""
        judged = self._data.validation_batches if self._data.validates else HELD_BACK_BATCHES
        return judged + (RECALIBRATION_BATCHES if self._recalibrates else 0)

    @property
    def _recalibrates(self) -> bool:
        # In manual optimization the training step would also step the optimizer.
        return self.model.automatic_optimization and recalibrates(self.model)

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
        return any(_keeps_best(callback, self.monitor, self.mode) for callback in self._callbacks)

    @property
    def identity(self) -> str:
        """A digest of the module's class and weights, of the data set's size and two rows, and the length."""
        length = (self.steps, self._data.epoch_batches)
        facts = [self._data.digest(), type(self.model).__qualname__, *length, self.monitor, self.mode]
        return hashlib.sha256(json.dumps(facts).encode() + weights_digest(self.model)).hexdigest()[:16]

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Module, trainer, loaders, data and random numbers as they were, on leaving."""
        if self._borrowed is not None:
            yield
            return
        self._refuse_signature()
        trainer, module = self._trainer, self.model
        with ExitStack() as stack:
            stack.callback(self._replay_streams)
            stack.enter_context(rng_isolated())
            stack.enter_context(trainer_borrowed(trainer))
            pinned = [trainer, trainer.strategy, *trainer.loggers, *self._callbacks]
            pinned += [trainer.datamodule] if trainer.datamodule is not None else []
            borrowed = BorrowedModel(module, pinned=pinned, kept=KEPT_ATTRIBUTES)
            stack.callback(self._give_back, borrowed)
            self._progress = progress_of(trainer)
            borrowed.begin()
            self._data = TrialData(trainer, stack)
            self._steps = self._estimated_steps()
            stack.enter_context(logging_replaced(module, self._log))
            self._hooks = {name: is_overridden(name, module) for name in _MODULE_HOOKS}
            self._takes_index = "batch_idx" in trainer.fit_loop.epoch_loop._build_kwargs(OrderedDict(), None, 0)
            self._leaves_batches = self._has_nothing_to_move()
            self._borrowed = borrowed
            self._look_at_user_optimizer()
            yield

    def source(self) -> DataSource:
        """The training loader's data set, or its first batches when it has none that can be indexed."""
        return self._data.source()

    def backward(self, batch: Any) -> float:
        """One forward and backward pass through Lightning and the module's hooks, into `.grad`."""
        if self._training is None:
            self.begin(_idle, 0)
        training, module, strategy = self._begun(), self.model, self._trainer.strategy
        if training.batch_idx == 0:
            self._begin_epoch()
        batch = self._on_device(batch)
        kwargs = self._enter_batch(batch, last=False)
        if kwargs is None:
            self._end_epoch()
            return math.nan
        output: Any
        if module.automatic_optimization:
            with torch.enable_grad(), _in_hook(module, "training_step"):
                output = strategy.training_step(*kwargs.values())
                loss = _loss_in(output)
                if loss is not None:
                    strategy.backward(loss, strategy.optimizers[0])
        else:
            output = self._trainer.fit_loop.epoch_loop.manual_optimization.run(kwargs)
            loss = output.get("loss")
        self._leave_batch(output, batch, last=False)
        return math.nan if loss is None else float(loss.detach())

    def begin(self, build: Build | None, seed: int, scales: Mapping[str, float] = AS_IT_IS) -> None:
        """Start from the borrowed weights, counters, attributes; None: with the user's own optimizer, at `scales`."""
        self._prepare(build, seed, scales)
        for hook in ("on_fit_start", "on_train_start"):
            self._call(hook)

    def _prepare(self, build: Build | None, seed: int, scales: Mapping[str, float]) -> None:
        trainer, module = self._trainer, self.model
        self._model().begin()
        fresh_progress(self._progress)
        trainer.should_stop = False
        seed_rng(seed)
        self._data.batches(seed)  # now: a training that is restored goes on with other random numbers
        if build is None:
            optimizers, schedulers = scaled(self._user_optimizers(), **scales)
        else:
            optimizer, scheduler = build(module)
            optimizers = [optimizer]
            schedulers = [LRSchedulerConfig(scheduler, interval="step")] if scheduler is not None else []
        self._training = _Training(optimizers=optimizers, schedulers=schedulers, seed=seed)
        to_training(optimizers)
        self._attach()

    def train(self, micro_batches: int) -> Sequence[float | None]:
        """Go on batch by batch, as Lightning's training epoch loop does, with the module's own hooks."""
        losses = [self._train_batch() for _ in range(micro_batches)]
        # Read at the end of the stretch, not batch by batch: reading waits for the device.
        return [None if loss is None else float(loss) for loss in losses]

    def validate(self) -> float:
        """The monitored value, reduced by Lightning itself over the validation batches."""
        with rng_isolated(), evaluated(self._begun().optimizers), self._recalibrated():
            value = self._validated() if self._data.validates else None
            if value is None:
                value = self._held_back_value()
        # The mean over processes, each of which saw its own share of the validation set.
        return float(self._trainer.strategy.reduce(torch.tensor(value, dtype=torch.float64), reduce_op="mean"))

    def pause(self) -> _Paused:
        """Optimizers, schedulers, counters and the model's state."""
        return _Paused(self._begun(), self._model().pause(), progress_of(self._trainer))

    def resume(self, paused: _Paused) -> None:
        """Go on with a paused training."""
        self._training = paused.training
        self._model().resume(paused.model)
        set_progress(paused.progress)
        self._attach()

    def store(self) -> dict[str, Any] | None:
        """Optimizers, schedulers, counters and the model's state; None for one-shot streams and loss scaling."""
        training, trainer = self._begun(), self._trainer
        if self._data.replay is not None or getattr(trainer.precision_plugin, "scaler", None) is not None:
            return None
        try:
            return {
                "model": self._model().store(),
                "optimizers": [stored_optimizer(each, self.model.parameters()) for each in training.optimizers],
                "schedulers": stored_schedulers([config.scheduler for config in training.schedulers]),
                "progress": stored_progress(trainer),
                "at": [training.seed, training.position, training.batch_idx],
            }
        except NotPlainError:
            return None

    def restore(self, stored: dict[str, Any], build: Build | None, scales: Mapping[str, float] = AS_IT_IS) -> None:
        """Go on with what was stored, with optimizers of the same kinds; the hooks at the beginning are behind it."""
        seed, position, batch_idx = stored["at"]
        self._prepare(build, seed, scales)
        training = self._begun()
        self._model().restore_stored(stored["model"])
        for optimizer, state in zip(training.optimizers, stored["optimizers"], strict=True):
            restore_optimizer(optimizer, state)
        restore_schedulers([config.scheduler for config in training.schedulers], stored["schedulers"])
        restore_progress(self._trainer, stored["progress"])
        training.position, training.batch_idx = position, batch_idx

    def paused_bytes(self) -> int:
        """Weights, buffers and optimizer states."""
        return training_bytes(self.model, self._begun().optimizers)

    def agree(self, value: T) -> T:
        """What rank 0 says."""
        agreed: T = self._trainer.strategy.broadcast(value)
        return agreed

    # --- setting up -------------------------------------------------------------------------------

    def _estimated_steps(self) -> int | None:
        for callback in self._callbacks:
            # A timer without a duration only tells the time.
            if is_named(callback, "Timer") and callback.time_remaining() is not None:
                return None
            if is_named(callback, "GradientAccumulationScheduler"):
                return None
        # The estimate asks the trainer for the loader, which by now is the unopened one.
        estimate = self._trainer.estimated_stepping_batches
        done = self._trainer.global_step + self._steps_done
        return int(estimate) - done if 0 < estimate < math.inf else None

    def _refuse_signature(self) -> None:
        module, strategy = self.model, self._trainer.strategy
        if is_param_in_hook_signature(module.training_step, "dataloader_iter", explicit=True):
            raise UnsupportedModuleError(
                "training_step takes the loader's iterator, so trials could not choose its batches"
            )
        if strategy.restore_checkpoint_after_setup or strategy.handles_gradient_accumulation:
            raise UnsupportedModuleError(
                f"{type(strategy).__name__} shards the model, so its weights cannot be put back after a trial"
            )

    def _look_at_user_optimizer(self) -> None:
        if self._user is None:
            return
        self._model().begin()
        optimizers, _ = self._user_optimizers()
        self._model().begin()
        if len(optimizers) != 1:
            raise UnsupportedModuleError(
                f"configure_optimizers returns {len(optimizers)} optimizers; a search chooses exactly one"
            )
        self.user_passes = passes(optimizers[0])

    def _user_optimizers(self) -> tuple[list[Optimizer], list[LRSchedulerConfig]]:
        module, user = self.model, self._user
        provided = vars(module).get("configure_optimizers")
        try:
            vars(module)["configure_optimizers"] = user
            return _init_optimizers_and_lr_schedulers(module)
        finally:
            vars(module).pop("configure_optimizers", None)
            if provided is not None:
                vars(module)["configure_optimizers"] = provided

    def _give_back(self, borrowed: BorrowedModel) -> None:
        borrowed.restore()
        self._borrowed = None
        self._training = None

    def _replay_streams(self) -> None:
        if (data := getattr(self, "_data", None)) is not None and data.replay is not None:
            self._trainer.fit_loop._data_source = data.replay
            data.replay = None

    def _model(self) -> BorrowedModel:
        if self._borrowed is None:
            raise UnsupportedModuleError("trials run inside `with workload.borrowed():`, so that everything comes back")
        return self._borrowed

    def _begun(self) -> _Training:
        if self._training is None:
            raise UnsupportedModuleError("no training was begun; call begin() first")
        return self._training

    def _attach(self) -> None:
        training, strategy = self._begun(), self._trainer.strategy
        strategy.optimizers = training.optimizers
        strategy.lr_scheduler_configs = training.schedulers
        self._forget_metrics()

    # --- training ---------------------------------------------------------------------------------

    @property
    def _held_back(self) -> int:
        """Batches at the beginning that no trial trains on."""
        return 0 if self._data.validates else HELD_BACK_BATCHES

    def _train_batch(self) -> Tensor | None:
        training, loop = self._begun(), self._trainer.fit_loop.epoch_loop
        batches = self._data.batches(training.seed)
        index = self._held_back + training.position
        if training.batch_idx == 0:
            self._begin_epoch()
        batch = self._on_device(batches[index])
        last = batches.is_last_of_epoch(index)
        kwargs = self._enter_batch(batch, last=last)
        if kwargs is None:
            self._step_schedulers(last=True)
            training.position = batches.epoch_after(index) - self._held_back
            self._end_epoch()
            return None
        output: Any
        if self.model.automatic_optimization:
            output = loop.automatic_optimization.run(training.optimizers[0], training.batch_idx, kwargs)
        else:
            output = loop.manual_optimization.run(kwargs)
        self._step_schedulers(last=last)
        self._leave_batch(output, batch, last=last)
        loss = output.get("loss") if isinstance(output, dict) else None
        return loss.detach() if isinstance(loss, Tensor) else None

    def _step_schedulers(self, *, last: bool) -> None:
        loop = self._trainer.fit_loop.epoch_loop
        loop.batch_progress.increment_processed()
        loop.update_lr_schedulers("step", update_plateau_schedulers=False)
        if last:
            loop.update_lr_schedulers("epoch", update_plateau_schedulers=False)

    def _enter_batch(self, batch: Any, *, last: bool) -> OrderedDict[str, Any] | None:
        """The training step's arguments; None: the module skips the rest of the epoch."""
        training, loop = self._begun(), self._trainer.fit_loop.epoch_loop
        if self._trainer.received_sigterm:
            # Lightning's own loop leaves after the batch, too. The study has what is done.
            raise SIGTERMException
        loop.batch_progress.is_last_batch = last
        loop.batch_progress.increment_ready()
        answer = self._call("on_train_batch_start", batch, training.batch_idx)
        self._trainer.strategy.on_train_batch_start(batch, training.batch_idx)
        if answer == -1:
            loop.batch_progress.increment_by(0, is_last_batch=True)
            return None
        loop.batch_progress.increment_started()
        return self._step_kwargs(batch, training.batch_idx)

    def _step_kwargs(self, batch: Any, index: int) -> OrderedDict[str, Any]:
        # As Lightning builds them, which reads the step's signature anew for every batch.
        kwargs = OrderedDict(batch=batch)
        if self._takes_index:
            # Within the epoch: a training step may look something up by it.
            kwargs["batch_idx"] = index % (self._data.epoch_batches or index + 1)
        return kwargs

    def _leave_batch(self, output: Any, batch: Any, *, last: bool) -> None:
        training, loop = self._begun(), self._trainer.fit_loop.epoch_loop
        self._call("on_train_batch_end", output, batch, training.batch_idx)
        loop.batch_progress.increment_completed()
        if not loop._should_accumulate():
            loop._batches_that_stepped += 1
        training.position += 1
        training.batch_idx += 1
        if last:
            self._end_epoch()

    def _end_epoch(self) -> None:
        self._begun().batch_idx = 0
        progress = self._trainer.fit_loop.epoch_progress
        progress.increment_processed()
        self._call("on_train_epoch_end")
        progress.increment_completed()

    def _begin_epoch(self) -> None:
        fit_loop = self._trainer.fit_loop
        loop = fit_loop.epoch_loop
        fit_loop.epoch_progress.increment_ready()
        self._call("on_train_epoch_start")
        fit_loop.epoch_progress.increment_started()
        loop.batch_progress.reset_on_run()
        loop.scheduler_progress.reset_on_run()
        loop.automatic_optimization.optim_progress.reset_on_run()

    def _has_nothing_to_move(self) -> bool:
        """Whether batches reach the step as they are: on the CPU, not converted, no transfer hook overridden."""
        trainer = self._trainer
        owners = [self.model] if trainer.datamodule is None else [self.model, trainer.datamodule]
        return (
            trainer.strategy.root_device.type == "cpu"
            and type(trainer.precision_plugin).convert_input is Precision.convert_input
            and not any(is_overridden(hook, owner) for hook in _TRANSFER_HOOKS for owner in owners)
        )

    def _on_device(self, batch: Any) -> Any:
        if self._leaves_batches:
            return batch
        trainer, module = self._trainer, self.model
        batch = trainer.precision_plugin.convert_input(batch)
        batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
        return trainer.strategy.batch_to_device(batch, dataloader_idx=0)

    def _call(self, hook: str, *args: Any) -> Any:
        """The module's own hook, if it has one: asking first is cheaper than calling an empty one."""
        if self._hooks[hook]:
            with _in_hook(self.model, hook):
                return getattr(self.model, hook)(*args)
        return None

    def _log(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        self._logged.setdefault(name, [])
        if self._judging:
            self._logged[name].append(value)
        if isinstance(value, Tensor | int | float):
            # The module's hooks may read it back.
            read = value.detach() if isinstance(value, Tensor) else torch.tensor(value)
            connector = self._trainer._logger_connector
            for metrics in (connector._callback_metrics, connector._logged_metrics, connector._progress_bar_metrics):
                metrics[name] = read

    def _forget_metrics(self) -> None:
        connector = self._trainer._logger_connector
        connector.reset_metrics()
        for name in ("_callback_metrics", "_logged_metrics", "_progress_bar_metrics"):
            setattr(connector, name, _TrialMetrics())

    # --- judging ----------------------------------------------------------------------------------

    _judging = False

    def _validated(self) -> float | None:
        """The monitored value from Lightning's validation loop; None when only the training step logs it."""
        trainer, connector = self._trainer, self._trainer._logger_connector
        self._forget_metrics()
        capturing = [(part, vars(part).pop("log"), vars(part).pop("log_dict")) for part in self._lightning_parts()]
        trainer.validating = True
        try:
            connector.reset_results()
            trainer.fit_loop.epoch_loop.val_loop.run()
            metrics = dict(trainer.callback_metrics)
        finally:
            trainer.training = True
            for part, log, log_dict in capturing:
                vars(part).update(log=log, log_dict=log_dict)
        name = self.monitor
        for key in (name, f"{name}/dataloader_idx_0"):
            if key in metrics:
                return float(metrics[key])
        if self._monitor is not None and name in self._logged:
            return None
        wanted = f"monitor={name!r}" if self._monitor else "no monitor was given, and 'val_loss'"
        raise MetricNotLoggedError.among(
            f"{wanted} was never logged in the validation before the first trial (a trial is judged by one alone, so "
            "each has to log it, in whichever epoch)",
            name,
            {*metrics, *self._logged},
        )

    def _recalibrated(self) -> AbstractContextManager[None]:
        # Before the first batch the module's hooks have not yet made what its training step needs.
        wanted = self._recalibrates and self._begun().position > 0
        return recalibrated(self.model, self._forward_recent) if wanted else nullcontext()

    def _forward_recent(self) -> None:
        training, strategy = self._begun(), self._trainer.strategy
        batches = self._data.batches(training.seed)
        first = self._held_back + max(training.position - RECALIBRATION_BATCHES, 0)
        # With gradients, though none is taken: a training step may use them itself.
        with torch.enable_grad(), _in_hook(self.model, "training_step"):
            for index in range(first, first + RECALIBRATION_BATCHES):
                batch = self._on_device(batches[index])
                kwargs = self._step_kwargs(batch, index)
                strategy.training_step(*kwargs.values())

    def _held_back_value(self) -> float:
        """The mean over held-back training batches of the monitored value, or of the training loss."""
        module = self.model
        if not module.automatic_optimization:
            raise UnsupportedModuleError(
                "manual optimization without validation gives nothing to judge a trial by; "
                "add a validation_step that logs val_loss"
            )
        losses: list[float] = []
        self._logged = {name: [] for name in self._logged}
        self._judging = True
        try:
            with evaluation_mode(module), torch.no_grad(), _in_hook(module, "training_step"):
                for index in range(HELD_BACK_BATCHES):
                    batch = self._on_device(self._data.batches(0)[index])
                    kwargs = self._step_kwargs(batch, index)
                    loss = _loss_in(self._trainer.strategy.training_step(*kwargs.values()))
                    if loss is not None:
                        losses.append(float(loss))
        finally:
            self._judging = False
        if self._monitor is not None:
            if not (values := self._logged.get(self._monitor)):
                raise MetricNotLoggedError.among(
                    f"monitor={self._monitor!r} was never logged", self._monitor, self._logged
                )
            losses = [float(value.compute() if hasattr(value, "compute") else value) for value in values]
        return sum(losses) / len(losses) if losses else math.nan

    def _lightning_parts(self) -> list[pl.LightningModule]:
        return [part for part in self.model.modules() if isinstance(part, pl.LightningModule)]


class _TrialMetrics(dict[str, Tensor]):
    """What a trial's hooks read from `trainer.callback_metrics`: NaN for what a trial does not log or reduce.

    Trials are judged only now and then, and reduce nothing over epochs; a real run would have the value there.
    """

    def __missing__(self, name: str) -> Tensor:
        return torch.tensor(math.nan)


_MODULE_HOOKS = (
    "on_fit_start",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_train_epoch_end",
)

_TRANSFER_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


def _keeps_best(callback: Any, monitor: str, mode: Mode) -> bool:
    if is_named(callback, "ModelCheckpoint"):
        return bool((callback.monitor, callback.mode) == (monitor, mode) and callback.save_top_k != 0)
    return is_named(callback, "EarlyStopping") and (callback.monitor, callback.mode) == (monitor, mode)


@contextmanager
def _in_hook(module: pl.LightningModule, name: str) -> Iterator[None]:
    """Lightning asks a module which hook it is in."""
    before, module._current_fx_name = module._current_fx_name, name
    try:
        yield
    finally:
        module._current_fx_name = before


def _loss_in(output: Any) -> Any:
    """The loss that a training step gave, alone or in a dict; None for a skipped batch."""
    return output["loss"] if isinstance(output, dict) else output


def _idle(module: torch.nn.Module) -> tuple[Optimizer, None]:
    """An optimizer that moves nothing, for the passes before any choice."""
    return torch.optim.SGD(module.parameters(), lr=0.0), None
