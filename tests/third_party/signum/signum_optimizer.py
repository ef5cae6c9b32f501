"""Signum: the sign of a momentum (Bernstein et al. 2018, arXiv:1802.04434)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer

from optselect.catalogue import OptimizerSpec, slots
from optselect.space import SearchSpace, log_uniform, near_one


class Signum(Optimizer):
    """Each weight moves by `lr` against the sign of its momentum, and shrinks by `lr * weight_decay`."""

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch overloads it
        """One step; the loss when there is a closure to evaluate it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.grad.is_sparse:
                    raise RuntimeError("Signum does not support sparse gradients")
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(state["momentum"].sign(), alpha=group["lr"])
        return loss


SIGNUM = OptimizerSpec(
    name="signum",
    summary="the sign of a momentum",
    factory="signum_optimizer:Signum",
    # A step has the size lr in every weight, as Adam's at most: hence a third of Adam's centre.
    space=SearchSpace(
        {
            "lr": log_uniform(1e-5, 1e-1, centre=1e-3),
            "momentum": near_one(1e-2, 0.3, centre=0.9),
            "weight_decay": log_uniform(1e-4, 1.0, centre=1e-2),
        }
    ),
    complex=False,  # a complex number has no sign
    decoupled=True,
    state=slots(1),
    cites=("Bernstein et al. 2018, arXiv:1802.04434",),
)

SPECS = (SIGNUM,)
