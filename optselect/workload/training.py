"""What every workload does alike with the training that was begun: put it aside, store it, go on with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optselect.workload.batch_norm import RECALIBRATION_BATCHES
from optselect.workload.borrowed_model import BorrowedModel, ModelState
from optselect.workload.shelf import ShelvedStates
from optselect.workload.stored import (
    NotPlainError,
    restore_optimizer,
    restore_schedulers,
    stored_optimizer,
    stored_schedulers,
)

SomeTraining = TypeVar("SomeTraining", bound="Training")
T = TypeVar("T")


@dataclass(kw_only=True)
class Training:
    """The training that was begun: what steps it, and how far it is.

    optimizers  of the weights
    schedulers  of the optimizers
    seed        of the order of its batches, and of its random numbers
    position    micro-batches behind it
    """

    optimizers: list[Optimizer]
    schedulers: list[Any]
    seed: int
    position: int = 0

    def torch_schedulers(self) -> list[LRScheduler]:
        """Return the schedulers themselves, where `schedulers` holds something around them."""
        return self.schedulers

    def recent_batches(self, held_back: int) -> range:
        """Name the batches that BatchNorm's statistics are taken over: the last it has seen, or its first ones."""
        first = held_back + max(self.position - RECALIBRATION_BATCHES, 0)
        return range(first, first + RECALIBRATION_BATCHES)

    def store(self, model: BorrowedModel) -> dict[str, Any] | None:
        """Return the training and its model in builtins and tensors; None where these cannot say it."""
        try:
            return {
                "model": model.store(),
                "optimizers": [stored_optimizer(each, model.model.parameters()) for each in self.optimizers],
                "schedulers": stored_schedulers(self.torch_schedulers()),
                "at": [self.seed, self.position],
            }
        except NotPlainError:
            return None

    def restore(self, model: BorrowedModel, stored: dict[str, Any]) -> None:
        """Put into this new training what `store` said of one with optimizers and schedulers of the same kinds.

        Raises `NotPlainError` when they are unlike.
        """
        model.restore_stored(stored["model"])
        for optimizer, state in zip(self.optimizers, stored["optimizers"], strict=True):
            restore_optimizer(optimizer, state)
        restore_schedulers(self.torch_schedulers(), stored["schedulers"])
        self.seed, self.position = stored["at"][:2]


@dataclass(frozen=True, kw_only=True)
class Paused(Generic[SomeTraining]):
    """A training put aside, with its model's state.

    states  of its optimizers, where they lie elsewhere (None: they are where they were)
    """

    training: SomeTraining
    model: ModelState
    states: ShelvedStates | None = None
