"""What a trial is judged by: the monitored value of Lightning's validation, or one over batches held back from it."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from optselect.callbacks.data import TrialData
from optselect.callbacks.lightning_names import lightning_of
from optselect.callbacks.loop import TrialLoop, in_hook, loss_in
from optselect.callbacks.muting import METRIC_DICTS, forget_metrics
from optselect.errors import MetricNotLoggedError, UnsupportedModuleError
from optselect.optim.modes import evaluated
from optselect.workload.batch_norm import RECALIBRATION_BATCHES, recalibrated, recalibrates
from optselect.workload.batches import HELD_BACK_BATCHES
from optselect.workload.borrowed_model import evaluation_mode
from optselect.workload.rng import rng_isolated

if TYPE_CHECKING:
    import lightning.pytorch as pl


class Judge:
    """Judges the training that a loop goes through, by what its module logs.

    `monitor` is the name that was asked for; None: `val_loss`, else the training loss on batches held back.
    """

    def __init__(self, trainer: Any, module: pl.LightningModule, monitor: str | None) -> None:
        self._trainer = trainer
        self._module = module
        self._monitor = monitor
        self._logged: dict[str, list[Any]] = {}
        self._keeps_values = False

    def monitor(self, data: TrialData) -> str:
        """Return the logged name trials are judged by, or what stands in for it, in words."""
        if self._monitor is not None:
            return self._monitor
        return "val_loss" if data.validates else "training loss on held-back batches"

    def validation_batches(self, data: TrialData) -> int:
        """Count the batches that are judged by, and those BatchNorm takes."""
        judged = data.validation_batches if data.validates else HELD_BACK_BATCHES
        return judged + (RECALIBRATION_BATCHES if self._recalibrates else 0)

    def value(self, loop: TrialLoop) -> float:
        """Measure the value at the present weights, a mean over processes.

        Raises `MetricNotLoggedError` when the module does not log it, and `UnsupportedModuleError` when there is
        nothing to judge by.
        """
        with rng_isolated(), evaluated(loop.training.optimizers), self._recalibrated(loop):
            value = self._validated(loop) if loop.data.validates else None
            if value is None:
                value = self._held_back_value(loop)
        # Each process saw its own share of the validation set.
        return float(self._trainer.strategy.reduce(torch.tensor(value, dtype=torch.float64), reduce_op="mean"))

    def log(self, name: str, value: Any, *_: Any, **__: Any) -> None:
        """Stand in for `self.log` of the module."""
        self._logged.setdefault(name, [])
        if self._keeps_values:
            self._logged[name].append(value)
        if isinstance(value, Tensor | int | float):
            # The module's hooks may read it back.
            read = value.detach() if isinstance(value, Tensor) else torch.tensor(value)
            for metrics in METRIC_DICTS:
                getattr(self._trainer._logger_connector, metrics)[name] = read

    def _validated(self, loop: TrialLoop) -> float | None:
        """Read the monitored value from Lightning's validation loop; None when only the training step logs it."""
        trainer = self._trainer
        forget_metrics(trainer)
        kind = lightning_of(trainer).LightningModule
        parts = [part for part in self._module.modules() if isinstance(part, kind)]
        capturing = [(part, vars(part).pop("log"), vars(part).pop("log_dict")) for part in parts]
        trainer.validating = True
        try:
            trainer._logger_connector.reset_results()
            trainer.fit_loop.epoch_loop.val_loop.run()
            metrics = dict(trainer.callback_metrics)
        finally:
            trainer.training = True
            for part, log, log_dict in capturing:
                vars(part).update(log=log, log_dict=log_dict)
        name = self.monitor(loop.data)
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

    def _held_back_value(self, loop: TrialLoop) -> float:
        """Return the mean over held-back training batches of the monitored value, or of the training loss."""
        module = self._module
        if not module.automatic_optimization:
            raise UnsupportedModuleError(
                "manual optimization without validation gives nothing to judge a trial by; "
                "add a validation_step that logs val_loss"
            )
        losses: list[float] = []
        self._logged = {name: [] for name in self._logged}
        self._keeps_values = True
        try:
            with evaluation_mode(module), torch.no_grad(), in_hook(module, "training_step"):
                for index in range(HELD_BACK_BATCHES):
                    batch = loop.on_device(loop.data.batches.of(0)[index])
                    loss = loss_in(self._trainer.strategy.training_step(*loop.step_kwargs(batch, index).values()))
                    if loss is not None:
                        losses.append(float(loss))
        finally:
            self._keeps_values = False
        if self._monitor is not None:
            if not (values := self._logged.get(self._monitor)):
                raise MetricNotLoggedError.among(
                    f"monitor={self._monitor!r} was never logged", self._monitor, self._logged
                )
            losses = [float(value.compute() if hasattr(value, "compute") else value) for value in values]
        return sum(losses) / len(losses) if losses else math.nan

    @property
    def _recalibrates(self) -> bool:
        # In manual optimization the training step would also step the optimizer.
        return self._module.automatic_optimization and recalibrates(self._module)

    def _recalibrated(self, loop: TrialLoop) -> AbstractContextManager[None]:
        # Before the first batch the module's hooks have not yet made what its training step needs.
        if not self._recalibrates or loop.training.position == 0:
            return nullcontext()
        return recalibrated(self._module, lambda: self._forward_recent(loop))

    def _forward_recent(self, loop: TrialLoop) -> None:
        training = loop.training
        batches = loop.data.batches.of(training.seed)
        # With gradients, though none is taken: a training step may use them itself.
        with torch.enable_grad(), in_hook(self._module, "training_step"):
            for index in training.recent_batches(loop.held_back):
                batch = loop.on_device(batches[index])
                self._trainer.strategy.training_step(*loop.step_kwargs(batch, index).values())
