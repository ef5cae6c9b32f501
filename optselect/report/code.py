"""The chosen optimizer as code that does without optselect.

What is written is what `optselect.building.optimizer` builds, argument by argument; a test runs both side by side.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optselect import catalogue
from optselect.catalogue import OptimizerSpec
from optselect.configuration import USER
from optselect.configuration.schedule import Schedule
from optselect.errors import ConfigurationError, UnknownOptimizerError
from optselect.plan import OptimizerPlan, ParamGroup
from optselect.report.explanation import headline

_TOGETHER = '''\
class Together(torch.optim.Optimizer):
    """Optimizers that step as one: Lightning's automatic optimization takes a single one."""

    def __init__(self, *optimizers):
        self.optimizers = optimizers
        super().__init__([group for each in optimizers for group in each.param_groups], {})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for each in self.optimizers:
            each.step()
        return loss

    def state_dict(self):
        return {"optimizers": [each.state_dict() for each in self.optimizers]}

    def load_state_dict(self, state_dict):
        for each, state in zip(self.optimizers, state_dict["optimizers"], strict=True):
            each.load_state_dict(state)
        self.param_groups = [group for each in self.optimizers for group in each.param_groups]
'''

_CONFIGURE = '''\
def configure_optimizers(self):
    """A method for a LightningModule. Without Lightning: pass the model, and step the scheduler once per step."""
