"""What there is to know of a training before its search is laid out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from optselect.budget import VALIDATION_COST, Budget
from optselect.configuration import FineTuning, Goal
from optselect.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Brief:
    """The limits of a search and the facts of its training, as numbers.

    settings            what the user asked for
    budget              what the search may cost
    horizon             micro-batches of the training (None: its length is not known)
    accumulate          micro-batches to one optimizer step
    goal                whether small or large values of `monitor` are good
    monitor             what trials are judged by
    validation_batches  batches that judging a trial once runs forward
    has_user_optimizer  whether the training brings an optimizer of its own
    user_scales         whether trials may have that optimizer at other rates
    user_called         what that optimizer is, for people
    user_passes         forward and backward passes of one micro-batch with that optimizer
    keeps_best          whether the training keeps the weights of its best value
    training_bytes      bytes in parameters and buffers
    policy              the user's own way to train the parts of the model, in terms of this training (None: none)
    timing              micro-batches that measuring the pace took
    slowness            how many times as long as one of the baseline's a micro-batch takes, by optimizer (empty: trials
                        are compared at equal steps)
    paused_bytes        memory for trials that are put aside
    """

    settings: Settings
    budget: Budget
    horizon: int | None
    accumulate: int
    goal: Goal
    monitor: str
    validation_batches: int
    has_user_optimizer: bool
    user_passes: int
    keeps_best: bool
    training_bytes: int
    user_scales: bool = True
    user_called: str = ""
    policy: FineTuning | None = None
    timing: int = 0
    slowness: Mapping[str, float] = field(default_factory=dict)
    paused_bytes: int = 0

    @property
    def validation_cost(self) -> float:
        """Micro-batches that judging a trial once counts."""
        return self.validation_batches * VALIDATION_COST
