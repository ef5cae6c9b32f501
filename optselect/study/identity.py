"""Which training a study is of: what must be the same, and what must measure the same, for its trials to count."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Figure = tuple[float, float]
"""A number, and the size that a difference to it is seen beside."""

# Another machine adds up in another order: the same data and weights differ by some 1e-7 there, a loss in 16 bits by
# some 1e-3. Another fold, another initialisation or another loss differ by much more.
_TOLERANCE = 2e-5
_TOLERANCES = {"loss": 5e-3, "gradients": 2e-2}


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What tells one training from another.

    facts    digests, each under what it is of: equal for the same training, on every machine
    numbers  figures, each list under what it is of: equal for the same training as far as machines agree. Of lists of
             different lengths the common part is compared
    """

    facts: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, tuple[Figure, ...]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """A short name for the facts."""
        return digest_of(dict(self.facts))

    def joined(self, facts: Mapping[str, Any], numbers: Mapping[str, tuple[Figure, ...]] | None = None) -> Identity:
        """Return the same with more in it: `facts` as anything that JSON can say."""
        more = {name: digest_of(fact) for name, fact in facts.items()}
        return replace(self, facts={**self.facts, **more}, numbers={**self.numbers, **(numbers or {})})

    def merged(self, *others: Identity) -> Identity:
        """Return the same with what the others know."""
        every = (self, *others)
        return Identity(
            facts={name: fact for each in every for name, fact in each.facts.items()},
            numbers={name: figures for each in every for name, figures in each.numbers.items()},
        )

    def differences(self, other: Identity) -> list[str]:
        """Name what differs between the two trainings (none: they are one)."""
        names = [*self.facts, *(name for name in other.facts if name not in self.facts)]
        found = [name for name in names if self.facts.get(name) != other.facts.get(name)]
        for name, figures in self.numbers.items():
            pairs = zip(figures, other.numbers.get(name, ()), strict=False)
            tolerance = _TOLERANCES.get(name.partition(" of ")[0], _TOLERANCE)
            if not all(_agree(one, another, tolerance) for one, another in pairs):
                found.append(name)
        return list(dict.fromkeys(found))

    def to_dict(self) -> dict[str, Any]:
        """Builtins only; inverse of `from_dict`."""
        return {
            "facts": dict(self.facts),
            "numbers": {name: [list(figure) for figure in figures] for name, figures in self.numbers.items()},
        }

    @classmethod
    def from_dict(cls, data: Any) -> Identity:
        """Read the identity that `to_dict` wrote. Raises `ValueError` for anything else."""
        try:
            return cls(
                facts={str(name): str(fact) for name, fact in data["facts"].items()},
                numbers={
                    str(name): tuple((float(value), float(scale)) for value, scale in figures)
                    for name, figures in data["numbers"].items()
                },
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not what a training is known by ({type(error).__name__}: {error})") from error


def digest_of(fact: Any) -> str:
    """Make a short digest of what JSON can say."""
    return hashlib.sha256(json.dumps(fact, sort_keys=True).encode()).hexdigest()[:12]


def measured_figures(values: Iterable[float | None]) -> tuple[Figure, ...]:
    """Figures that are seen beside their own size; what was not measured, or is not finite, is left out."""
    return tuple((value, abs(value)) for value in values if value is not None and math.isfinite(value))


def _agree(one: Figure, other: Figure, tolerance: float) -> bool:
    allowed = tolerance * max(abs(one[1]), abs(other[1])) + 1e-12
    return all(abs(mine - theirs) <= allowed for mine, theirs in zip(one, other, strict=True))
