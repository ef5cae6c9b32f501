"""What can be known of a fit before its first step: its length, its own optimizers, and what no trial can undo."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

from optselect.callbacks.lightning_names import lightning_of
from optselect.callbacks.other_callbacks import leaves_length_open
from optselect.errors import UnsupportedModuleError

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from lightning.pytorch.utilities.types import LRSchedulerConfig


def refuse_unsearchable(trainer: Any, module: pl.LightningModule) -> None:
    """Raise `UnsupportedModuleError` where trials could not choose their batches, or not be undone."""
    strategy = trainer.strategy
    if lightning_of(trainer).is_param_in_hook_signature(module.training_step, "dataloader_iter", explicit=True):
        raise UnsupportedModuleError(
            "training_step takes the loader's iterator, so trials could not choose its batches"
        )
    if strategy.restore_checkpoint_after_setup or strategy.handles_gradient_accumulation:
        raise UnsupportedModuleError(
            f"{type(strategy).__name__} shards the model, so its weights cannot be put back after a trial"
        )


def steps_to_come(trainer: Any, callbacks: Iterable[Any], steps_done: int) -> int | None:
    """Return Lightning's estimate of the optimizer steps to come; None where it would not be true.

    `steps_done` are those of a checkpoint that the trainer does not count yet.
    """
    if any(map(leaves_length_open, callbacks)):
        return None
    estimate = trainer.estimated_stepping_batches
    return int(estimate) - trainer.global_step - steps_done if 0 < estimate < math.inf else None


def users_optimizers(
    module: pl.LightningModule, configure: Callable[[], Any] | None
) -> tuple[list[Optimizer], list[LRSchedulerConfig]]:
    """Return what the module's own `configure_optimizers` makes, as Lightning understands it."""
    provided = vars(module).get("configure_optimizers")
    try:
        vars(module)["configure_optimizers"] = configure
        found: tuple[list[Optimizer], list[LRSchedulerConfig]]
        found = lightning_of(module)._init_optimizers_and_lr_schedulers(module)
        return found
    finally:
        vars(module).pop("configure_optimizers", None)
        if provided is not None:
            vars(module)["configure_optimizers"] = provided
