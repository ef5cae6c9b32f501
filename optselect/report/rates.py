"""The learning rates of a plan's groups, step by step: what the figure and the table of the schedule show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optselect.configuration.schedule import Schedule
from optselect.plan import Joining, OptimizerPlan, ParamGroup


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Groups that have the same learning rate at every step.

    peak   the highest (None: they have no learning rate, and their share of the schedule's peak is shown)
    joins  when they begin to train, if not at the beginning
    """

    peak: float | None
    joins: Joining | None
    groups: Sequence[ParamGroup]

    @property
    def label(self) -> str:
        """The names of the groups; those that differ in weight decay alone once."""
        names = dict.fromkeys(
            "/".join(word for word in group.name.split("/") if word not in ("decay", "no_decay")) or group.name
            for group in self.groups
        )
        return ", ".join(names)

    def at(self, step: int, schedule: Schedule, total_steps: int | None) -> float | None:
        """Return the learning rate at optimizer step `step`; None before the groups join.

        Groups that wait for a plateau are taken to have joined at the beginning: the plan does not say when.
        """
        begins = self.joins.step if self.joins is not None else None
        if begins is not None and step < begins:
            return None
        rise = schedule.rise(step - begins) if begins is not None else 1.0
        return (1.0 if self.peak is None else self.peak) * schedule.factor(step, total_steps) * rise


def rates_of(plan: OptimizerPlan) -> list[Rate]:
    """Make one `Rate` for each learning rate; what never trains has none."""
    alike: dict[tuple[float | None, Joining | None], list[ParamGroup]] = {}
    for group in plan.param_groups:
        if not group.frozen:
            lr = group.hyperparameters.get("lr")
            peak = float(lr) if isinstance(lr, int | float) else None
            alike.setdefault((peak, group.joins), []).append(group)
    return [Rate(peak=peak, joins=joins, groups=groups) for (peak, joins), groups in alike.items()]
