"""The whole profile of a training, at a cost stated beforehand."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from optselect.errors import ConfigurationError, UnsupportedModuleError
from optselect.parameters.anatomy import anatomy_of
from optselect.parameters.compilation import is_compiled
from optselect.parameters.execution import Execution, execution_recorded
from optselect.profile.data import profile_data
from optselect.profile.gradient import Backward, profile_gradient
from optselect.profile.model import profile_model, with_counts
from optselect.profile.sample import training_batches
from optselect.profile.values import Profile
from optselect.workload.own_optimizer import left_out_by
from optselect.workload.protocol import Workload
from optselect.workload.stopwatch import Stopwatch

MAX_PASSES = 32


def measure(workload: Workload, passes: int = 8, *, watch: Stopwatch | None = None) -> Profile:
    """Profile the data, the model and the gradients of `workload`, which comes back as it was.

    `passes` forward and backward passes, each on a batch of its own; 0 measures no gradients. The numbers of the
    data come from at most 2,000 rows, however many there are. `watch` times the passes. Raises `ConfigurationError` for
    `passes` outside 0 to 32, and `UnsupportedModuleError` when there is nothing to train.
    """
    if not 0 <= passes <= MAX_PASSES:
        raise ConfigurationError(f"a profile takes 0 to {MAX_PASSES} passes, but got passes={passes}")
    if passes and not any(parameter.requires_grad for parameter in workload.model.parameters()):
        raise UnsupportedModuleError.nothing_trains()
    with workload.borrowed():
        left_out = left_out_by(workload)
        batches, source = training_batches(workload.source(), passes)
        data = profile_data(source, batches=batches)
        # Before the gradients, whose forward passes move the BatchNorm statistics.
        model = profile_model(workload.model, left_out)
        execution = Execution.of(workload.model)
        backward = workload.backward if watch is None else _timed(workload.backward, watch)
        gradient = profile_gradient(
            workload.model,
            _recorded(backward, workload.model, execution),
            batches[:passes],
            batch_size=source.batch_size,
            left_out=left_out,
        )
        # Now it is known what runs last; and the first batch has told lazy modules their shapes.
        model = with_counts(model, anatomy_of(workload.model, order=execution.order, left_out=left_out))
        return Profile(data=data, model=model, gradient=gradient, steps=workload.steps, keeps_best=workload.keeps_best)


def _recorded(backward: Backward, model: nn.Module, execution: Execution) -> Backward:
    """Record each pass; of a compiled model the first, which runs as it is written, and none where that has no room."""
    once = is_compiled(model)

    def recorded(batch: Any) -> float:
        if once and execution.calls:
            return backward(batch)
        try:
            with execution_recorded(model, execution):
                return backward(batch)
        except torch.OutOfMemoryError:
            if not once:
                raise
        # Compiled passes keep less for the backward pass.
        execution.first.clear()
        execution.last.clear()
        for parameter in model.parameters():
            parameter.grad = None
        return backward(batch)

    return recorded


def _timed(backward: Backward, watch: Stopwatch) -> Backward:
    def timed(batch: Any) -> float:
        with watch.over(1):
            return backward(batch)

    return timed
