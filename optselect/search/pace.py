"""How long a micro-batch takes, and how many of them there is time for."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from optselect.configuration import USER, Configuration, Trial
from optselect.search.race import Race
from optselect.search.transfer import carried_over


class Stopwatch:
    """Times stretches of the training of `model`."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._paces: list[float] = []

    @contextmanager
    def over(self, micro_batches: int) -> Iterator[None]:
        """Time what is done inside, a stretch of so many micro-batches; one that raises is left out."""
        _wait_for_device(self._model)
        begun = time.monotonic()
        yield
        _wait_for_device(self._model)
        self._paces.append((time.monotonic() - begun) / micro_batches)

    @property
    def pace(self) -> float | None:
        """Seconds per micro-batch, the median over the stretches (None: there was none).

        Without the first where there is another: it loads libraries and makes the optimizer's state.
        """
        paces = self._paces[1:] or self._paces
        return statistics.median(paces) if paces else None


def _wait_for_device(model: nn.Module) -> None:
    """Wait until the device of `model` has done what it was asked to: a clock sees only the asking."""
    parameter = next(model.parameters(), None)
    kind = "cpu" if parameter is None else parameter.device.type
    if parameter is not None and kind == "cuda":
        torch.cuda.synchronize(parameter.device)
    elif kind == "mps":
        torch.mps.synchronize()


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
