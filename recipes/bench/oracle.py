"""What regret is measured between: AdamW at 1e-3 and the best of a grid, both on fresh seeds and test data.

The figures are kept as data, `oracle.json` in this folder; `optselect bench --oracle` makes them anew.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from optselect.errors import ConfigurationError
from optselect.recipes.bench.methods import HALF_DECADES, Arena, default, grid_point
from optselect.recipes.bench.task import Splits, Task
from optselect.recipes.bench.training import Recipe, Trainings

FILE = "oracle.json"
_GRID_SEED = 100
_REPEATED = 3
_CLEAR_GAP = 4.0


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The two ends of a task's scale.

    default  test losses of AdamW 1e-3 by seed
    oracle   those of the best of the grid
    recipe   that best one, in words
    grid     test losses of the grid on one seed, by recipe
    """

    steps: int
    default: Mapping[str, float]
    oracle: Mapping[str, float]
    recipe: str
    grid: Mapping[str, float]

    @property
    def gap(self) -> float:
        """What there is to gain."""
        return statistics.fmean(self.default.values()) - statistics.fmean(self.oracle.values())

    @property
    def deviation(self) -> float:
        """The spread between seeds, of both ends together."""
        return math.sqrt(statistics.fmean(statistics.variance(ends.values()) for ends in (self.default, self.oracle)))

    @property
    def counts(self) -> bool:
        """Whether the gap is wide enough for regrets to mean something."""
        return self.gap >= _CLEAR_GAP * self.deviation

    def regret(self, tests: Sequence[float]) -> float:
        """Return the regret of test losses on the fresh seeds: 0 for the best of the grid, 1 for AdamW 1e-3."""
        # The ends are of the same seeds, so that what is common to a seed cancels.
        return (statistics.fmean(tests) - statistics.fmean(self.oracle.values())) / self.gap


def make_reference(task: Task, data: Splits, trainings: Trainings, grid: Sequence[Recipe] | None = None) -> Reference:
    """Train the grid on one seed, its best again on fresh ones, and the default beside them.

    The oracle may look at test data: it is what no method can know.
    """

    def test(recipe: Recipe, seed: int) -> float:
        return trainings.run(task, data, recipe, seed).test

    rivals = task.rivals or tuple(HALF_DECADES)
    grid = grid or [grid_point(name, lr) for name in rivals for lr in HALF_DECADES[name]]
    plain = default(Arena(task=task, data=data, seed=0, trainings=trainings)).recipe
    baseline = {str(seed): test(plain, seed) for seed in task.fresh_seeds}
    first = {recipe.describe: test(recipe, _GRID_SEED) for recipe in grid}
    best = sorted(grid, key=lambda recipe: first[recipe.describe])[:_REPEATED]
    oracle = min(best, key=lambda recipe: statistics.fmean(test(recipe, seed) for seed in task.fresh_seeds))
    return Reference(
        steps=task.steps,
        default=baseline,
        oracle={str(seed): test(oracle, seed) for seed in task.fresh_seeds},
        recipe=oracle.describe,
        grid=first,
    )


def described(task: Task, reference: Reference) -> str:
    """Say in one line both ends, what the oracle is, and how clear the gap."""
    ends = [statistics.fmean(end.values()) for end in (reference.default, reference.oracle)]
    clear = reference.gap / reference.deviation
    return f"{task.name:<10} default {ends[0]:.4g}, oracle {ends[1]:.4g}, gap {clear:.1f} sd: {reference.recipe}"


def write(file: Path, references: Mapping[str, Reference], command: str) -> None:
    """Write `references` into `file`, over those of the same tasks."""
    known = json.loads(file.read_text(encoding="utf-8"))["tasks"] if file.exists() else {}
    tasks = {**known, **{name: _rounded(asdict(reference)) for name, reference in references.items()}}
    file.write_text(json.dumps({"command": command, "tasks": tasks}, indent=1) + "\n", encoding="utf-8")


def read(folder: Path, tasks: Sequence[Task]) -> dict[str, Reference]:
    """Read the references of `tasks`: those made in `folder`, or the package's own.

    Raises `ConfigurationError` when there is none for a task, or only one of another length.
    """
    found: dict[str, Any] = {}
    for file in (resources.files("optselect.recipes.bench") / FILE, folder / FILE):
        if file.is_file():
            found |= json.loads(file.read_text(encoding="utf-8"))["tasks"]
    for task in tasks:
        if task.name not in found or found[task.name]["steps"] != task.steps:
            raise ConfigurationError(
                f"no reference is known for {task.name} of {task.steps} steps; "
                f"make it with optselect bench --oracle --tasks {task.name} --out {folder}"
            )
    return {task.name: Reference(**found[task.name]) for task in tasks}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value
