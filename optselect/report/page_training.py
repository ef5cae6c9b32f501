"""The section of a page that shows what trains: the schedule, the groups and their parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from optselect.plan import OptimizerPlan
from optselect.report import figures
from optselect.report.groups import group_table
from optselect.report.markup import Html, element
from optselect.report.pieces import figure, table
from optselect.report.rates import Rate, rates_of


def training_section(plan: OptimizerPlan) -> Iterator[Html]:
    """Show the schedule and the groups."""
    length = f" over {plan.total_steps:,} optimizer steps" if plan.total_steps else ""
    yield element("p", f"Schedule: {plan.schedule.describe()}{length}. It is stepped once per optimizer step.")
    lines = rates_of(plan)
    numbers = table(
        "Learning rate by optimizer step",
        ("step", *(line.label for line in lines)),
        list(_rates(plan, lines)),
        numbers=range(len(lines) + 1),
    )
    waits = any(line.joins is not None and line.joins.step is None for line in lines)
    picture = figure(
        "Schedule",
        f"The learning rate of each group{', as if what waits for a plateau had joined' if waits else ''}.",
        lambda: figures.schedule(plan, f"The learning rate by step: {plan.schedule.describe()}"),
        numbers,
    )
    yield element("div", picture, class_="alone")
    groups = group_table(plan)
    yield table("Parameter groups", groups.header, groups.rows, numbers=groups.numbers)
    yield element("details", element("summary", "Which parameter is in which group"), _members(plan))


def _members(plan: OptimizerPlan) -> Html:
    shapes = plan.model_fingerprint.shapes
    rows = [
        (name, " × ".join(map(str, shapes.get(name, ()))) or "scalar", group.name)
        for group in plan.param_groups
        for name in group.parameters
    ]
    rows += [
        (name, " × ".join(map(str, shapes.get(name, ()))) or "scalar", "frozen")
        for name in sorted(plan.model_fingerprint.frozen)
    ]
    return table("Parameters", ("parameter", "shape", "group"), rows)


def _rates(plan: OptimizerPlan, lines: Sequence[Rate]) -> Iterator[tuple[str, ...]]:
    last = (plan.total_steps or max(4 * plan.schedule.warmup_steps, 100)) - 1
    steps = sorted({0, min(plan.schedule.warmup_steps, last), *(round(last * share / 8) for share in range(9))})
    for step in steps:
        rates = (line.at(step, plan.schedule, plan.total_steps) for line in lines)
        yield str(step), *("—" if rate is None else f"{rate:.3g}" for rate in rates)
