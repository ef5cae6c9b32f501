"""Searching a shorter training than the one to come, and carrying its learning rate over.

A quarter of a long training pays for two candidates taken to an eighth of it, or for four taken to a quarter of a
training as long as the budget. The second compares more; but the best learning rate falls with a training's length, as
a power of it (Bjorck et al. 2024, arXiv:2409.19913), so what was found has to be carried over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from optselect.configuration import USER, Configuration
from optselect.decide import Choice
from optselect.profile import Profile
from optselect.race import Race, standings
from optselect.rules.prior import HORIZON_EXPONENT, HORIZON_FREE, REFERENCE_STEPS, regime
from optselect.study import Evaluation

# What a fit from two rungs may say at the most; short trials are noisy.
_MOST = 0.6
# A training less than this much longer than the budget is searched itself.
_LONGER = 1.5
# Rates of one optimizer from which a parabola has a lowest point.
_POINTS = 3


def search_horizon(training: int, steps: int | None) -> int:
    """Micro-batches of the training that is searched, for one of `training` and a budget of `steps` (None: no limit).

    It is as long as the budget, and at least what the catalogue's centres are for; a training that is hardly longer
    than that is searched itself.
    """
    if steps is None or training < _LONGER * max(steps, REFERENCE_STEPS):
        return training
    return max(steps, REFERENCE_STEPS)


def exponent(configuration: Configuration, profile: Profile) -> float:
    """β of lr ∝ length^-β for an optimizer in a regime: 0 where the rate does not move with the length."""
    free = configuration.optimizer == USER or configuration.optimizer in HORIZON_FREE or not regime(profile).horizon
    return 0.0 if free else HORIZON_EXPONENT


def carried_over(configuration: Configuration, ratio: float, beta: float) -> Configuration:
    """`configuration` for a training `ratio` times as long: its rate times ratio^-β, its warmup the same share."""
    if configuration.optimizer == USER or ratio == 1.0:
        return configuration
    schedule = replace(configuration.schedule, warmup_steps=round(configuration.schedule.warmup_steps * ratio))
    moved = replace(configuration, schedule=schedule)
    return moved if moved.rate is None or not beta else moved.at_rate(moved.rate * ratio**-beta)


def for_the_whole_training(choice: Choice, race: Race, evaluations: Sequence[Evaluation], profile: Profile) -> Choice:
    """What was chosen on a shorter training, carried over to the one to come, with a reason that says so.

    The baseline stays as it is, and so does the user's own optimizer, whose schedule is that of the whole training.
    """
    chosen = choice.configuration
    if race.training is None or not evaluations or chosen.optimizer == USER or chosen == race.baseline:
        return choice
    ratio = race.training / race.horizon
    beta = fitted_exponent(race, evaluations, chosen, exponent(chosen, profile))
    carried = carried_over(chosen, ratio, beta)
    rate = f", its learning rate times {ratio:.2g}^-{beta:.2g} = {ratio**-beta:.2g}" if beta else ""
    sentence = (
        f"it was chosen on a training of {race.horizon:,} micro-batches and carried over to the {race.training:,} of "
        f"this one{rate} [arXiv:2409.19913]"
    )
    return replace(choice, configuration=carried, reasons=(*choice.reasons, sentence))


def fitted_exponent(race: Race, evaluations: Sequence[Evaluation], chosen: Configuration, prior: float) -> float:
    """β from how the best rate of the chosen optimizer moved between two rungs, halfway back to the `prior`.

    Two rungs have to show at least three rates each, with the best inside; else it is the prior.
    """
    found = []
    for rung in sorted({rung for e in evaluations for rung in e.values}):
        points = [
            (math.log(configuration.rate or 1.0), loss)
            for configuration, loss in standings(race, evaluations, rung)
            if configuration.optimizer == chosen.optimizer
        ]
        if (best := _lowest(points)) is not None:
            found.append((rung, best))
    if not prior or len(found) < 2:
        return prior
    (early, first), (late, last) = found[0], found[-1]
    fit = (first - last) / math.log(late / early)
    return min(max((fit + prior) / 2, 0.0), _MOST)


def _lowest(points: Sequence[tuple[float, float]]) -> float | None:
    """Where the parabola through the best point and its neighbours is lowest; None: the best is at an edge."""
    ordered = sorted(points)
    if len(ordered) < _POINTS:
        return None
    at = min(range(len(ordered)), key=lambda index: ordered[index][1])
    if not 0 < at < len(ordered) - 1:
        return None
    (x0, y0), (x1, y1), (x2, y2) = ordered[at - 1 : at + 2]
    slopes = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    curvature = (slopes[1] - slopes[0]) / (x2 - x0)
    return (x0 + x1) / 2 - slopes[0] / (2 * curvature) if curvature > 0 else x1
