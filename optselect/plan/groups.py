"""Which parameters an optimizer trains alike, and when they begin to train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optselect.space import Value


@dataclass(frozen=True, kw_only=True)
class Joining:
    """When a group begins to train, if not at the beginning: with neither a step nor a patience, never.

    phase     which of the plan's thaws it is, counted from 1
    step      optimizer steps before it
    patience  validations without an improvement before it
    """

    phase: int = 0
    step: int | None = None
    patience: int | None = None

    @property
    def never(self) -> bool:
        """Whether the group stays frozen."""
        return self.step is None and self.patience is None

    def describe(self) -> str:
        """Put it in words: `joins at step 60`."""
        if self.step is not None:
            return f"joins at step {self.step}"
        return "frozen" if self.never else f"joins after {self.patience} validations without improvement"

    def to_dict(self) -> dict[str, Any]:
        """Write as builtins; inverse of `from_dict`."""
        return {"phase": self.phase, "step": self.step, "patience": self.patience}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Joining:
        """Read what `to_dict` wrote."""
        return cls(**data)


@dataclass(frozen=True, kw_only=True)
class ParamGroup:
    """Parameters, by name, that one optimizer trains with the same hyperparameters.

    `optimizer` is a catalogue name: a plan whose groups name several is built as one composite optimizer.
    `joins` says when the group begins to train (None: at the beginning); `rate` is the factor on the plan's
    learning rate behind its own. `roles` are what its parameters are for, and `layers` the lowest and highest
    of theirs, 0 nearest the input (none: not known).
    """

    name: str
    optimizer: str
    parameters: tuple[str, ...]
    hyperparameters: Mapping[str, Value]
    joins: Joining | None = None
    rate: float = 1.0
    roles: tuple[str, ...] = ()
    layers: tuple[int, int] | None = None

    @property
    def frozen(self) -> bool:
        """Whether the group never trains."""
        return self.joins is not None and self.joins.never

    @property
    def ranges(self) -> tuple[tuple[str, tuple[float | None, float]], ...]:
        """Its numbers, each with the least that it may be (None: there is none)."""
        joins = self.joins or Joining()
        rate = self.hyperparameters.get("lr")
        return (
            ("phase", (joins.phase, 0)),
            ("step", (joins.step, 0)),
            ("patience", (joins.patience, 1)),
            ("rate", (self.rate, 0)),
            ("lr", (float(rate) if isinstance(rate, int | float) else None, 0)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Write as builtins; inverse of `from_dict`."""
        return {
            "name": self.name,
            "optimizer": self.optimizer,
            "parameters": list(self.parameters),
            "hyperparameters": dict(self.hyperparameters),
            **({"joins": self.joins.to_dict()} if self.joins else {}),
            "rate": self.rate,
            "roles": list(self.roles),
            "layers": list(self.layers) if self.layers else None,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ParamGroup:
        """Read the group that `to_dict` wrote."""
        return cls(
            name=data["name"],
            optimizer=data["optimizer"],
            parameters=tuple(data["parameters"]),
            hyperparameters=dict(data["hyperparameters"]),
            joins=Joining.from_dict(data["joins"]) if data.get("joins") else None,
            rate=data.get("rate", 1.0),
            roles=tuple(data.get("roles", ())),
            layers=tuple(data["layers"]) if data.get("layers") else None,
        )
