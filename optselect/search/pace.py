"""How much of a training there is time for, where trials are compared at equal time."""

from __future__ import annotations

from dataclasses import replace

from optselect.configuration import USER, Configuration, Trial
from optselect.search.race import Race
from optselect.search.transfer import carried_over


def count_in_time(count: int, slowness: float) -> int:
    """Return how many micro-batches, or steps, take as long as `count` of the baseline's; at least one of any."""
    return max(round(count / slowness), min(count, 1))


def in_time(configuration: Configuration, slowness: float) -> Configuration:
    """Fit `configuration` to a training of as much time and fewer steps: its warmup and thaws keep their shares."""
    if configuration.optimizer == USER or slowness == 1.0:
        return configuration
    fitted = carried_over(configuration, 1 / slowness, 1.0)
    policy = fitted.fine_tuning
    return fitted if policy is None else replace(fitted, fine_tuning=policy.squeezed(1 / slowness))


def as_trained(race: Race, trial: Trial) -> Trial:
    """Return `trial` with the configuration that it trained in its time."""
    slowness = race.slowness_of(trial.configuration)
    return replace(trial, configuration=in_time(trial.configuration, slowness))
