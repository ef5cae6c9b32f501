"""What Lightning has to do with parts that are frozen for a time: obstacles, plateaus, and giving them back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from optselect.callbacks.monitoring import USUAL
from optselect.callbacks.other_callbacks import is_named
from optselect.callbacks.sharding import cuts_the_model
from optselect.configuration.goal import Mode
from optselect.errors import MetricNotLoggedError
from optselect.optim.scheduler import ScheduledLR
from optselect.parameters.names import named_parameters
from optselect.plan import OptimizerPlan

if TYPE_CHECKING:
    import lightning.pytorch as pl


def obstacle_to_thawing(trainer: Any, module: pl.LightningModule) -> str | None:
    """Say why parts of `module` cannot be frozen here and join later; None: they can."""
    if not module.automatic_optimization:
        return "in manual optimization Lightning steps no scheduler, and the scheduler is what thaws"
    strategy = trainer.strategy
    # By name: a strategy of `pytorch_lightning` is another class. It wraps a single process, too.
    if is_named(strategy, "DDPStrategy") and not strategy._ddp_kwargs.get("find_unused_parameters"):
        return (
            f"{type(strategy).__name__} wraps the module before its optimizer is made, and a parameter frozen after "
            "that leaves its gradients waiting; pass strategy='ddp_find_unused_parameters_true' (or "
            "find_unused_parameters=True), or freeze it in the module's __init__"
        )
    if cuts_the_model(strategy):
        return (
            f"{type(strategy).__name__} lays the parts of the model out before its optimizer is made, with what is "
            "frozen then; freeze it in the module's __init__ or configure_model"
        )
    return None


def later_parameters(plan: OptimizerPlan, module: pl.LightningModule) -> list[torch.nn.Parameter]:
    """List the parameters that `plan` freezes, for a time or for good."""
    names = {name for group in plan.param_groups if group.joins is not None for name in group.parameters}
    return [parameter for name, parameter in named_parameters(module) if name in names]


def observe(trainer: Any, plan: OptimizerPlan, monitor: str | None, mode: Mode) -> None:
    """Tell the plan's scheduler what a validation gave, where a thaw waits for a plateau.

    Without a `monitor` that is what the trials were judged by.
    """
    if not any(group.joins is not None and group.joins.patience is not None for group in plan.param_groups):
        return
    metrics = trainer.callback_metrics
    name = monitor or USUAL
    if monitor is None and plan.monitor in metrics:
        name, mode = plan.monitor, plan.mode
    if name not in metrics:
        raise MetricNotLoggedError.among(
            f"a Thaw waits for a plateau of {name!r}, which the validation did not log", name, metrics
        )
    # Each process has the mean over its own share, and all must thaw together.
    value = float(trainer.strategy.reduce(metrics[name].double(), reduce_op="mean"))
    for config in trainer.lr_scheduler_configs:
        if isinstance(config.scheduler, ScheduledLR):
            config.scheduler.observe(value, mode)
