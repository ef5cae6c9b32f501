"""What a user may ask of a search, checked once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, get_args

from optselect import catalogue
from optselect.budget import Budget, resolve_budget
from optselect.configuration import USER, Compare, FineTuning
from optselect.configuration.policy import FineTuningWord
from optselect.errors import ConfigurationError, UnknownOptimizerError
from optselect.rules import Rule, resolve
from optselect.study.artifacts import Artifacts, checked
from optselect.study.storage import Storage

# A trial's seed is this one and a few more, and torch takes 64 bits.
_SEEDS = 10**18
_LONGEST_NAME = 512
RISK = 0.05
"""The chance of ending behind the user's own optimizer that is accepted where nothing else was asked for."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user may ask for; the fields are those of `AutoOptimizer`.

    Raises `BudgetError`, `UnknownOptimizerError` and `ConfigurationError` for what cannot be meant.
    """

    budget: float | Budget | None = None
    candidates: Sequence[str] | None = None
    rules: str | Sequence[Rule] = "default"
    storage: Storage = None
    study_name: str | None = None
    seed: int = 0
    fine_tuning: FineTuningWord = "auto"
    risk: float = RISK
    compare: Compare = "steps"
    artifacts: Artifacts = None

    def __post_init__(self) -> None:
        if not isinstance(self.budget, Budget | None):
            resolve_budget(self.budget, horizon=1)
        resolve(self.rules)
        checked(self.artifacts)
        if not isinstance(self.seed, Integral) or isinstance(self.seed, bool) or abs(int(self.seed)) >= _SEEDS:
            raise ConfigurationError(f"seed is a whole number of at most 18 digits, but got {str(self.seed)[:40]}")
        if not isinstance(self.risk, Real) or isinstance(self.risk, bool) or not 0 < self.risk < 1:
            raise ConfigurationError(
                f"risk is a chance, above 0 and below 1, but got {self.risk!r}; one in twenty is 0.05"
            )
        if self.compare not in get_args(Compare):
            raise ConfigurationError(
                f"compare is 'steps' or 'seconds', what trials are compared at, but got {self.compare!r}"
            )
        if self.study_name is not None and not 0 < len(self.study_name) <= _LONGEST_NAME:
            raise ConfigurationError(
                f"study_name has 1 to {_LONGEST_NAME} characters, but got {len(self.study_name)}; "
                "pass another, or None for one made of the training"
            )
        object.__setattr__(self, "candidates", _checked(self.candidates))

    @property
    def facts(self) -> dict[str, Any]:
        """Return two digests of what changes a search of that training: without its limits, and with them."""
        return {
            "candidates": list(self.candidates or ()),
            "rules": self.rules if isinstance(self.rules, str) else [rule.name for rule in self.rules],
            "seed": int(self.seed),
            "fine-tuning": self.fine_tuning.to_dict() if isinstance(self.fine_tuning, FineTuning) else self.fine_tuning,
            # Left out where it is the default: studies of before are gone on with.
            **({"compare": self.compare} if self.compare != "steps" else {}),
        }


def _checked(candidates: Any) -> tuple[str, ...] | None:
    if candidates is None:
        return None
    if isinstance(candidates, str):
        raise ConfigurationError(f"candidates is a sequence of names, but got {candidates!r}; write [{candidates!r}]")
    if isinstance(candidates, type) or not isinstance(candidates, Iterable):
        raise ConfigurationError(f"candidates is a sequence of names, but got {_named(candidates)}")
    names = tuple(candidates)
    if not names:
        raise ConfigurationError("candidates is empty, so there is nothing to choose from; name one or pass None")
    for name in names:
        if not isinstance(name, str):
            raise ConfigurationError(f"candidates are names of the catalogue, but got {_named(name)}")
        if name != USER and name not in catalogue.names():
            raise UnknownOptimizerError.named(name, (*catalogue.names(), USER))
    return names


def _named(given: object) -> str:
    """Name what came in place of a candidate's name, and say what to write."""
    kind = given if isinstance(given, type) else type(given)
    what = f"the class {kind.__name__}" if kind is given else f"an object of {kind.__name__}"
    known = next((name for name in catalogue.names() if name == kind.__name__.lower()), None)
    if known is not None:
        return f"{what}; write {known!r}"
    return f"{what}; optselect catalogue lists the names, and an optimizer of your own is registered first"
