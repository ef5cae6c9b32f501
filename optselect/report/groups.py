"""Which parameters are treated how, as rows of a table: a model's layers, and a plan's parameter groups."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from optselect.building.treatment import Treatment, treated
from optselect.configuration.policy import FineTuning
from optselect.parameters.anatomy import Anatomy
from optselect.parameters.describe import ParamInfo
from optselect.plan import OptimizerPlan, ParamGroup
from optselect.space import Value
from optselect.words import format_value

GROUP_HEADER = ("group", "what for", "layers", "parameters", "lr", "decay", "besides")
LAYER_HEADER = ("layer", "modules", "what for", "parameters", "lr", "decay")
# The columns that hold numbers.
LAYER_NUMBERS = (0, 3)

# A line of the explanation has 100 columns and stands two further in.
_WIDTH = 98
_NARROWEST = 12
_NEVER = Treatment(decay=False)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows below a header; the columns `numbers` stand at the right."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...]


def group_table(plan: OptimizerPlan) -> Table:
    """Tabulate the parameter groups of `plan`; a column that has nothing to say is left out."""
    rows = group_rows(plan)
    told = [column for column in range(len(GROUP_HEADER)) if any(row[column] for row in rows)]
    header = tuple(GROUP_HEADER[column] for column in told)
    return Table(
        header=header,
        rows=tuple(tuple(row[column] for column in told) for row in rows),
        numbers=(header.index("parameters"),) if "parameters" in header else (),
    )


def group_rows(plan: OptimizerPlan) -> list[tuple[str, ...]]:
    """Make a row for each group of `plan`, and one for what is frozen in the model itself.

    The last column is what the plan's own hyperparameters do not say already.
    """
    model = plan.model_fingerprint
    shapes = model.shapes
    rows: list[tuple[str, ...]] = [
        (
            group.name,
            ", ".join(group.roles),
            _from_to(group.layers),
            _scalars(math.prod(shapes.get(name, ())) for name in group.parameters),
            _rate(group),
            _decay(group),
            _besides(group, plan.hyperparameters),
        )
        for group in plan.param_groups
    ]
    for word, names in (("frozen", model.frozen), ("left out", model.left_out)):
        if names:
            scalars = _scalars(math.prod(shapes.get(name, ())) for name in names)
            rows.append((word, "", "", scalars, "", "", ""))
    return rows


def layer_rows(
    anatomy: Anatomy, policy: FineTuning | None = None, *, fresh: Sequence[str] = ()
) -> list[tuple[str, ...]]:
    """Make a row for what is treated alike in each layer of a model, from input to output, under `policy`.

    The rate is a factor on the one that will be chosen. Modules in `fresh`, new in a trained model, are marked.
    """
    treatment = {info.name: (info, how) for info, how in treated(anatomy, policy)}
    pairs = [treatment.get(info.name, (info, _NEVER)) for info in anatomy.parameters]
    pairs.sort(key=_sorting)
    rows = []
    for _, alike in itertools.groupby(pairs, key=_alike):
        infos, hows = zip(*alike, strict=True)
        rows.append(_layer_row(infos, hows[0], fresh))
    return rows


def aligned(
    header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Collection[int], width: int = _WIDTH
) -> list[str]:
    """Lay out lines of at most `width` columns, the widest cells of words cut to fit; `numbers` stand at the right."""
    cells = [[" ".join(each.split()) for each in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    while sum(widths) + 2 * (len(widths) - 1) > width and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1
    return [
        "  ".join(
            (_cut(cell, room).rjust if column in numbers else _cut(cell, room).ljust)(room)
            for column, (cell, room) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else f"{cell[: width - 1]}…"


def _from_to(layers: tuple[int, int] | None) -> str:
    if layers is None:
        return ""
    low, high = layers
    return str(low) if low == high else f"{low} to {high}"


def _scalars(counts: Iterable[int]) -> str:
    return f"{sum(counts):,}"


def _rate(group: ParamGroup) -> str:
    words = [format_value(group.hyperparameters["lr"])] if "lr" in group.hyperparameters else []
    words += [f"×{group.rate:.3g}"] if group.rate != 1.0 else []
    words += [group.joins.describe()] if group.joins is not None else []
    return ", ".join(words)


def _decay(group: ParamGroup) -> str:
    return format_value(group.hyperparameters.get("weight_decay", 0.0))


def _besides(group: ParamGroup, said: Mapping[str, Value]) -> str:
    return " ".join(
        f"{name}={format_value(value)}"
        for name, value in group.hyperparameters.items()
        if name not in ("lr", "weight_decay") and said.get(name) != value
    )


def _sorting(pair: tuple[ParamInfo, Treatment]) -> tuple[float, ...]:
    info, how = pair
    phase = how.joins.phase if how.joins is not None else 0
    return info.depth, info.frozen, info.adapter, -how.rate, not how.decay, phase


def _alike(pair: tuple[ParamInfo, Treatment]) -> tuple[object, ...]:
    info, how = pair
    return info.depth, info.frozen, info.adapter, how.rate, how.decay, how.joins


def _layer_row(infos: Sequence[ParamInfo], how: Treatment, fresh: Sequence[str]) -> tuple[str, ...]:
    new = all(any(info.name.startswith(f"{module}.") for module in fresh) for info in infos)
    words = list(dict.fromkeys("adapter" if info.adapter else info.role for info in infos))
    rate = "frozen" if infos[0].frozen else f"×{how.rate:.3g}"
    return (
        str(infos[0].depth),
        f"{_modules(infos)}{' (new)' if new else ''}",
        ", ".join(words),
        _scalars(info.numel for info in infos),
        rate if how.joins is None else f"{rate}, {how.joins.describe()}",
        "yes" if how.decay else "no",
    )


def _are_equal(parts: Sequence[str]) -> bool:
    return len(set(parts)) == 1


def _modules(infos: Sequence[ParamInfo]) -> str:
    """Name the module around all of them; where that is the whole model, the modules in it."""
    paths = [info.name.split(".") for info in infos]
    owners = (path[:-1] for path in paths)
    common = [parts[0] for parts in itertools.takewhile(_are_equal, zip(*owners, strict=False))]
    if common:
        return ".".join(common)
    return ", ".join(dict.fromkeys(path[0] for path in paths))
