"""Who is at a search: its workers, what each is at, and how far the budget is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optselect.configuration import Trial
from optselect.report.groups import aligned
from optselect.report.standing import row_of_claim
from optselect.report.trials import short_of
from optselect.study.claims import claim_on
from optselect.study.reading import OpenTrial
from optselect.study.study import TrialStudy
from optselect.words import format_duration, format_value

_HEADER = ("worker", "", "stage", "optimizer", "lr", "seed", "batches")
_NUMBERS = (4, 5, 6)


def status_lines(study: TrialStudy) -> list[str]:
    """Say how the search in `study` stands, and leave it as it is."""
    look, facts = study.look(), study.study.user_attrs
    judged = [trial for trial in look.trials if trial.judged]
    ill = sum(trial.diverged for trial in judged)
    rows = [*(_cells(trial, "at it") for trial in look.open), *(_cells(trial, "lost") for trial in look.lost)]
    over = "" if look.free or not look.trials else ": it has ended"
    return [
        f"search {study.study.study_name} in {study.place}, judged by {facts.get('monitor', '?')}",
        f"{_spent(judged, facts.get('budget'))}; {len(judged)} trials judged, {ill} of them diverged or failed",
        *(aligned(_HEADER, rows, _NUMBERS) if rows else [f"nobody is at it{over}"]),
    ]


def _cells(trial: OpenTrial, says: str) -> Sequence[str]:
    claim = claim_on(trial)
    if claim is None:
        return "somebody", "begins", "", short_of(trial.configuration), "", str(trial.seed), ""
    row = row_of_claim(claim)
    return claim.name, "left" if claim.left else says, *(row.cells[name] for name in _HEADER[2:])


def _spent(trials: Sequence[Trial], budget: Any) -> str:
    spent, seconds = sum(trial.cost for trial in trials), sum(trial.seconds for trial in trials)
    steps = budget.get("steps") if isinstance(budget, dict) else None
    of = f" of {format_value(steps)} ({spent / steps:.0%})" if steps else ""
    return f"{spent:.0f}{of} micro-batches spent on trials in {format_duration(seconds)}"
