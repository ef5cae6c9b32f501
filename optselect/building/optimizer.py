"""A plan and a model become a torch optimizer and its scheduler."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optselect import catalogue
from optselect.configuration import USER
from optselect.configuration.schedule import Schedule
from optselect.errors import OptselectError, PlanFormatError, PlanMismatchError, UnsupportedModuleError
from optselect.optim.composite import CompositeOptimizer
from optselect.optim.rescaling import scaled
from optselect.optim.scheduler import ScheduledLR
from optselect.optim.thawing import Phase, Thawing, join
from optselect.parameters.sharding import Sharding, sharding_of, whole
from optselect.plan import Joining, OptimizerPlan, ParamGroup
from optselect.workload.protocol import Build


def build(
    plan: OptimizerPlan,
    model: nn.Module,
    total_steps: int | None = None,
    own: Build | None = None,
    *,
    thawed: int = 0,
) -> tuple[Optimizer, LRScheduler | None]:
    """Build the optimizer and the scheduler of `plan` for `model`; see `OptimizerPlan.build`."""
    plan.model_fingerprint.check(whole(model))
    if plan.optimizer == USER:
        if own is None:
            raise UnsupportedModuleError(
                "the plan keeps your own optimizer, which it cannot build by itself; pass own=, the function of the "
                "model that builds it, or fit the module with AutoOptimizer"
            )
        return scaled(own(model), **plan.configuration.scales)
    plan.check(to_build=True)
    length = plan.total_steps if total_steps is None else total_steps
    with refused_values(plan):
        return build_groups(plan.param_groups, plan.schedule, model, length, thawed=thawed)


@contextmanager
def refused_values(plan: OptimizerPlan) -> Iterator[None]:
    """Hyperparameters that the optimizer of `plan` does not take are a `PlanFormatError`."""
    try:
        yield
    except OptselectError:
        raise
    except (TypeError, ValueError) as error:
        raise PlanFormatError(
            f"{plan.optimizer} does not take the plan's hyperparameters ({error}); mend them in its groups and in its "
            "headline, or search anew"
        ) from error


def build_groups(
    groups: Sequence[ParamGroup],
    schedule: Schedule,
    model: nn.Module,
    total_steps: int | None,
    *,
    thawed: int = 0,
) -> tuple[Optimizer, LRScheduler | None]:
    """Build one optimizer over `groups`, composite when they name several, and its scheduler.

    The scheduler is None when the schedule never changes the rate and nothing joins later. Groups that join
    later, or never, are frozen here; `thawed` of the phases are joined at once. Raises `PlanMismatchError` when a
    parameter named in a group is not in `model`, and `UnsupportedModuleError` where the model is cut over processes and
    an optimizer cannot train the parts.
    """
    sharding = sharding_of(model)
    parameters = sharding.parameters
    if missing := [name for group in groups for name in group.parameters if name not in parameters]:
        raise PlanMismatchError(
            f"the plan's groups name {', '.join(missing[:5])}, which the model does not have; "
            "use the model the plan was made for"
        )
    _refuse_cut(groups, sharding)
    children = {name: _Child(name, own, parameters) for name, own in _by_optimizer(groups).items()}
    first = {name: optimizer for name, child in children.items() if (optimizer := child.begin()) is not None}
    optimizer = next(iter(first.values())) if len(children) == 1 else CompositeOptimizer(first)
    later = {group.joins.phase: group.joins for group in groups if group.joins and not group.frozen}
    frozen = [parameters[name] for group in groups if group.frozen for name in group.parameters]
    phases = [_phase(later[number], children, optimizer) for number in sorted(later)]
    thawing = Thawing(phases, frozen, thawed=thawed) if phases or frozen or thawed else None
    if schedule.kind == "constant" and not schedule.warmup_steps and not phases:
        return optimizer, None
    return optimizer, ScheduledLR(optimizer, schedule, total_steps, thawing=thawing)


def _refuse_cut(groups: Sequence[ParamGroup], sharding: Sharding) -> None:
    if not sharding.is_cut:
        return
    names = sorted({group.optimizer for group in groups if not group.frozen})
    if sharding.is_flat and (blind := [name for name in names if "flat" not in catalogue.get(name).parts]):
        raise UnsupportedModuleError(
            f"{' and '.join(blind)} looks at whole weights, and the strategy has cut them into stretches of vectors; "
            "use ModelParallelStrategy, which keeps their shape, or a plan for another optimizer"
        )
    if not sharding.is_flat and (lost := [name for name in names if "tensors" not in catalogue.get(name).parts]):
        raise UnsupportedModuleError(
            f"{' and '.join(lost)} takes steps that torch cannot do on tensors of which each process holds a part; "
            "use a plan for another optimizer"
        )


def _by_optimizer(groups: Iterable[ParamGroup]) -> dict[str, list[ParamGroup]]:
    found: dict[str, list[ParamGroup]] = {}
    for group in groups:
        if not group.frozen:
            found.setdefault(group.optimizer, []).append(group)
    return found


@dataclass
class _Child:
    """The groups of one optimizer, of which some may join when it is at work."""

    name: str
    groups: Sequence[ParamGroup]
    parameters: Mapping[str, nn.Parameter]

    def begin(self) -> Optimizer | None:
        """Build the optimizer over the groups that train from the beginning; None: none of them does."""
        return self._made([group for group in self.groups if group.joins is None])

    def join(self, optimizer: Optimizer, phase: int) -> list[dict[str, Any]]:
        """Give the groups of `phase` to `optimizer`, which may be a composite without this child as yet."""
        groups = [group for group in self.groups if group.joins is not None and group.joins.phase == phase]
        fresh = self._made(groups)
        if fresh is None:
            return []
        if not isinstance(optimizer, CompositeOptimizer):
            return join(optimizer, self._torch_groups(groups), fresh)
        if self.name not in optimizer.children:
            optimizer.adopt(self.name, fresh)
            return fresh.param_groups
        return join(optimizer.children[self.name], optimizer.routed(self.name, self._torch_groups(groups)), fresh)

    def _made(self, groups: Sequence[ParamGroup]) -> Optimizer | None:
        if not groups:
            return None
        common, _ = self._arguments
        made: Optimizer = catalogue.get(self.name).load()(self._torch_groups(groups), **common)
        return made

    @functools.cached_property
    def _arguments(self) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
        return catalogue.get(self.name).arguments_by_group([group.hyperparameters for group in self.groups])

    def _torch_groups(self, groups: Sequence[ParamGroup]) -> list[dict[str, Any]]:
        _, own = self._arguments
        return [
            {"params": [self.parameters[name] for name in group.parameters], "name": group.name, **differing}
            for group, differing in zip(self.groups, own, strict=True)
            if group in groups
        ]


def _phase(joining: Joining, children: Mapping[str, _Child], optimizer: Optimizer) -> Phase:
    members = [
        child.parameters[name]
        for child in children.values()
        for group in child.groups
        if group.joins is not None and group.joins.phase == joining.phase
        for name in group.parameters
    ]
    return Phase(
        step=joining.step,
        patience=joining.patience,
        parameters=members,
        join=lambda: [group for child in children.values() for group in child.join(optimizer, joining.phase)],
    )
