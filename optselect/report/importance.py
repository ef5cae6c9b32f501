"""How much each hyperparameter mattered among the trials: Optuna's fANOVA, where there are enough of them.

Of a made function with known shares (.80, .18, .03, 0), half of the drawings spread and half drawn to the best as a
search is, 20 ranks put the first parameter first in 60 of 64 drawings and the second before the rest in 24; 60 ranks
in 48 and 45 of 48. PED-ANOVA, Optuna's other evaluator, asks what the best tenth of the trials have in common, and of
20 trials a tenth are two: it put the first one first in 1 of 48.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution

from optselect import catalogue
from optselect.configuration import USER, Configuration, Trial
from optselect.configuration.configuration import LR_SCALE, USER_SPACE, WEIGHT_DECAY_SCALE
from optselect.errors import UnknownOptimizerError
from optselect.plan import OptimizerPlan
from optselect.report.trials import main_rung
from optselect.space import Dimension, Value

FEWEST = 20
"""Trials at one rung, below which nothing is said."""

SURE = 60
"""Trials from which the order beyond the first is mostly right, too."""

# Where a configuration stands in each parameter.
Place = Mapping[str, float | str]


@dataclass(frozen=True, kw_only=True)
class Importance:
    """How much each parameter has to do with the order of the trials at a rung.

    trials  those at the rung that can be compared
    shares  of what parameters explain one by one, the largest first; they sum up to 1 (empty: too few trials)
    """

    rung: int
    trials: int
    shares: Mapping[str, float] = field(default_factory=dict)


def importance(plan: OptimizerPlan) -> Importance | None:
    """Ask how much each parameter mattered at the rung with most trials; None where nothing was judged.

    By ranks: the loss of one that is about to diverge would drown the others. One that diverged comes last. Rates and
    the like are compared by where they stand beside their optimizer's centre, since a good rate of SGD is a bad one
    of Adam.
    """
    rung = main_rung(plan)
    if rung is None:
        return None
    losses: list[float] = []
    places: list[Place] = []
    for trial in plan.trials:
        place, loss = place_of(trial.configuration), _loss(plan, trial, rung)
        if place is not None and loss is not None and trial.seed == 0:
            losses.append(loss)
            places.append(place)
    found = Importance(rung=rung, trials=len(places))
    if len(places) < FEWEST:
        return found
    order = sorted(losses)
    shares = _shares(places, [float(order.index(loss)) for loss in losses])
    return Importance(rung=rung, trials=len(places), shares=shares)


def place_of(configuration: Configuration) -> Place | None:
    """Locate a configuration: numbers as shares of their range, from its centre. None: its optimizer is not known."""
    place: dict[str, float | str] = {"optimizer": configuration.optimizer, "schedule": configuration.schedule.kind}
    values: dict[str, tuple[Dimension, Value]]
    if configuration.optimizer == USER:
        scales = configuration.scales
        names = {"lr": LR_SCALE, "weight_decay": WEIGHT_DECAY_SCALE}
        values = {name: (USER_SPACE[scale], scales.get(scale, 1.0)) for name, scale in names.items()}
        place["schedule"] = "your own"
    else:
        try:
            space = catalogue.get(configuration.optimizer).space
        except UnknownOptimizerError:
            return None
        values = {name: (space[name], value) for name, value in configuration.hyperparameters.items() if name in space}
    for name, (dimension, value) in values.items():
        # A value outside its bounds, as no weight decay at all, has no place in its range.
        if isinstance(dimension.distribution, FloatDistribution) and dimension.contains(value):
            place[name] = dimension.to_unit(float(value)) - dimension.to_unit(float(dimension.centre))
    place["parts of the model"] = configuration.fine_tuning.describe() if configuration.fine_tuning else "alike"
    return place


def _loss(plan: OptimizerPlan, trial: Trial, rung: int) -> float | None:
    if rung in trial.values:
        return plan.goal.loss(trial.values[rung])
    return math.inf if trial.diverged and 0 < trial.reached <= rung else None


def _shares(places: Sequence[Place], ranks: Sequence[float]) -> dict[str, float]:
    shared = [name for name in places[0] if all(name in place for place in places)]
    varied = {name: sorted({place[name] for place in places}, key=str) for name in shared}
    distributions: dict[str, FloatDistribution | CategoricalDistribution] = {}
    for name, seen in varied.items():
        if len(seen) > 1:
            numbers = [each for each in seen if isinstance(each, float)]
            distributions[name] = (
                FloatDistribution(min(numbers), max(numbers)) if numbers else CategoricalDistribution(seen)
            )
    if not distributions or len(set(ranks)) < 2:
        return {}
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances  # noqa: PLC0415  # brings scikit-learn

    # Its INFO line would speak of a study that nobody asked for.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    for place, rank in zip(places, ranks, strict=True):
        params = {name: place[name] for name in distributions}
        study.add_trial(optuna.trial.create_trial(params=params, distributions={**distributions}, value=rank))
    found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0), params=list(distributions))
    return {name: float(share) for name, share in found.items()}
