"""The optimizer that a training brings with it: what it trains, in which groups, and what it leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
    one       whether each call gives the same object, as LightningCLI's does: two trials cannot have it at two rates
    """

    name: str
    groups: tuple[OwnGroup, ...]
    left_out: tuple[str, ...] = ()
    passes: int = 1
    one: bool = False
