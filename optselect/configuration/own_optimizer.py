"""The optimizer that a training brings with it: what it trains, in which groups, and what it leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from optselect.words import format_value


@dataclass(frozen=True, kw_only=True)
class OwnGroup:
    """One of its parameter groups: the parameters' names, and the rate and decay they have."""

    parameters: tuple[str, ...]
    hyperparameters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class OwnOptimizer:
    """What a look at it tells.

    name      of its class
    groups    its parameter groups, in its order
    left_out  the model's parameters that it does not train, though they are not frozen
    passes    forward and backward passes that one of its micro-batches takes
    schedulers  of its scheduler, the class: none, where it has none
    one       whether each call gives the same object, as LightningCLI's does: two trials cannot have it at two rates
    """

    name: str
    groups: tuple[OwnGroup, ...]
    left_out: tuple[str, ...] = ()
    passes: int = 1
    schedulers: tuple[str, ...] = ()
    one: bool = False

    @property
    def called(self) -> str:
        """Its name for people: `AdamW lr=0.001, ReduceLROnPlateau`."""
        rates = sorted({group.hyperparameters["lr"] for group in self.groups if "lr" in group.hyperparameters})
        lr = f" lr={' to '.join(map(format_value, rates[:1] + rates[1:][-1:]))}" if rates else ""
        return ", ".join([f"{self.name}{lr}", *self.schedulers])
