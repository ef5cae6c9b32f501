"""Optimizers with a training and an evaluation mode: schedule-free ones keep two sets of weights.

In training mode the parameters are where gradients are taken, in evaluation mode they are the averaged
ones that should be judged, saved and used (Defazio et al. 2024, arXiv:2405.15682).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch.optim import Optimizer


def to_training(optimizers: Iterable[Optimizer]) -> None:
    """Switch those that have modes to training."""
    for optimizer in optimizers:
        if has_modes(optimizer):
            optimizer.train()  # type: ignore[attr-defined]  # asked for in has_modes


def ready_for_a_step(optimizers: Iterable[Optimizer]) -> None:
    """Switch those that have modes, and have made no step, to training; they still count as untouched.

    Switching leaves an empty state for each parameter, by which torch takes an optimizer for one that has begun.
    """
    for optimizer in optimizers:
        if has_modes(optimizer):
            to_training([optimizer])
            for parameter in [each for each, slots in optimizer.state.items() if not slots]:
                del optimizer.state[parameter]


def to_evaluation(optimizers: Iterable[Optimizer]) -> None:
    """Switch those that have modes to evaluation."""
    for optimizer in optimizers:
        if has_modes(optimizer):
            optimizer.eval()  # type: ignore[attr-defined]  # asked for in has_modes


@contextmanager
def evaluated(optimizers: Iterable[Optimizer]) -> Iterator[None]:
    """Switch to evaluation mode inside, and to training mode afterwards, with the same weights to the bit."""
    switched = [optimizer for optimizer in optimizers if has_modes(optimizer)]
    groups = (group for optimizer in switched for group in optimizer.param_groups)
    # There and back they interpolate, and round.
    weights = [(parameter, parameter.detach().clone()) for group in groups for parameter in group["params"]]
    to_evaluation(switched)
    try:
        yield
    finally:
        to_training(switched)
        with torch.no_grad():
            for parameter, weight in weights:
                parameter.copy_(weight)


def has_modes(optimizer: Optimizer) -> bool:
    """Tell whether it has both `train` and `eval`, and uses them: one made of others may say that it does not."""
    both = callable(getattr(optimizer, "train", None)) and callable(getattr(optimizer, "eval", None))
    return both and bool(getattr(optimizer, "has_modes", True))
