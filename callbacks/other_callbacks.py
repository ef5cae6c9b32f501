"""What the trainer's other callbacks mean for a search."""

from __future__ import annotations

import re
from typing import Any

from optselect.configuration.goal import Mode

# As packages and users call theirs: EMA, EMACallback, ModelEma, ExponentialMovingAverage, WeightAverage.
_AVERAGES = re.compile(r"(^|[a-z])E(MA|ma)(?![a-z])|(Moving|Weight|Model)Averag")


def is_named(callback: object, *names: str) -> bool:
    """Tell whether `callback` is of a class so named: as `lightning` or as `pytorch_lightning` imports it."""
    return any(kind.__name__ in names for kind in type(callback).__mro__)


def is_tuning(callback: object) -> bool:
    """Tell whether it is the callback of `Tuner.lr_find` or `Tuner.scale_batch_size`, which ends the fit."""
    return bool(getattr(callback, "_early_exit", False))


def leaves_length_open(callback: Any) -> bool:
    """Tell whether the steps to come cannot be known with it: a time limit, or an accumulation that changes."""
    # A timer without a duration only tells the time.
    timed = is_named(callback, "Timer") and callback.time_remaining() is not None
    return timed or is_named(callback, "GradientAccumulationScheduler")


def averages_weights(callback: Any) -> str | None:
    """How what the training validates, or ends with, differs from the weights that it trains; None: it does not.

    Trials have no callbacks, and are judged by the weights that they train, or the averages that they know how to keep.
    """
    name = type(callback).__name__
    if is_named(callback, "StochasticWeightAveraging"):
        return (
            f"trials were judged by the weights they trained, and without the rates of {name}, which ends on averages"
        )
    if is_named(callback, "WeightAveraging") or _AVERAGES.search(name):
        return f"trials were judged by the weights they trained; {name} lets the training validate averages of them"
    return None


def keeps_best(callback: Any, monitor: str, mode: Mode) -> bool:
    """Tell whether it keeps the weights of the best value of `monitor`, not the last ones."""
    if is_named(callback, "ModelCheckpoint"):
        return bool((callback.monitor, callback.mode) == (monitor, mode) and callback.save_top_k != 0)
    return is_named(callback, "EarlyStopping") and (callback.monitor, callback.mode) == (monitor, mode)
