"""Optimizers that need the same loss twice: for data that fits one batch."""

from __future__ import annotations

from optselect.catalogue.spec import OptimizerSpec, slots
from optselect.space import SearchSpace, log_uniform

_HISTORY = 10

LBFGS = OptimizerSpec(
    name="lbfgs",
    summary="quasi-Newton with a strong Wolfe line search; evaluates the loss several times a step",
    factory="torch.optim:LBFGS",
    fixed={"line_search_fn": "strong_wolfe", "history_size": _HISTORY},
    # A quasi-Newton step has its natural length at 1, and the line search shortens it.
    space=SearchSpace({"lr": log_uniform(1e-1, 1.0, centre=1.0)}),
    # It flattens every gradient into one dense vector, sparse ones too.
    sparse=True,
    closure=True,
    decay=None,
    single_group=True,
    group_rates=False,
    schedulable=False,
    # Per step of the history the change of the gradient and of the weights; then a direction and a last
    # gradient.
    state=slots(2 * _HISTORY + 2),
    cost="closure",
    cites=("Liu & Nocedal 1989, Mathematical Programming 45", "Nocedal & Wright 2006, algorithm 7.4"),
)

RPROP = OptimizerSpec(
    name="rprop",
    summary="a step size per weight that grows and shrinks with the sign of its gradient; full batches only",
    factory="torch.optim:Rprop",
    # lr is only the first step size: each then adapts alone, so a schedule of lr changes nothing.
    space=SearchSpace({"lr": log_uniform(1e-5, 1e-1, centre=1e-3)}),
    decay=None,
    schedulable=False,
    state=slots(2),
    parts=("flat",),
    cites=("Riedmiller & Braun 1993, IEEE ICNN",),
)

SPECS = (LBFGS, RPROP)
