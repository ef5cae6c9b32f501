"""Checkpoints of optimizers with modes: schedule-free weights are saved as those to use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from optselect.optim.modes import to_evaluation

if TYPE_CHECKING:
    import lightning.pytorch as pl


def save_evaluated(
    chosen: Callable[[pl.Trainer], list[Optimizer]],
    module: pl.LightningModule,
    own: Any,
    _: str,
    checkpoint: dict[str, Any],
) -> None:
    """Stand in for `module.on_save_checkpoint`: save in evaluation mode; the next batch switches back."""
    _evaluate_in(checkpoint, module.trainer, chosen(module.trainer))
    own(checkpoint) if own is not None else type(module).on_save_checkpoint(module, checkpoint)


def _evaluate_in(checkpoint: dict[str, Any], trainer: Any, optimizers: Sequence[Optimizer]) -> None:
    """Switch these optimizers of the trainer to evaluation in a checkpoint that Lightning has dumped already.

    What others have put there instead of the weights, as averages of them, stays.
    """
    before = trainer.strategy.lightning_module_state_dict()
    weights = checkpoint["state_dict"]
    as_dumped = [name for name in weights.keys() & before.keys() if _equal(weights[name], before[name])]
    to_evaluation(optimizers)
    now = trainer.strategy.lightning_module_state_dict()
    weights.update({name: now[name] for name in as_dumped})
    if "optimizer_states" in checkpoint:
        checkpoint["optimizer_states"] = [trainer.strategy.optimizer_state(each) for each in trainer.optimizers]


def _equal(one: Any, other: Any) -> bool:
    return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)
