"""Search spaces: hyperparameter names mapped to hard bounds, each with a centre to start from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from optuna.distributions import CategoricalDistribution, FloatDistribution

from optselect.errors import ConfigurationError

Distribution = FloatDistribution | CategoricalDistribution
Value = float | int | str | bool


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One hyperparameter: its hard bounds and the value in them to start from.

    `centre` is in the hyperparameter's own unit. `complement` says that the distance to one is what varies by
    factors: a momentum of .9 and one of .99 are a decade apart, so 1 - momentum is searched.
    """

    distribution: Distribution
    centre: Value
    complement: bool = False

    def __post_init__(self) -> None:
        if not self.contains(self.centre):
            raise ConfigurationError(
                f"a prior's centre must lie inside its bounds {self.distribution}, but got {self.centre!r}"
            )

    def clip(self, value: float) -> float:
        """Move `value` to the nearest bound when it lies outside them."""
        if not isinstance(self.distribution, FloatDistribution):
            raise ConfigurationError(f"only a numeric dimension has bounds to clip to; this one is {self.distribution}")
        inner = min(max(float(self._inner(value)), self.distribution.low), self.distribution.high)
        return 1.0 - inner if self.complement else inner

    def contains(self, value: Value) -> bool:
        """Tell whether `value` lies inside the hard bounds."""
        if isinstance(self.distribution, CategoricalDistribution):
            return value in self.distribution.choices
        return self.distribution.low <= float(self._inner(value)) <= self.distribution.high

    def to_unit(self, value: float) -> float:
        """Locate `value` between the bounds: 0 at the lower, 1 at the upper one."""
        low, high = self._ends()
        inner = float(self._inner(value))
        return (self._scale(inner) - low) / (high - low) if high > low else 0.0

    def from_unit(self, unit: float) -> float:
        """Return the value at `unit` of the way from the lower bound to the upper one; inverse of `to_unit`."""
        low, high = self._ends()
        at = low + min(max(unit, 0.0), 1.0) * (high - low)
        # Clipped: 10 to the power of a bound's logarithm may lie a rounding error outside it.
        inner = self._snapped(10.0**at if self._log else at)
        return 1.0 - inner if self.complement else inner

    @property
    def _log(self) -> bool:
        return isinstance(self.distribution, FloatDistribution) and self.distribution.log

    def _ends(self) -> tuple[float, float]:
        if not isinstance(self.distribution, FloatDistribution):
            raise ConfigurationError(f"only a numeric dimension has a scale; this one is {self.distribution}")
        return self._scale(self.distribution.low), self._scale(self.distribution.high)

    def _scale(self, inner: float) -> float:
        return math.log10(inner) if self._log else inner

    def _inner(self, value: Value) -> Value:
        return self._snapped(1.0 - float(value)) if self.complement else value

    def _snapped(self, inner: float) -> float:
        """Move `inner` to a bound that it misses by a rounding error only: 1 - (1 - .3) is a little more than .3."""
        if isinstance(self.distribution, FloatDistribution):
            for bound in (self.distribution.low, self.distribution.high):
                if math.isclose(inner, bound, rel_tol=1e-9, abs_tol=1e-15):
                    return bound
        return inner


def log_uniform(low: float, high: float, *, centre: float | None = None) -> Dimension:
    """Make a dimension for a positive number whose magnitude is unknown; `centre` defaults to the geometric middle."""
    centre = math.sqrt(low * high) if centre is None else centre
    return Dimension(distribution=FloatDistribution(low, high, log=True), centre=centre)


def near_one(low: float, high: float, *, centre: float) -> Dimension:
    """Make a dimension for a momentum or a beta: a number whose *distance to one* is searched by magnitude.

    `low` and `high` bound that distance: `near_one(5e-3, .3, centre=.9)` is a momentum in [.7, .995].
    """
    return Dimension(distribution=FloatDistribution(low, high, log=True), centre=centre, complement=True)


def choice(*values: Value, centre: Value | None = None) -> Dimension:
    """Make a dimension that is one of `values`; `centre` defaults to the first."""
    return Dimension(distribution=CategoricalDistribution(values), centre=values[0] if centre is None else centre)


@dataclass(frozen=True)
class SearchSpace(Mapping[str, Dimension]):
    """Dimensions by hyperparameter name, in the order they were given."""

    dimensions: Mapping[str, Dimension] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dimensions", MappingProxyType(dict(self.dimensions)))

    def __getitem__(self, name: str) -> Dimension:
        return self.dimensions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.dimensions)

    def __len__(self) -> int:
        return len(self.dimensions)

    def __hash__(self) -> int:
        return hash(frozenset(self.dimensions.items()))

    def centre(self) -> dict[str, Value]:
        """Return the prior's centre in every dimension."""
        return {name: dimension.centre for name, dimension in self.dimensions.items()}