'''


def as_python(plan: OptimizerPlan) -> str:
    """Write Python that builds the plan's optimizer and scheduler for its model.

    Raises `ConfigurationError` when there is nothing to write: the plan keeps the user's own optimizer, names
    one whose package is not installed, or lets parts of the model join later, which takes optselect's scheduler.
    """
    children = _children(plan)
    frozen = [name for group in plan.param_groups if group.frozen for name in group.parameters]
    sections = [
        "\n".join(_opening(plan, children)),
        "\n".join(_imports(plan, children)),
        "\n".join(["GROUPS = {", *(line for _, groups in children for group in groups for line in _names(group)), "}"]),
    ]
    if frozen:
        sections.append("\n".join(["FROZEN = [", *(f"    {_quoted(name)}," for name in frozen), "]"]))
    if _is_scheduled(plan.schedule):
        sections.append("\n".join(_factor(plan.schedule, plan.total_steps)))
    if len(children) > 1:
        sections.append(_TOGETHER.rstrip())
    body = _body(plan, children, frozen=bool(frozen))
    sections.append(_CONFIGURE + "\n".join(f"    {line}" if line else "" for line in body))
    # Two blank lines before a function or a class, one before anything else.
    first, *others = sections
    gaps = ("\n\n\n" if each.startswith(("def ", "class ")) else "\n\n" for each in others)
    return first + "".join(gap + each for gap, each in zip(gaps, others, strict=True)) + "\n"


def _children(plan: OptimizerPlan) -> list[tuple[OptimizerSpec, list[ParamGroup]]]:
    """List the optimizers of the plan with their groups, in the order in which they step."""
    if plan.optimizer == USER:
        scales = plan.configuration.scales
        change = ", with the rates multiplied in it" if scales else ""
        raise ConfigurationError(
            f"the plan keeps {plan.configuration.describe()}, so the module's configure_optimizers is the code{change}"
        )
    if not plan.param_groups:
        raise ConfigurationError("the plan has no param groups, so there is nothing to build")
    if later := [group.name for group in plan.param_groups if group.joins and not group.frozen]:
        raise ConfigurationError(
            f"{', '.join(later)} of the plan join the training later, which no scheduler of torch can do; "
            "build optimizer and scheduler with OptimizerPlan.load(path).build(model)"
        )
    if len({group.name for group in plan.param_groups}) < len(plan.param_groups):
        raise ConfigurationError("two param groups of the plan have the same name; give each its own")
    trained = [group for group in plan.param_groups if not group.frozen]
    names = dict.fromkeys(group.optimizer for group in trained)
    try:
        return [(catalogue.get(name), [group for group in trained if group.optimizer == name]) for name in names]
    except UnknownOptimizerError as error:
        raise ConfigurationError(f"{error} Install the package that brings it to see the code.") from error


def _opening(plan: OptimizerPlan, children: Sequence[tuple[OptimizerSpec, list[ParamGroup]]]) -> Iterator[str]:
    # Into a comment, not a docstring: whatever a name holds, it cannot end a comment.
    yield f"# {' '.join(headline(plan).split())}"
    yield f"# {plan.schedule.describe()}"
    if any(spec.train_eval for spec, _ in children):
        yield "# Call optimizer.train() before each training batch, and optimizer.eval() before the weights are used:"
        yield "# to validate, to save, to predict."
    if any(spec.closure for spec, _ in children):
        yield "# It evaluates the loss several times a step: optimizer.step(closure), as Lightning does by itself."


def _imports(plan: OptimizerPlan, children: Sequence[tuple[OptimizerSpec, list[ParamGroup]]]) -> Iterator[str]:
    if _is_scheduled(plan.schedule) and plan.schedule.kind == "cosine":
        yield "import math"
        yield ""
    yield from sorted({"import torch", *(f"import {_module(spec)}" for spec, _ in children)})


def _module(spec: OptimizerSpec) -> str:
    module = spec.factory.partition(":")[0]
    return "torch" if module == "torch.optim" else module


def _names(group: ParamGroup) -> Iterator[str]:
    yield f"    {_quoted(group.name)}: ["
    yield from (f"        {_quoted(name)}," for name in group.parameters)
    yield "    ],"


def _is_scheduled(schedule: Schedule) -> bool:
    return schedule.kind != "constant" or schedule.warmup_steps > 0


def _factor(schedule: Schedule, total_steps: int | None) -> Iterator[str]:
    """Write `Schedule.factor` with its numbers filled in; the arithmetic is kept, to the last bit."""
    yield "def factor(step):"
    yield '    """The share of the peak learning rate in this step, counted from 0."""'
    if schedule.warmup_steps:
        yield f"    if step < {schedule.warmup_steps}:"
        yield f"        return (step + 1) / {schedule.warmup_steps + 1}"
    if schedule.kind == "constant":
        yield "    return 1.0"
        return
    if total_steps is None:
        raise ConfigurationError(f"a {schedule.kind} schedule needs the length of the training, and the plan has none")
    start, last, steps = schedule.slope(total_steps)
    yield f"    progress = (min(max(step, {start}), {last}) - {start}) / {steps}"
    remaining = "(1.0 + math.cos(math.pi * progress)) / 2.0" if schedule.kind == "cosine" else "1.0 - progress"
    if schedule.final:
        yield f"    return {schedule.final!r} + {1.0 - schedule.final!r} * ({remaining})"
    else:
        yield f"    return {remaining}"


def _body(
    plan: OptimizerPlan, children: Sequence[tuple[OptimizerSpec, list[ParamGroup]]], *, frozen: bool
) -> Iterator[str]:
    yield "# By the names that they have without torch.compile."
    yield 'parameters = {name.replace("_orig_mod.", ""): each for name, each in self.named_parameters()}'
    if frozen:
        yield "for name in FROZEN:"
        yield "    parameters[name].requires_grad_(False)"
    yield "groups = {"
    yield '    group: {"name": group, "params": [parameters[name] for name in names]}'
    yield "    for group, names in GROUPS.items()"
    yield "}"
    if len(children) == 1:
        yield from _constructed(*children[0], before="optimizer = ", after="")
    else:
        yield "optimizer = Together("
        for spec, groups in children:
            yield from (f"    {line}" for line in _constructed(spec, groups, before="", after=","))
        yield ")"
    if not _is_scheduled(plan.schedule):
        yield 'return {"optimizer": optimizer}'
        return
    yield "scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)"
    yield 'return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}'


def _constructed(spec: OptimizerSpec, groups: Sequence[ParamGroup], *, before: str, after: str) -> Iterator[str]:
    common, own = spec.arguments_by_group([group.hyperparameters for group in groups])
    yield f"{before}{spec.factory.replace(':', '.')}("
    yield "    ["
    for group, differing in zip(groups, own, strict=True):
        entry = f"groups[{_quoted(group.name)}]"
        yield f"        {{**{entry}, {_pairs(differing)}}}," if differing else f"        {entry},"
    yield "    ],"
    yield from (f"    {name}={_literal(value)}," for name, value in common.items())
    yield f"){after}"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{_quoted(name)}: {_literal(value)}" for name, value in values.items())


def _literal(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return _quoted(value) if isinstance(value, str) else repr(value)


def _quoted(text: str) -> str:
    """Write `text` in double quotes, which a JSON string shares with Python, where it can be."""
    quoted = json.dumps(text)
    # JSON writes what lies beyond the basic plane as two surrogates, which Python would take for two characters.
    return quoted if text.isascii() else repr(text)
