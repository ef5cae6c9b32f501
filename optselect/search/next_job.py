"""Which jobs come next: a pure function of what was judged, and of what is running.

A killed search therefore needs no state of its own: asked again with the same trials, it gives the same job. Costs are
counted as an uninterrupted search would have spent them, so a kill changes nothing in what is chosen.

Several workers share the one sequence of jobs that a single worker would run. A job is begun beside others only where
that sequence has it whatever those give, so neither the sequence nor the choice at its end knows how many workers
there were.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from optselect.configuration import USER, Trial
from optselect.search.board import Board
from optselect.search.race import Job, Race
from optselect.search.stages import STAGES, Stage

# More than these need not be named at once, however many workers there are: they come and go.
_MOST_NAMED = 64


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A job with its place in the sequence of a search.

    place  how many jobs come before it
    guide  the rung that the baseline has been judged at before it: as far as that goes, the course of its losses tells
           what has diverged (0: nothing does)
    """

    place: int
    job: Job
    guide: int = 0


def next_job(race: Race, trials: Sequence[Trial], stages: Sequence[Stage] = STAGES) -> Job | None:
    """Return the next job, or None when the race is over or nothing more fits the budget."""
    return next((turn.job for turn in next_turns(race, trials, (), stages, most=1)), None)


def next_turns(
    race: Race,
    trials: Sequence[Trial],
    running: Sequence[Turn] = (),
    stages: Sequence[Stage] = STAGES,
    *,
    most: int = _MOST_NAMED,
) -> list[Turn]:
    """List jobs that may be begun now beside those that are `running`, `most` at most, in the order of their places.

    Of these a single worker would run the first, and then the others, whatever comes of those before them. None while
    something is running: first that has to end. None while nothing is: the race is over, or nothing more fits the
    budget.
    """
    board = Board(race, trials, [turn.job for turn in running])
    for index, stage in enumerate(stages):
        # A stage opens when those before it are through.
        if running and not (stage.goes_ahead and all(turn.job.stage == stage.name for turn in running)):
            continue
        if stage.decides and board.is_settled:
            continue
        if jobs := _asked_for(board, stage, stages[index + 1 :], most):
            return _in_their_places(board, jobs, running)
    return []


def _asked_for(board: Board, stage: Stage, later: Sequence[Stage], most: int) -> list[Job]:
    """List what `stage` asks for: its first job that fits, and where it goes ahead those after it."""
    found: list[Job] = []
    before, begun = board.at_most, 0
    for job in stage.jobs(board):
        reserve = stage.leaves(board, later)
        if board.fits(job, reserve + before, begun=begun):
            found.append(board.first_part(job))
            if not stage.goes_ahead or len(found) == most:
                break
            before += board.cost(job)
            begun += board.trial(job.configuration, job.seed) is None
        elif before and board.fits(job, reserve):
            break  # whether it fits depends on what those before it will have taken
    return found


def _in_their_places(board: Board, jobs: Sequence[Job], running: Sequence[Turn]) -> list[Turn]:
    """Give `jobs` the places that are free, in their order, and leave out those that first need their guide."""
    told = {turn for trial in board.trials for turn in trial.turns.values()} | {turn.place for turn in running}
    # Studies of before say no places: what is in them came first.
    untold = sum(len(trial.judged.keys() - trial.turns.keys()) for trial in board.trials)
    free = (place for place in itertools.count(untold) if place not in told)
    turns = [Turn(place=place, job=job) for job, place in zip(jobs, free, strict=False)]
    awaited = [turn.place for turn in (*running, *turns) if _is_the_guide(board.race, turn.job)]
    return [
        Turn(place=turn.place, job=turn.job, guide=_guide(board, turn))
        for turn in turns
        if not (_is_guided(board.race, turn.job) and any(place < turn.place for place in awaited))
    ]


def _guide(board: Board, turn: Turn) -> int:
    """Find how far the baseline was judged before `turn`."""
    trial = board.trial(board.race.baseline)
    if trial is None:
        return 0
    return max((rung for rung in trial.values if trial.turns.get(rung, -1) < turn.place), default=0)


def _is_the_guide(race: Race, job: Job) -> bool:
    return job.seed == 0 and job.configuration == race.baseline


def _is_guided(race: Race, job: Job) -> bool:
    """Tell whether the course of the baseline decides on whether it has diverged."""
    return job.configuration.optimizer != USER and job.configuration != race.baseline
