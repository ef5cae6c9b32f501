"""Whole trainings with the arms of a search, judged all along the way: what a short trial tells of the end.

The package's own record of the benchmark's tasks is `curves.jsonl.gz` in this folder; `optselect bench --curves`
makes one.
"""

from __future__ import annotations

import gzip
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optselect import TorchWorkload
from optselect.briefing import briefed, measured, proposed
from optselect.building.groups import param_groups
from optselect.building.optimizer import build_groups
from optselect.configuration import Configuration, Evaluation
from optselect.parameters.anatomy import Anatomy
from optselect.recipes.bench.methods import quiet
from optselect.recipes.bench.task import Splits, Task, workload
from optselect.recipes.bench.training import Lines, evaluate
from optselect.search.board import distinct
from optselect.search.race import Race
from optselect.search.race_for import race_for
from optselect.search.tactics import HALF_DECADE
from optselect.settings import Settings
from optselect.workload.protocol import Build

FILE = "curves.jsonl"
PACKED = f"{FILE}.gz"
FRACTIONS = (
    *(0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.25),
    *(0.3, 0.375, 0.45, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 1.0),
)
# That of the search whose arms these are: where the schedule is searched at its own length.
_BUDGET = 4.0
_OWN_RATES = (HALF_DECADE, 10.0, 1 / HALF_DECADE)
_WITH_NEIGHBOURS = (0, 2, 3)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One training, judged on the way.

    label             `arm0`, `arm1`, … in the order of the race; `own x10`: the baseline's optimizer at ten times its
                      rate; `arm0 x0.316`: that arm half a decade down
    baseline          whether it is what is replaced only on evidence
    rate              the learning rate (None: there is none)
    schedule          its kind
    steps             of the whole training
    passes            over the training data, in the whole training
    seconds_per_step  of training alone
    weights           of the validation batches: their sizes
    values            loss of each validation batch, by steps behind the weights; 0 is the untrained model. They end
                      where a loss is no number any more
    test              test loss at the end (None: no number)
    """

    task: str
    seed: int
    label: str
    baseline: bool
    optimizer: str
    rate: float | None
    schedule: str
    describe: str
    steps: int
    batch_size: int
    passes: float
    seconds_per_step: float
    weights: tuple[float, ...]
    values: Mapping[int, tuple[float, ...]]
    test: float | None

    @property
    def untrained(self) -> Evaluation:
        """What the untrained model is judged at."""
        return self._evaluation(0)

    def at(self, fraction: float) -> Evaluation | None:
        """Return what it is judged at after this share of its steps; None where it has diverged by then."""
        step = step_at(fraction, self.steps)
        return self._evaluation(step) if step in self.values else None

    def _evaluation(self, step: int) -> Evaluation:
        batches = tuple(zip(self.values[step], self.weights, strict=True))
        return Evaluation.of(math.fsum(v * w for v, w in batches) / math.fsum(self.weights), batches)

    def to_dict(self) -> dict[str, Any]:
        """Write as builtins, numbers to five digits; inverse of `from_dict`."""
        return {
            **vars(self),
            "rate": rounded(self.rate),
            "passes": rounded(self.passes),
            "seconds_per_step": rounded(self.seconds_per_step),
            "weights": [int(weight) for weight in self.weights],
            # Pairs: JSON has no numbers for keys.
            "values": [[step, [rounded(each) for each in values]] for step, values in self.values.items()],
            "test": rounded(self.test),
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Curve:
        """Read the curve that `to_dict` wrote."""
        values = {step: tuple(of) for step, of in row["values"]}
        return cls(**{**row, "weights": tuple(map(float, row["weights"])), "values": values})


def step_at(fraction: float, steps: int) -> int:
    """Return the step at which this share of a training is behind it."""
    return max(round(fraction * steps), 1)


# --- to record --------------------------------------------------------------------------------------------


def record(task: Task, data: Splits, seed: int, lines: Lines, say: Callable[[str], None] = print) -> None:
    """Train `task` with every entrant of its race that `lines` does not have, and append each as it ends."""
    known = {(row["task"], row["steps"], row["seed"], row["label"]) for row in lines.rows}
    training = workload(task, data, seed)
    with quiet(), training.borrowed():
        race, anatomy = _race(training, seed)
        for label, configuration in entrants(race).items():
            if (task.name, task.steps, seed, label) not in known:
                values, weights, seconds = judged_all_along(training, _builder(anatomy, configuration, task), seed)
                ended = task.steps in values
                curve = Curve(
                    task=task.name,
                    seed=seed,
                    label=label,
                    baseline=configuration == race.baseline,
                    optimizer=configuration.optimizer,
                    rate=configuration.rate,
                    schedule=configuration.schedule.kind,
                    describe=configuration.describe(),
                    steps=task.steps,
                    batch_size=task.batch_size,
                    passes=task.steps * task.batch_size / task.sizes[0],
                    seconds_per_step=seconds,
                    weights=weights,
                    values=values,
                    test=_finite(evaluate(task, training.model, data.test)) if ended else None,
                )
                lines.append(curve.to_dict())
                say(f"{task.name:<11} seed {seed} {label:<12} test {curve.test}: {curve.describe}")


def entrants(race: Race) -> dict[str, Configuration]:
    """Label the arms, the baseline's optimizer at three other rates, and three arms half a decade up and down.

    Those of the arms that are other rates of the baseline's optimizer are called so.
    """
    base = race.baseline
    own = {f"own x{factor:.3g}": base.at_rate(factor * (base.rate or 1.0)) for factor in _OWN_RATES}
    others = {configuration.key for configuration in own.values()}
    arms = [arm for arm in race.arms if arm.key not in others]
    named = {**{f"arm{index}": arm for index, arm in enumerate(arms)}, **own}
    for index in _WITH_NEIGHBOURS:
        for factor in (HALF_DECADE, 1 / HALF_DECADE):
            neighbour = race.rescaled(arms[index], factor) if index < len(arms) else None
            if neighbour is not None:
                named[f"arm{index} x{factor:.3g}"] = neighbour
    labels = {configuration.key: label for label, configuration in reversed(named.items())}
    return {labels[each.key]: each for each in distinct(named.values())}


def _race(training: TorchWorkload, seed: int) -> tuple[Race, Anatomy]:
    brief = briefed(training, Settings(budget=_BUDGET, seed=seed))
    profile, anatomy = measured(training, brief)
    proposals, policies = proposed(training, brief, profile, anatomy)
    return race_for(brief, profile, proposals, policies), anatomy


def _builder(anatomy: Anatomy, configuration: Configuration, task: Task) -> Build:
    def build(model: nn.Module) -> tuple[Optimizer, LRScheduler | None]:
        return build_groups(param_groups(anatomy, configuration), configuration.schedule, model, task.steps)

    return build


def judged_all_along(
    training: TorchWorkload, build: Build, seed: int
) -> tuple[dict[int, tuple[float, ...]], tuple[float, ...], float]:
    """Train to the end, as far as losses are numbers. Returns losses by step, weights of batches, and seconds a step.

    A trial that the search would stop as diverged goes on here: nobody knows then what it would have come to.
    """
    whole = training.steps or 0
    training.begin(build, seed)
    first = training.validate().batches
    values, seconds, done = {0: tuple(value for value, _ in first)}, 0.0, 0
    for until in sorted({step_at(fraction, whole) for fraction in FRACTIONS}):
        begun = time.perf_counter()
        losses = training.train(until - done)
        seconds, done = seconds + time.perf_counter() - begun, until
        batches = training.validate().batches
        if not batches or not all(math.isfinite(loss) for loss in losses if loss is not None):
            break
        values[until] = tuple(value for value, _ in batches)
    return values, tuple(weight for _, weight in first), seconds / done


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def rounded(value: float | None) -> float | None:
    """Keep five digits."""
    return None if value is None else float(f"{value:.5g}")


# --- to keep ----------------------------------------------------------------------------------------------


def pack(rows: Iterable[Mapping[str, Any]], file: Path) -> None:
    """Write a record as the package carries it: equal rows make equal files."""
    text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
    file.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def read(folder: Path | None = None) -> list[Curve]:
    """Read the record in `folder`, or where there is none the package's own."""
    if folder is not None and (folder / FILE).is_file():
        rows: Sequence[Mapping[str, Any]] = Lines(folder / FILE).rows
    else:
        packed = (resources.files("optselect.recipes.bench") / PACKED).read_bytes()
        rows = [json.loads(line) for line in gzip.decompress(packed).splitlines()]
    return [Curve.from_dict(row) for row in rows]
