"""The configurations that every workload is trained with."""

from __future__ import annotations

from collections.abc import Mapping

from optselect.configuration.schedule import ScheduleKind
from optselect.rules.portfolio import Point
from optselect.space import Value


def _points(optimizer: str, *rates: float, schedule: ScheduleKind = "cosine", **others: Value) -> tuple[Point, ...]:
    return tuple(Point(optimizer=optimizer, rate=rate, schedule=schedule, others=others) for rate in rates)


BASELINE = Point(optimizer="adamw", rate=1e-3, schedule="constant", others={"weight_decay": 1e-2})

_ALL = (
    BASELINE,
    *_points("adamw", 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    *_points("adamw", 3e-3, schedule="constant"),
    *_points("adamw", 3e-3, schedule="linear"),
    *_points("adamw", 3e-3, schedule="wsd"),
    *_points("adamw", 3e-3, weight_decay=0.1),
    *_points("adamw", 3e-3, beta2=0.95),
    *_points("nadam", 1e-3, 3e-3, 1e-2, 3e-2),
    *_points("rmsprop", 3e-4, 1e-3, 3e-3),
    *_points("momentum", 3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
    *_points("adagrad", 3e-2, 1e-1, 3e-1),
    *_points("muon", 1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    *_points("muon", 1e-2, schedule="linear"),
    *_points("muon", 1e-2, schedule="wsd"),
    *_points("muon", 3e-2, weight_decay=0.1),
    *_points("muon", 1e-2, 3e-2, partner_lr_ratio=0.3),
    *_points("lion", 3e-4, 1e-3),
    *_points("soap", 3e-3, 1e-2),
    *_points("ademamix", 1e-3, 3e-3),
    *_points("schedulefree_adamw", 3e-3, 1e-2, schedule="constant"),
)
GRID: Mapping[str, Point] = {point.name: point for point in _ALL}

# Where gradients are sparse, besides.
SPARSE: Mapping[str, Point] = {point.name: point for point in _points("sparse_adam", 3e-3, 1e-2, 3e-2)}


def points_of(*, sparse: bool) -> list[str]:
    """Name the points that a workload is trained with.

    A momentum buffer of sparse gradients grows with every row it has seen, until steps take minutes.
    """
    if not sparse:
        return [*GRID]
    return [*(name for name, point in GRID.items() if point.optimizer != "momentum"), *SPARSE]


# Which are trained at other lengths, too: by how many times as long.
_AT_FOUR = (
    BASELINE,
    *_points("adamw", 3e-4, 1e-3, 3e-3, 1e-2),
    *_points("nadam", 3e-3),
    *_points("momentum", 1e-2, 3e-2, 1e-1),
    *_points("muon", 1e-3, 3e-3, 1e-2, 3e-2),
)
_AT_SIXTEEN = (
    BASELINE,
    *_points("adamw", 3e-4, 1e-3, 3e-3, 1e-2),
    *_points("momentum", 1e-2, 3e-2),
    *_points("muon", 1e-3, 3e-3, 1e-2),
)
AT_LENGTH: Mapping[int, tuple[str, ...]] = {
    4: tuple(point.name for point in _AT_FOUR),
    16: tuple(point.name for point in _AT_SIXTEEN),
}
