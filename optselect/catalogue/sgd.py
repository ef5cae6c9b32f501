"""Stochastic gradient descent and its averaged form."""

from __future__ import annotations

from optselect.catalogue.spec import EITHER, OptimizerSpec, slots
from optselect.space import SearchSpace, choice, log_uniform, near_one

# Momentum and weight decay: the ranges of the AlgoPerf target-setting runs (arXiv:2306.07179).
# With momentum, .1 is where very different trainings agree: ImageNet ResNets (arXiv:1706.02677) and, measured
# here, a BatchNorm CNN in 200 steps and digits in 400. So, unlike Adam's, it does not move with the horizon.
_LR = log_uniform(1e-3, 5.0, centre=0.1)

# Without momentum each step counts once rather than ten times. Measured here on digits (400 steps): .3 to 1.
_PLAIN_LR = log_uniform(1e-3, 5.0, centre=0.3)
_DECAY = log_uniform(1e-7, 1e-3, centre=5e-5)

SGD = OptimizerSpec(
    name="sgd",
    summary="plain gradient descent: no state at all",
    factory="torch.optim:SGD",
    space=SearchSpace({"lr": _PLAIN_LR, "weight_decay": _DECAY}),
    sparse=True,
    state=slots(0),
    parts=EITHER,
    cites=("Robbins & Monro 1951, Annals of Mathematical Statistics 22(3)",),
)

MOMENTUM = OptimizerSpec(
    name="momentum",
    summary="SGD with momentum, Nesterov's by default",
    factory="torch.optim:SGD",
    space=SearchSpace(
        {
            "lr": _LR,
            "momentum": near_one(5e-3, 0.3, centre=0.9),
            "weight_decay": _DECAY,
            "nesterov": choice(True, False),
        }
    ),
    sparse=True,
    state=slots(1),
    parts=EITHER,
    cites=(
        "Sutskever et al. 2013, ICML (momentum and Nesterov's form of it)",
        "Goyal et al. 2017, arXiv:1706.02677 (lr .1 at batch 256)",
        "Dahl et al. 2023, arXiv:2306.07179 (search ranges)",
    ),
)

ASGD = OptimizerSpec(
    name="asgd",
    summary="SGD that also keeps the average of its iterates",
    factory="torch.optim:ASGD",
    # torch starts averaging at step t0 = 1,000,000 and never copies the average into the weights: within
    # shorter trainings the weights are those of plain SGD, decayed by lambd.
    space=SearchSpace({"lr": _PLAIN_LR, "weight_decay": _DECAY}),
    state=slots(1),
    parts=EITHER,
    cites=("Polyak & Juditsky 1992, SIAM Journal on Control and Optimization 30(4)",),
)

SPECS = (SGD, MOMENTUM, ASGD)
