"""A training whose model is cut over processes: what is searched of it, and what a plan builds on the parts."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optselect.building.optimizer import build_groups, refused_values
from optselect.callbacks.other_callbacks import is_named
from optselect.errors import PlanMismatchError, UnsupportedModuleError
from optselect.parameters.sharding import keeps_its_attributes, whole
from optselect.plan import OptimizerPlan

SomeModule = TypeVar("SomeModule", bound=nn.Module)

_SEARCHED = ("FSDPStrategy", "ModelParallelStrategy")


def trained_model(trainer: Any, module: SomeModule) -> SomeModule:
    """Return what `trainer` trains: `module`, or what FSDP's first version has put around it, which passes for it."""
    around: SomeModule | None = trainer.strategy.model
    return around if around is not None and keeps_its_attributes(around) else module


def cuts_the_model(strategy: Any) -> bool:
    """Tell whether a process of `strategy` holds less than the model."""
    return bool(strategy.restore_checkpoint_after_setup or strategy.handles_gradient_accumulation)


def refuse_unrestorable(strategy: Any) -> None:
    """Raise `UnsupportedModuleError` where the parts that a process holds cannot be put back after a trial."""
    if not cuts_the_model(strategy):
        return
    name = type(strategy).__name__
    if not is_named(strategy, *_SEARCHED):
        raise UnsupportedModuleError(
            f"{name} keeps the weights in an engine of its own, which is made with the optimizer and cannot be put "
            "back after a trial; search under FSDPStrategy or ModelParallelStrategy, or pass plan="
        )
    if is_named(strategy, "FSDPStrategy") and not strategy.kwargs.get("use_orig_params", True):
        raise UnsupportedModuleError(
            f"{name}(use_orig_params=False) makes one flat parameter of many, so no groups, rates or decay of their "
            "own can be had; leave use_orig_params out"
        )


def check_fits(plan: OptimizerPlan, model: nn.Module) -> None:
    """Raise `PlanMismatchError`, naming the parameters, unless `plan` is for `model`, cut or not.

    And `PlanFormatError` for one from which nothing can be built.
    """
    plan.check(to_build=True)
    plan.model_fingerprint.check(whole(model))


def fits(plan: OptimizerPlan, model: nn.Module) -> bool:
    """Tell whether `plan` is for `model`, cut or not."""
    try:
        check_fits(plan, model)
    except PlanMismatchError:
        return False
    return True


def build_on(plan: OptimizerPlan, model: nn.Module, *, thawed: int = 0) -> tuple[Optimizer, LRScheduler | None]:
    """Build the optimizer and scheduler of `plan` on the parameters, or parts of them, that are here.

    `thawed`: see `OptimizerPlan.build`. Raises `UnsupportedModuleError` for an optimizer that cannot train parts.
    """
    with refused_values(plan):
        return build_groups(plan.param_groups, plan.schedule, model, plan.total_steps, thawed=thawed)
