"""Lightning's training loop, driven batch by batch: with its optimization and the module's hooks, without the rest."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from optselect.callbacks.averages import TrialAverage
from optselect.callbacks.counters import Progress
from optselect.callbacks.data import TrialData
from optselect.callbacks.lightning_names import lightning_of
from optselect.callbacks.muting import forget_metrics
from optselect.errors import UnsupportedModuleError
from optselect.workload.training import Training

if TYPE_CHECKING:
    import lightning.pytorch as pl

_MODULE_HOOKS = (
    "on_fit_start",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_train_epoch_end",
)
_TRANSFER_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


@dataclass(kw_only=True)
class LightningTraining(Training):
    """A training that Lightning's loop goes through; its schedulers are in Lightning's `LRSchedulerConfig`s.

    batch_idx  batches of the present epoch behind it
    progress   the loops' counters, while it is put aside
    averages   of its weights, as the trainer's callbacks would keep them
    scaler     of its loss, in half precision (None: there is none)
    """

    batch_idx: int = 0
    progress: Progress = ()
    averages: Sequence[TrialAverage] = ()
    scaler: Any = None

    def torch_schedulers(self) -> list[LRScheduler]:
        """Return the schedulers that are in the configs now."""
        return [config.scheduler for config in self.schedulers]


class TrialLoop:
    """Goes through the batches of `data` as the `trainer` would, with the training that was attached last.

    No trial trains on the first `held_back` of them. `at_epoch_end` is called after the module's own hook.
    """

    held_back = 0

    def __init__(
        self, trainer: Any, module: pl.LightningModule, data: TrialData, at_epoch_end: Callable[[], None]
    ) -> None:
        self.data = data
        self._at_epoch_end = at_epoch_end
        self._trainer = trainer
        self._module = module
        self._training: LightningTraining | None = None
        self._hooks = {name: lightning_of(trainer).is_overridden(name, module) for name in _MODULE_HOOKS}
        self._takes_index = "batch_idx" in trainer.fit_loop.epoch_loop._build_kwargs(OrderedDict(), None, 0)
        self._leaves_batches = _moves_nothing(trainer, module)
        self._scaler = getattr(trainer.precision_plugin, "scaler", None)

    @property
    def has_begun(self) -> bool:
        """Whether there is a training to go on with."""
        return self._training is not None

    @property
    def training(self) -> LightningTraining:
        """The training that was begun. Raises `UnsupportedModuleError` when there is none."""
        if self._training is None:
            raise UnsupportedModuleError("no training was begun; call begin() first")
        return self._training

    def forget(self) -> None:
        """Have no training to go on with."""
        self._training = None

    def drop(self) -> None:
        """Have no training to go on with, and free its optimizers' states.

        Optimizers and schedulers hold each other, so their memory would wait for Python's collector.
        """
        for optimizer in self._training.optimizers if self._training is not None else ():
            optimizer.state.clear()
        self._training = None

    def attach(self, training: LightningTraining) -> None:
        """Let Lightning step this training's optimizers and schedulers from now on."""
        self._training = training
        strategy = self._trainer.strategy
        if self._scaler is not None:
            # Its scale moves with the gradients that overflow: each training has its own.
            training.scaler = _copied(self._scaler) if training.scaler is None else training.scaler
            self._trainer.precision_plugin.scaler = training.scaler
        strategy.optimizers = training.optimizers
        strategy.lr_scheduler_configs = training.schedulers
        forget_metrics(self._trainer)

    def start(self) -> None:
        """Call the module's hooks at the beginning of a training."""
        for hook in ("on_fit_start", "on_train_start"):
            self._call(hook)

    def backward(self, batch: Any) -> float:
        """Run `batch` forward and backward, into `.grad`; return its loss, or NaN where the module gave none."""
        training, module, strategy = self.training, self._module, self._trainer.strategy
        if training.batch_idx == 0:
            self._begin_epoch()
        batch = self.on_device(batch)
        kwargs = self._enter_batch(batch, last=False)
        if kwargs is None:
            self._end_epoch()
            return math.nan
        output: Any
        if module.automatic_optimization:
            with torch.enable_grad(), in_hook(module, "training_step"):
                output = strategy.training_step(*kwargs.values())
                loss = loss_in(output)
                if loss is not None:
                    strategy.backward(loss, strategy.optimizers[0])
                    self._unscale()
        else:
            output = self._trainer.fit_loop.epoch_loop.manual_optimization.run(kwargs)
            loss = output.get("loss")
        self._leave_batch(output, batch, last=False)
        return math.nan if loss is None else float(loss.detach())

    def _unscale(self) -> None:
        """Divide gradients by what their loss was multiplied by, and let that move as in a step."""
        (optimizer, *_), scaler = self._trainer.strategy.optimizers, self.training.scaler
        gradients = (each.grad for group in optimizer.param_groups for each in group["params"])
        if scaler is not None and any(gradient is not None for gradient in gradients):
            scaler.unscale_(optimizer)
            scaler.update()

    def train_batch(self) -> Tensor | None:
        """Train on the next batch; return its loss, or None where the module gave none."""
        training, loop = self.training, self._trainer.fit_loop.epoch_loop
        batches = self.data.batches.of(training.seed)
        index = self.held_back + training.position
        if training.batch_idx == 0:
            self._begin_epoch()
        batch = self.on_device(batches[index])
        last = batches.is_last_of_epoch(index)
        if batch is None:
            self._skip_batch(last=last)
            return None
        kwargs = self._enter_batch(batch, last=last)
        if kwargs is None:
            self._step_schedulers(last=True)
            training.position = batches.epoch_after(index) - self.held_back
            self._end_epoch()
            return None
        output: Any
        if self._module.automatic_optimization:
            output = loop.automatic_optimization.run(training.optimizers[0], training.batch_idx, kwargs)
        else:
            output = loop.manual_optimization.run(kwargs)
        self._step_schedulers(last=last)
        self._leave_batch(output, batch, last=last)
        loss = output.get("loss") if isinstance(output, dict) else None
        return loss.detach() if isinstance(loss, Tensor) else None

    def on_device(self, batch: Any) -> Any:
        """Move the batch to where the training step gets it, converted as it gets it."""
        if self._leaves_batches:
            return batch
        trainer, module = self._trainer, self._module
        batch = trainer.precision_plugin.convert_input(batch)
        batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
        return trainer.strategy.batch_to_device(batch, dataloader_idx=0)

    def step_kwargs(self, batch: Any, index: int) -> OrderedDict[str, Any]:
        """Make the training step's arguments."""
        # As Lightning builds them, which reads the step's signature anew for every batch.
        kwargs = OrderedDict(batch=batch)
        if self._takes_index:
            # Within the epoch: a training step may look something up by it.
            kwargs["batch_idx"] = index % (self.data.epoch_batches or index + 1)
        return kwargs

    def enter_epoch(self) -> None:
        """Call the module's hook at the beginning of an epoch, where none has begun."""
        if self.training.batch_idx == 0:
            self._call("on_train_epoch_start")

    def leave_epoch(self) -> None:
        """Call the module's hook at the end of an epoch, though the epoch goes on."""
        self._call("on_train_epoch_end")

    def announced(self, batch: Any, index: int) -> OrderedDict[str, Any]:
        """Make the training step's arguments, after calling the module's hook that goes before it."""
        kwargs = self.step_kwargs(batch, index)
        self._call("on_train_batch_start", batch, kwargs.get("batch_idx", index))
        return kwargs

    def _skip_batch(self, *, last: bool) -> None:
        """Do what Lightning does with a batch that is None."""
        self._heed_signals()
        progress = self._trainer.fit_loop.epoch_loop.batch_progress
        progress.is_last_batch = last
        progress.increment_ready()
        self._step_schedulers(last=last)
        self._leave_batch(None, None, last=last)

    def _heed_signals(self) -> None:
        if self._trainer.received_sigterm:
            # Lightning's own loop leaves after the batch, too. The study has what is done.
            raise lightning_of(self._trainer).SIGTERMException

    def _step_schedulers(self, *, last: bool) -> None:
        loop = self._trainer.fit_loop.epoch_loop
        loop.batch_progress.increment_processed()
        loop.update_lr_schedulers("step", update_plateau_schedulers=False)
        if last:
            loop.update_lr_schedulers("epoch", update_plateau_schedulers=False)

    def _enter_batch(self, batch: Any, *, last: bool) -> OrderedDict[str, Any] | None:
        """Begin a batch and return the training step's arguments; None: the module skips the rest of the epoch."""
        training, loop = self.training, self._trainer.fit_loop.epoch_loop
        self._heed_signals()
        loop.batch_progress.is_last_batch = last
        loop.batch_progress.increment_ready()
        answer = self._call("on_train_batch_start", batch, training.batch_idx)
        self._trainer.strategy.on_train_batch_start(batch, training.batch_idx)
        if answer == -1:
            loop.batch_progress.increment_by(0, is_last_batch=True)
            return None
        loop.batch_progress.increment_started()
        return self.step_kwargs(batch, training.batch_idx)

    def _leave_batch(self, output: Any, batch: Any, *, last: bool) -> None:
        training, loop = self.training, self._trainer.fit_loop.epoch_loop
        self._call("on_train_batch_end", output, batch, training.batch_idx)
        for average in training.averages:
            average.after_batch(self._trainer, self._module)
        loop.batch_progress.increment_completed()
        if not loop._should_accumulate():
            loop._batches_that_stepped += 1
        training.position += 1
        training.batch_idx += 1
        if last:
            self._end_epoch()

    def _begin_epoch(self) -> None:
        fit_loop = self._trainer.fit_loop
        loop = fit_loop.epoch_loop
        for average in self.training.averages:
            average.before_epoch(self._module)
        fit_loop.epoch_progress.increment_ready()
        self._call("on_train_epoch_start")
        fit_loop.epoch_progress.increment_started()
        loop.batch_progress.reset_on_run()
        loop.scheduler_progress.reset_on_run()
        loop.automatic_optimization.optim_progress.reset_on_run()

    def _end_epoch(self) -> None:
        self.training.batch_idx = 0
        progress = self._trainer.fit_loop.epoch_progress
        progress.increment_processed()
        for average in self.training.averages:
            average.after_epoch(self._trainer)
        self._call("on_train_epoch_end")
        self._at_epoch_end()
        progress.increment_completed()

    def _call(self, hook: str, *args: Any) -> Any:
        """Call the module's own hook, if it has one: asking first is cheaper than calling an empty one."""
        if self._hooks[hook]:
            with in_hook(self._module, hook):
                return getattr(self._module, hook)(*args)
        return None


@contextmanager
def in_hook(module: pl.LightningModule, name: str) -> Iterator[None]:
    """Tell the module inside which hook it is in, as Lightning does."""
    before, module._current_fx_name = module._current_fx_name, name
    try:
        yield
    finally:
        module._current_fx_name = before


def _copied(scaler: Any) -> Any:
    """Copy a scaler; one for shards shares its group of processes."""
    group = getattr(scaler, "process_group", None)
    return copy.deepcopy(scaler, {} if group is None else {id(group): group})


def loss_in(output: Any) -> Any:
    """Return the loss that a training step gave, alone or in a dict; None for a skipped batch."""
    return output["loss"] if isinstance(output, dict) else output


def _moves_nothing(trainer: Any, module: pl.LightningModule) -> bool:
    """Tell whether batches reach the step as they are: on the CPU, not converted, no transfer hook overridden."""
    lightning = lightning_of(trainer)
    owners = [module] if trainer.datamodule is None else [module, trainer.datamodule]
    return (
        trainer.strategy.root_device.type == "cpu"
        and type(trainer.precision_plugin).convert_input is lightning.Precision.convert_input
        and not any(lightning.is_overridden(hook, owner) for hook in _TRANSFER_HOOKS for owner in owners)
    )
