"""What a rule is: a pure function of the profile whose name is its claim."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from optselect.profile.values import Profile

Strength = Literal["measured", "raw data", "paper", "textbook"]


class RuleWarning(RuntimeWarning):
    """A rule raised and was left out."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The measured value a rule looked at, and the threshold that made it speak (None: a fact)."""

    quantity: str
    value: Any
    threshold: float | None = None
    sense: Literal["at least", "at most"] = "at least"

    def describe(self) -> str:
        """Put it in words: `data.rare_class_share = 0.71 (at least 0.5)`."""
        value = f"{self.value:.3g}" if isinstance(self.value, float) else str(self.value)
        limit = f" ({self.sense} {self.threshold:g})" if self.threshold is not None else ""
        return f"{self.quantity} = {value}{limit}"

    def to_dict(self) -> dict[str, Any]:
        """Write as builtins what is not the default; inverse of `from_dict`."""
        limit = {} if self.threshold is None else {"threshold": self.threshold}
        sense = {} if self.sense == "at least" else {"sense": self.sense}
        return {"quantity": self.quantity, "value": self.value, **limit, **sense}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Evidence:
        """Read the evidence that `to_dict` wrote."""
        return cls(**data)


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One rule's word on one optimizer: a positive weight speaks for it, a negative one against it.

    A veto is a fact, not an opinion: the optimizer cannot train this model, whatever speaks for it.
    `counter` is what speaks against the rule itself: shown beside it, so that a textbook's word is not
    taken for a measurement. A `Rule` fills in `rule`, `mechanism`, `cites`, `strength` and `counter`. The last
    four are the rule's, not the vote's: votes that differ in nothing else are equal, and they are not stored.
    """

    optimizer: str
    because: Evidence
    weight: float = 1.0
    veto: bool = False
    rule: str = ""
    mechanism: str = field(default="", compare=False)
    cites: str = field(default="", compare=False)
    strength: Strength = field(default="paper", compare=False)
    counter: str = field(default="", compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Write as builtins, without what `from_dict` finds in the rule again: a checkpoint holds many votes."""
        return {
            "optimizer": self.optimizer,
            "rule": self.rule,
            "because": self.because.to_dict(),
            "weight": self.weight,
            **({"veto": True} if self.veto else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Vote:
        """Read the vote that `to_dict` wrote.

        Its mechanism and sources come from the rule of that name. A rule that was made in another process
        is not there: then name and evidence are all there is.
        """
        vote = cls(**{**data, "because": Evidence.from_dict(data["because"])})
        rule = _RULES.get(vote.rule)
        return vote if rule is None else rule.signed(vote)


Answer = Vote | Sequence[Vote] | None


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A claim with its mechanism, its source and the function that checks it."""

    name: str
    mechanism: str
    cites: str
    strength: Strength
    counter: str = ""
    function: Callable[[Profile], Answer] = field(repr=False)

    def __call__(self, profile: Profile) -> tuple[Vote, ...]:
        """Return the votes of this rule on `profile`; none when it has nothing to say."""
        answer = self.function(profile)
        votes = () if answer is None else (answer,) if isinstance(answer, Vote) else tuple(answer)
        return tuple(map(self.signed, votes))

    def signed(self, vote: Vote) -> Vote:
        """Sign `vote` as one of this rule: with its name, mechanism and sources."""
        return replace(
            vote,
            rule=self.name,
            mechanism=self.mechanism,
            cites=self.cites,
            strength=self.strength,
            counter=self.counter,
        )


# Every rule that `rule` made in this process, the latest of a name: a stored vote finds its sources here.
_RULES: dict[str, Rule] = {}


def rule(
    *, cites: str, strength: Strength = "paper", counter: str = ""
) -> Callable[[Callable[[Profile], Answer]], Rule]:
    """Make a rule of a function: its name is the claim, the first line of its docstring the mechanism."""

    def decorate(function: Callable[[Profile], Answer]) -> Rule:
        mechanism = (function.__doc__ or "").strip().partition("\n")[0]
        made = Rule(
            name=function.__name__.replace("_", " "),
            mechanism=mechanism,
            cites=cites,
            strength=strength,
            counter=counter,
            function=function,
        )
        _RULES[made.name] = made
        return made

    return decorate


def at_least(quantity: str, value: float | None, threshold: float) -> Evidence | None:
    """Return the evidence that a known `value` reaches `threshold`; None when it does not or is not known."""
    if value is None or value < threshold:
        return None
    return Evidence(quantity=quantity, value=value, threshold=threshold)


def at_most(quantity: str, value: float | None, threshold: float) -> Evidence | None:
    """Return the evidence that a known `value` does not exceed `threshold`; None when it does or is not known."""
    if value is None or value > threshold:
        return None
    return Evidence(quantity=quantity, value=value, threshold=threshold, sense="at most")


def votes(because: Evidence | None, weights: Mapping[str, float]) -> tuple[Vote, ...]:
    """Cast one vote for each optimizer of `weights`, all for the same reason; none without a reason."""
    if because is None:
        return ()
    return tuple(Vote(optimizer=name, because=because, weight=weight) for name, weight in weights.items())
