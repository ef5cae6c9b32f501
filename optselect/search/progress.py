"""Who is told what a search does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from optselect.configuration.goal import Goal
from optselect.configuration.trial import Trial
from optselect.plan import OptimizerPlan
from optselect.rules import Proposal
from optselect.search.outcome import Outcome
from optselect.search.race import Job, Race
from optselect.study.claims import Claim

if TYPE_CHECKING:
    from optselect.workload.room import Room


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What is known before the first trial.

    proposals  of the rules
    monitor    what trials are judged by
    goal       whether small or large values of it are good
    pace       seconds that a forward and backward pass took in the profile (None: none was run)
    room       where the parts of a model that is cut over processes are put aside (None: it is not cut)
    """

    proposals: Sequence[Proposal]
    monitor: str
    goal: Goal
    pace: float | None
    room: Room | None = None


class Progress(Protocol):
    """Told what the search does; a context manager around its trials."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def proposed(self, preview: Preview) -> None:
        """Learn that the training is measured, and that the rules have spoken."""

    def started(self, job: Job, race: Race, trials: Sequence[Trial]) -> None:
        """Learn that a job begins; `trials` are those before it."""

    def advanced(self, reached: int) -> None:
        """Learn that the job that was begun is at micro-batch `reached`."""

    def finished(self, job: Job, outcome: Outcome) -> None:
        """Learn that the job that was begun has ended."""

    def alongside(self, running: Sequence[Claim], lost: Sequence[Claim]) -> None:
        """Learn what other workers of the search are at, and which were lost so far; a thread may tell."""

    def waiting(self) -> None:
        """Learn that there is nothing to do until others have ended what they are at."""

    def chosen(self, plan: OptimizerPlan) -> None:
        """Learn that the choice is made."""


class Silent:
    """Says nothing: for processes other than the first."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def proposed(self, preview: Preview) -> None:
        """Do nothing."""

    def started(self, job: Job, race: Race, trials: Sequence[Trial]) -> None:
        """Do nothing."""

    def advanced(self, reached: int) -> None:
        """Do nothing."""

    def finished(self, job: Job, outcome: Outcome) -> None:
        """Do nothing."""

    def alongside(self, running: Sequence[Claim], lost: Sequence[Claim]) -> None:
        """Do nothing."""

    def waiting(self) -> None:
        """Do nothing."""

    def chosen(self, plan: OptimizerPlan) -> None:
        """Do nothing."""
