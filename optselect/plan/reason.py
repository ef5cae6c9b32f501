"""Why a configuration was chosen, as a value: text is made of it for people, and nobody reads it back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

Kind = Literal[
    "rules",  # the rules' word alone: nothing was tried
    "baseline",  # the baseline stays, and why
    "tie",  # a better value that was passed over, and why
    "trial",  # what it reached beside the baseline; `value`: its own
    "lead",  # how far it is ahead of the baseline; `value`: that share
    "further",  # it went further than the baseline; `value`: what it had there
    "runner-up",  # what came next; `value`: what that reached
    "vote",  # a rule that speaks for it; `value`: the vote's weight
    "policy",  # why parts are treated differently
    "best counts",  # trials count as their best value so far
    "transfer",  # it was carried over from a shorter training
    "own",  # what the training's own optimizer trains, and what it leaves out; `value`: parameters left out
    "schedule",  # why nothing but a constant rate was proposed
    "caveat",  # in what trials were judged otherwise than the training is
    "pace",  # how long a step takes beside the baseline's, and what follows; `value`: that many times
    "cost",  # what the choice cost; `value`: the share of the training (None: its length is not known)
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reason(str):  # noqa: SLOT000  # its fields are kept beside the string
    """One sentence that a person can check, what kind of reason it is, its source, and the figure in it.

    It is the string that people read: the text, with its source in brackets.
    """

    kind: Kind
    text: str
    cites: str = ""
    value: float | None = None

    def __new__(cls, *, text: str, cites: str = "", **_facts: Any) -> Self:
        """Make the string; `__init__` keeps what it is made of."""
        return super().__new__(cls, f"{text} [{cites}]" if cites else text)

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, Any]]:
        """Say how copies and pickles are made anew."""
        return (), {"kind": self.kind, "text": self.text, "cites": self.cites, "value": self.value}

    def to_dict(self) -> dict[str, Any]:
        """Write as builtins; inverse of `from_dict`."""
        cites = {"cites": self.cites} if self.cites else {}
        value = {"value": self.value} if self.value is not None else {}
        return {"kind": self.kind, "text": self.text, **cites, **value}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Reason:
        """Read the reason that `to_dict` wrote."""
        return cls(kind=data["kind"], text=data["text"], cites=data.get("cites", ""), value=data.get("value"))
