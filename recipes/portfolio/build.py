"""Out of the records, the portfolio that the rules read: the same file, byte for byte, each time."""

from __future__ import annotations

import gzip
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from optselect.profile.values import Profile
from optselect.recipes.portfolio.grid import AT_LENGTH, BASELINE, GRID, points_of
from optselect.recipes.portfolio.record import PACKED, PROFILES, TRAININGS, Training
from optselect.recipes.portfolio.workloads import WORKLOADS
from optselect.rules.features import features
from optselect.rules.portfolio import Portfolio, Recorded, comes_with_torch

REACH, EVERYWHERE = 0.7, 0.3
"""Fitted by `optselect portfolio judge`."""

# How long a training is, and how often it sees its rows, tells more of what it wants than any other feature does: with
# these so many times as far apart, long ones are picked for by long ones (docs/reference/portfolio.md).
_TELLING = {"steps": 2.0, "passes": 2.0}

_WITH_TORCH = [name for name, point in GRID.items() if comes_with_torch(point)]

# A training that ends further behind than this is no worse for a choice.
_WORST = 2.0
# Where one of them was not run, another tells of its rates.
_ADAMS_KIN = frozenset({"adamw", "nadam", "rmsprop"})
# What was run is preferred to what was not.
_NOT_RUN = 0.1
# Of what the best gains on the untrained model, the gap to plain AdamW counts as this much at least: less is noise.
_LEAST_GAP = 0.02


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A recorded workload at one length, with its first seed's trainings by point."""

    name: str
    family: str
    length: int
    profile: Profile
    trainings: Mapping[str, Training]

    @property
    def untrained(self) -> float:
        """Validation loss of the untrained model."""
        return self.trainings[BASELINE.name].values[0]

    @property
    def points(self) -> list[str]:
        """Those that it is to be trained with."""
        return points_of(sparse=bool(self.profile.gradient.sparse))

    def has(self, points: Iterable[str]) -> bool:
        """Tell whether it was trained with all of `points` that it can be trained with."""
        return not {point for point in points if point in self.points} - self.trainings.keys()

    def loss(self, point: str) -> float:
        """Return the test loss at the end; that of plain AdamW or of the untrained model where it is worse than both.

        Nobody would keep what ends so. What it cannot be trained with counts so, too.
        """
        ended = self.trainings[point].test if point in self.trainings else None
        worst = max(self.untrained, self.trainings[BASELINE.name].test or -math.inf)
        return worst if ended is None else min(ended, worst)

    def regret(self, point: str) -> float:
        """Return how far behind the best a point ended: 0 the best of all, 1 plain AdamW.

        At other lengths fewer points were run. There the nearest in rate of the same optimizer, or of Adam's kin,
        stands for a point, and counts as a little behind; where there is none, the mean of all.
        """
        if self.length == 1 or point in self.trainings:
            return self.regret_of(self.loss(point))
        wanted = GRID[point]
        kin = _ADAMS_KIN if wanted.optimizer in _ADAMS_KIN else {wanted.optimizer}
        alike = [each for name in self.trainings if (each := GRID[name]).optimizer in kin and each != BASELINE]
        if not alike:
            return statistics.fmean(self.regret_of(self.loss(each)) for each in self.trainings)
        nearest = min(alike, key=lambda each: abs(math.log(each.rate / wanted.rate)))
        return min(self.regret_of(self.loss(nearest.name)) + _NOT_RUN, _WORST)

    def regret_of(self, loss: float) -> float:
        """Return how far a test loss is behind the best of all points, which is 0; 1 is plain AdamW's."""
        best = min(self.loss(each) for each in self.trainings)
        gap = max(self.loss(BASELINE.name) - best, _LEAST_GAP * (self.untrained - best))
        return min((loss - best) / gap, _WORST) if gap > 0 else 0.0


def read(folder: Path | None = None) -> list[Outcome]:
    """Read the record in `folder`, or where there is none the repository's own; whole workloads alone."""
    if folder is not None:
        profiles, rows = (
            [json.loads(line) for line in (folder / file).read_text().splitlines()] for file in (PROFILES, TRAININGS)
        )
    else:
        packed = (resources.files("optselect.recipes.portfolio") / PACKED).read_bytes()
        lines = [json.loads(line) for line in gzip.decompress(packed).splitlines()][1:]
        profiles, rows = ([line for line in lines if ("profile" in line) is has] for has in (True, False))
    return outcomes(profiles, [Training.from_dict(row) for row in rows])


def outcomes(profiles: Iterable[Mapping[str, Any]], trainings: Sequence[Training]) -> list[Outcome]:
    """Put the trainings of each workload and length together."""
    found: dict[tuple[str, int], dict[str, Training]] = {}
    for each in trainings:
        if each.job.seed == 0:
            found.setdefault((each.job.workload, each.job.length), {})[each.job.point] = each
    return [
        Outcome(
            name=row["workload"],
            family=row["family"],
            length=row["length"],
            profile=Profile.from_dict(row["profile"]),
            trainings=there,
        )
        for row in profiles
        if (there := found.get((row["workload"], row["length"]))) and BASELINE.name in there
    ]


def build(found: Iterable[Outcome], *, reach: float = REACH, everywhere: float = EVERYWHERE) -> Portfolio:
    """Make the portfolio out of the workloads, and the points that all of them were run with at their own length.

    Those that come with torch are asked of each workload; those of other packages count once all have them.
    """
    whole = [each for each in found if each.has(_WITH_TORCH if each.length == 1 else AT_LENGTH[each.length])]
    points = [point for name, point in GRID.items() if all(each.has([name]) for each in whole if each.length == 1)]
    recorded = tuple(
        Recorded(
            name=each.name if each.length == 1 else f"{each.name} x{each.length}",
            family=each.family,
            summary=WORKLOADS[each.name].summary,
            features={name: _short(value) for name, value in features(each.profile).items()},
            regrets=tuple(round(each.regret(point.name), 3) for point in points),
            length=each.length,
        )
        for each in sorted(whole, key=lambda each: (each.name, each.length))
    )
    return Portfolio(
        points=tuple(points),
        trainings=recorded,
        spread=_spread([each.features for each in recorded]),
        reach=reach,
        everywhere=everywhere,
    )


def _spread(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """Return the unit of each feature that differs: its standard deviation, less for what tells more."""
    known = {name: [value for row in rows if (value := row[name]) is not None] for name in rows[0]}
    deviations = {name: statistics.pstdev(values) for name, values in known.items() if len(values) > 1}
    return {
        name: round(deviation / _TELLING.get(name, 1.0), 4)
        for name, deviation in deviations.items()
        if deviation > 0.01
    }


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def write(portfolio: Portfolio, file: Path) -> None:
    """Write it as JSON, a recorded training a line."""
    content = portfolio.to_dict()
    trainings = content.pop("trainings")
    head = json.dumps(content, separators=(",", ":"))[:-1]
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in trainings)
    file.write_text(f'{head},"trainings":[\n{lines}\n]}}\n', encoding="utf-8")
