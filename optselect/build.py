"""A plan and a model become a torch optimizer and its scheduler."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optselect import catalogue
from optselect.composite import CompositeOptimizer
from optselect.configuration import USER
from optselect.errors import PlanMismatchError, UnsupportedModuleError
from optselect.plan import OptimizerPlan, ParamGroup
from optselect.scaling import scaled
from optselect.scheduler import ScheduledLR
from optselect.schedules import Schedule
from optselect.workload import Build


def build(
    plan: OptimizerPlan, model: nn.Module, total_steps: int | None = None, own: Build | None = None
) -> tuple[Optimizer, LRScheduler | None]:
    """The optimizer and the scheduler of `plan` for `model`; see `OptimizerPlan.build`."""
    plan.model_fingerprint.check(model)
    if plan.optimizer == USER:
        if own is None:
            raise UnsupportedModuleError(
                "the plan keeps your own optimizer, which it cannot build by itself; pass own=, the function of the "
                "model that builds it, or fit the module with AutoOptimizer"
            )
        return scaled(own(model), **plan.configuration.scales)
    return build_groups(
        plan.param_groups, plan.schedule, model, plan.total_steps if total_steps is None else total_steps
    )


def build_groups(
    groups: Sequence[ParamGroup], schedule: Schedule, model: nn.Module, total_steps: int | None
) -> tuple[Optimizer, LRScheduler | None]:
    """One optimizer over `groups`, composite when they name several, and its scheduler.

    The scheduler is None when the schedule never changes the rate. Raises `PlanMismatchError` when a
    parameter named in a group is not in `model`.
    """
    parameters = dict(model.named_parameters())
    if missing := [name for group in groups for name in group.parameters if name not in parameters]:
        raise PlanMismatchError(
            f"the plan's groups name {', '.join(missing[:5])}, which the model does not have; "
            "use the model the plan was made for"
        )
    names = list(dict.fromkeys(group.optimizer for group in groups))
    children = {
        name: _child(name, [group for group in groups if group.optimizer == name], parameters) for name in names
    }
    optimizer = children[names[0]] if len(names) == 1 else CompositeOptimizer(children)
    if schedule.kind == "constant" and not schedule.warmup_steps:
        return optimizer, None
    return optimizer, ScheduledLR(optimizer, schedule, total_steps)


def _child(name: str, groups: Iterable[ParamGroup], parameters: dict[str, nn.Parameter]) -> Optimizer:
    spec = catalogue.get(name)
    factory = spec.load()
    groups = list(groups)
    common, own = spec.arguments_by_group([group.hyperparameters for group in groups])
    torch_groups = [
        {"params": [parameters[n] for n in group.parameters], "name": group.name, **differing}
        for group, differing in zip(groups, own, strict=True)
    ]
    optimizer: Optimizer = factory(torch_groups, **common)
    return optimizer
