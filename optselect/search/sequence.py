"""The trials of a search as one worker, that ran its jobs one after the other, would have left them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from optselect.configuration import Trial
from optselect.search.board import Board
from optselect.search.race import Race


def in_turn(race: Race, trials: Sequence[Trial]) -> list[Trial]:
    """Put `trials` in the order of their first jobs, and give those that diverged the cap that they had then.

    Those of studies that say no places come first, as they are.
    """
    judged = sorted(
        (trial.turns.get(rung, -1), trial.number, rung, index)
        for index, trial in enumerate(trials)
        for rung in trial.judged
    )
    order = list(dict.fromkeys(index for *_, index in judged))
    order += [index for index in range(len(trials)) if not trials[index].judged]
    caps: dict[int, float] = {}
    known = [] if race.untrained is None else [race.untrained.value]
    for _, _, rung, index in judged:
        trial = trials[index]
        if rung in trial.values:
            known = [_worst(race, [*known, trial.values[rung]])]
        else:
            caps[index] = _worst(race, known) if rung in trial.turns else trial.judged[rung]
            known = [_worst(race, [*known, caps[index]])]
    return [_at(trials[index], number, caps.get(index)) for number, index in enumerate(order)]


def _at(trial: Trial, number: int, cap: float | None) -> Trial:
    if trial.number == number and cap is None:
        return trial  # as most are, of thousands
    return replace(trial, number=number, cap=trial.cap if cap is None or trial.cap is None else (trial.cap[0], cap))


def cap(race: Race, trials: Iterable[Trial]) -> float:
    """Return what a diverged trial counts as: no better than the untrained model and the worst trial so far."""
    untrained = [] if race.untrained is None else [race.untrained.value]
    return _worst(race, [*untrained, *(value for trial in trials for value in trial.judged.values())])


def _worst(race: Race, values: Iterable[float]) -> float:
    """Return the worst of `values`: a finite one, so that samplers learn from it (a NaN would tell them nothing)."""
    return race.goal.worst([value for value in values if math.isfinite(value)] or [race.goal.loss(1e30)])


def ended(race: Race, trials: Sequence[Trial]) -> list[Trial]:
    """Return `trials` as a search ends them: complete at the last rung, pruned below it."""
    top = max((rung for trial in trials for rung in trial.judged), default=0)
    nothing_ranked = not Board(race, trials).standings(top)

    def end(trial: Trial) -> Trial:
        if trial.state != "running":
            return trial
        if trial.diverged or not trial.values:
            return replace(trial, state="pruned" if trial.judged else "failed")
        complete = max(trial.values) == top or nothing_ranked
        return replace(trial, state="complete" if complete else "pruned")

    return [end(trial) for trial in trials]
