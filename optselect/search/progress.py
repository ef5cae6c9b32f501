"""Who is told what a search does."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from optselect.configuration.trial import Trial
from optselect.plan import OptimizerPlan
from optselect.profile import Profile
from optselect.rules import Proposal
from optselect.search.outcome import Outcome
from optselect.search.race import Job, Race


class Progress(Protocol):
    """Told what the search does; a context manager around its trials."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def proposed(self, profile: Profile, proposals: Sequence[Proposal]) -> None:
        """The training is measured, and the rules have spoken."""

    def started(self, job: Job, race: Race, trials: Sequence[Trial]) -> None:
        """A job begins; `trials` are those before it."""

    def finished(self, job: Job, outcome: Outcome) -> None:
        """The job that was begun has ended."""

    def chosen(self, plan: OptimizerPlan) -> None:
        """The choice is made."""


class Silent:
    """Says nothing: for processes other than the first."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def proposed(self, profile: Profile, proposals: Sequence[Proposal]) -> None:
        """Nothing."""

    def started(self, job: Job, race: Race, trials: Sequence[Trial]) -> None:
        """Nothing."""

    def finished(self, job: Job, outcome: Outcome) -> None:
        """Nothing."""

    def chosen(self, plan: OptimizerPlan) -> None:
        """Nothing."""
