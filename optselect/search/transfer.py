"""Searching a shorter training than the one to come, and carrying its learning rate over.

A quarter of a long training pays for two candidates taken to an eighth of it, or for four taken to a quarter of a
training as long as the budget. The second compares more; but the best learning rate falls with a training's length, as
a power of it (Bjorck et al. 2024, arXiv:2409.19913), so what was found has to be carried over. How steeply it falls is
the prior's to say: the rungs of one search show how the best rate moves along a schedule, not how it moves with length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from optselect.configuration import USER, Configuration, Trial
from optselect.profile import Profile
from optselect.rules.length import REFERENCE_STEPS, at_rate, rate_factor, repeats
from optselect.search import reasons
from optselect.search.choice import Choice
from optselect.search.race import Race

# A training less than this much longer than the budget is searched itself.
_LONGER = 1.5


def search_horizon(training: int, steps: int | None) -> int:
    """Return the micro-batches of the training to search, for `training` and a budget of `steps` (None: no limit).

    It is as long as the budget, and at least what the catalogue's centres are for; a training that is hardly longer
    than that is searched itself.
    """
    if steps is None or training < _LONGER * max(steps, REFERENCE_STEPS):
        return training
    return max(steps, REFERENCE_STEPS)


def carried_over(
    configuration: Configuration, ratio: float, factor: float, *, same_rows: bool = False
) -> Configuration:
    """Fit `configuration` to a training `ratio` times as long: its rate times `factor`, its warmup the same share.

    Where both trainings see the `same_rows`, the weight decay goes with the rate.
    """
    if configuration.optimizer == USER or ratio == 1.0:
        return configuration
    schedule = replace(configuration.schedule, warmup_steps=round(configuration.schedule.warmup_steps * ratio))
    moved = replace(configuration, schedule=schedule)
    return moved if moved.rate is None else at_rate(moved, moved.rate * factor, repeats=same_rows)


def for_the_whole_training(
    choice: Choice,
    race: Race,
    trials: Sequence[Trial],
    profile: Profile,
    rate_transfer: Callable[[Configuration, Profile, float], float] = rate_factor,
) -> Choice:
    """Carry what was chosen on a shorter training over to the one to come, with a reason that says so.

    The baseline stays as it is, and so does the user's own optimizer, whose schedule is that of the whole training.
    """
    chosen = choice.configuration
    if race.training is None or not trials or chosen.optimizer == USER or chosen == race.baseline:
        return choice
    ratio = race.training / race.horizon
    factor = 1 / rate_transfer(chosen, profile, 1 / ratio)
    moved = carried_over(chosen, ratio, factor, same_rows=repeats(profile, 1 / ratio))
    carried = replace(choice, configuration=moved)
    return carried.because(reasons.carried_over(race, factor))
