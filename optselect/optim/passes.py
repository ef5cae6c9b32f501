"""Forward and backward passes that one step of an optimizer takes."""

from __future__ import annotations

from torch.optim import LBFGS, Optimizer


def passes(optimizer: Optimizer) -> int:
    """Count the forward and backward passes that one step may take.

    `torch.optim.LBFGS` evaluates the loss up to `max_eval` times, any other optimizer once. Gradients at a second point
    (as SAM takes them) cannot be seen from outside, and are not counted.
    """
    return max(int(optimizer.param_groups[0]["max_eval"]), 1) if isinstance(optimizer, LBFGS) else 1
