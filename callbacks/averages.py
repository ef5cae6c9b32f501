"""Averages of weights that a callback of Lightning's keeps and lets the training validate: trials have them, too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from optselect.callbacks.other_callbacks import is_named

if TYPE_CHECKING:
    import lightning.pytorch as pl


class TrialAverage:
    """The average that a `WeightAveraging` would keep of the trial of `module`, from its beginning on.

    Of the callback itself nothing changes: it is asked when to average and how.
    """

    def __init__(self, callback: Any, module: pl.LightningModule) -> None:
        self._callback = callback
        self._average = AveragedModel(
            _Tensors(module), device=callback._device, use_buffers=callback._use_buffers, **callback._kwargs
        )
        self._latest_step, self._latest_epoch = 0, -1
        self._ended: int | None = None

    def after_batch(self, trainer: Any, module: pl.LightningModule) -> None:
        """As the callback's `on_train_batch_end`."""
        step = trainer.global_step
        if step > self._latest_step and self._callback.should_update(step_idx=step - 1):
            self._average.update_parameters(module)
            self._latest_step = step

    def after_epoch(self, trainer: Any) -> None:
        """Note that an epoch has ended: a training validates before its callbacks hear of that."""
        self._ended = trainer.current_epoch

    def before_epoch(self, module: pl.LightningModule) -> None:
        """As the callback's `on_train_epoch_end`, for the epoch that has ended."""
        epoch, self._ended = self._ended, None
        if epoch is not None and epoch > self._latest_epoch and self._callback.should_update(epoch_idx=epoch):
            self._average.update_parameters(module)
            self._latest_epoch = epoch

    @contextmanager
    def in_place(self, module: pl.LightningModule) -> Iterator[None]:
        """Put the averages into the module inside, and its own weights and buffers back afterwards."""
        self._swap(module)
        try:
            yield
        finally:
            self._swap(module)

    @torch.no_grad()
    def _swap(self, module: pl.LightningModule) -> None:
        for average, own in zip(_tensors(self._average.module), _tensors(module), strict=True):
            held = average.clone()
            average.copy_(own)
            own.copy_(held)


class _Tensors(nn.Module):
    """The parameters and buffers of a module, without all the rest, which may refuse to be copied."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        for place, parameter in enumerate(module.parameters()):
            self.register_parameter(f"p{place}", nn.Parameter(parameter.detach(), requires_grad=False))
        for place, buffer in enumerate(module.buffers()):
            self.register_buffer(f"b{place}", buffer.detach())


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def is_averaged_in_trials(callback: Any) -> bool:
    """Whether trials keep the averages of `callback`."""
    return is_named(callback, "WeightAveraging") and all(
        hasattr(callback, name) for name in ("_kwargs", "_device", "_use_buffers", "should_update")
    )


def trial_averages(callbacks: Iterable[Any], module: pl.LightningModule) -> list[TrialAverage]:
    """Make a fresh average for each of `callbacks` that keeps one."""
    return [TrialAverage(callback, module) for callback in callbacks if is_averaged_in_trials(callback)]


@contextmanager
def averaged(averages: Sequence[TrialAverage], module: pl.LightningModule) -> Iterator[None]:
    """Put into the module what the training would validate."""
    with ExitStack() as stack:
        for average in averages:
            stack.enter_context(average.in_place(module))
        yield
