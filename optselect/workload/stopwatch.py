"""How long a training takes for a micro-batch, by a clock that waits for the device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


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
