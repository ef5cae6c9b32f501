"""Which trial comes next: a pure function of the trials so far.

A killed search therefore needs no state of its own: asked again with the same trials, it gives the same
job. Costs are counted as an uninterrupted search would have spent them, so a kill changes nothing in what
is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

from optselect.configuration import Trial
from optselect.search.board import Board
from optselect.search.race import Job, Race
from optselect.search.stages import STAGES, Stage


def next_job(race: Race, trials: Sequence[Trial], stages: Sequence[Stage] = STAGES) -> Job | None:
    """Return the next job, or None when the race is over or nothing more fits the budget."""
    board = Board(race, trials)
    for index, stage in enumerate(stages):
        if stage.decides and board.is_settled:
            continue
        for job in stage.jobs(board):
            if board.fits(job, stage.leaves(board, stages[index + 1 :])):
                return board.first_part(job)
    return None
