"""What can be known of a fit before its first step: its length, its own optimizers, and what no trial can undo."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

from optselect.callbacks.lightning_names import lightning_of
from optselect.callbacks.other_callbacks import leaves_length_open
from optselect.callbacks.sharding import refuse_unrestorable
from optselect.errors import UnsupportedModuleError
from optselect.workload.identity import plain

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from lightning.pytorch.utilities.types import LRSchedulerConfig


def refuse_unsearchable(trainer: Any, module: pl.LightningModule) -> None:
    """Raise `UnsupportedModuleError` where trials could not choose their batches, or not be undone."""
    if lightning_of(trainer).is_param_in_hook_signature(module.training_step, "dataloader_iter", explicit=True):
        raise UnsupportedModuleError(
            "training_step takes the loader's iterator, so trials could not choose its batches"
        )
    refuse_unrestorable(trainer.strategy)


def steps_to_come(trainer: Any, callbacks: Iterable[Any], steps_done: int) -> int | None:
    """Return Lightning's estimate of the optimizer steps to come; None where it would not be true.

    `steps_done` are those of a checkpoint that the trainer does not count yet.
    """
    if any(map(leaves_length_open, callbacks)):
        return None
    estimate = trainer.estimated_stepping_batches
    return int(estimate) - trainer.global_step - steps_done if 0 < estimate < math.inf else None


# What of a trainer changes its steps; devices and speed are the machine's.
_SETTINGS = (
    "accumulate_grad_batches",
    "gradient_clip_algorithm",
    "gradient_clip_val",
    "limit_train_batches",
    "limit_val_batches",
    "max_epochs",
    "max_steps",
    "min_epochs",
    "min_steps",
    "overfit_batches",
    "precision",
    "world_size",
)


def trainer_facts(trainer: Any, callbacks: Iterable[Any]) -> dict[str, Any]:
    """List the settings of `trainer` that change what it trains, in builtins; with accumulation that changes."""
    changing = [each.scheduling for each in callbacks if isinstance(getattr(each, "scheduling", None), dict)]
    facts: dict[str, Any] = plain({name: getattr(trainer, name, None) for name in _SETTINGS})
    return {**facts, "scheduling": plain(changing)}


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
