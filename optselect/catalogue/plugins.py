"""Optimizers from other packages: `pip install 'optselect[plugins]'`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optselect.catalogue.spec import EITHER, OptimizerSpec, slots
from optselect.space import SearchSpace, log_uniform, near_one

_DECOUPLED = log_uniform(1e-4, 1.0, centre=3e-2)

SCHEDULEFREE_ADAMW = OptimizerSpec(
    name="schedulefree_adamw",
    summary="AdamW whose averaged iterates replace the decay of the learning rate",
    factory="schedulefree:AdamWScheduleFree",
    space=SearchSpace(
        {
            "lr": log_uniform(1e-4, 1e-1, centre=5e-3),
            "beta1": near_one(1e-2, 0.3, centre=0.9),
            "beta2": near_one(1e-4, 0.3, centre=0.9955),
            "weight_decay": _DECOUPLED,
        }
    ),
    decoupled=True,
    train_eval=True,
    schedulable=False,
    state=slots(2),
    extra="plugins",
    parts=EITHER,
    cites=(
        "Defazio et al. 2024, arXiv:2405.15682",
        "Kasimbeg et al. 2025, arXiv:2502.15015 (AlgoPerf centre)",
    ),
)

SCHEDULEFREE_SGD = OptimizerSpec(
    name="schedulefree_sgd",
    summary="SGD whose averaged iterates replace the decay of the learning rate",
    factory="schedulefree:SGDScheduleFree",
    # Its authors advise 10 to 50 times the lr of SGD with momentum.
    space=SearchSpace(
        {
            "lr": log_uniform(1e-2, 5e1, centre=1.0),
            "momentum": near_one(1e-2, 0.3, centre=0.9),
            "weight_decay": log_uniform(1e-7, 1e-3, centre=5e-5),
        }
    ),
    sparse=True,
    train_eval=True,
    schedulable=False,
    state=slots(1),
    extra="plugins",
    parts=EITHER,
    cites=("Defazio et al. 2024, arXiv:2405.15682",),
)

PRODIGY = OptimizerSpec(
    name="prodigy",
    summary="Adam that estimates its own learning rate",
    factory="prodigyopt:Prodigy",
    # lr stays 1: it multiplies the estimated step size, which d_coef steers. Without the safeguard a warmup
    # inflates the estimate.
    fixed={"lr": 1.0, "safeguard_warmup": True},
    space=SearchSpace(
        {
            "d_coef": log_uniform(0.5, 2.0, centre=1.0),
            "weight_decay": _DECOUPLED,
        }
    ),
    decoupled=True,
    complex=False,
    group_rates=False,
    schedulable=False,
    state=slots(4),
    extra="plugins",
    cites=("Mishchenko & Defazio 2024, arXiv:2306.06101",),
)

LION = OptimizerSpec(
    name="lion",
    summary="the sign of an interpolated momentum",
    factory="pytorch_optimizer:Lion",
    # A sign update has unit size in every coordinate, so the paper divides AdamW's lr by 3 to 10 and
    # multiplies its weight decay by as much.
    space=SearchSpace(
        {
            "lr": log_uniform(1e-5, 1e-2, centre=1e-3),
            "beta1": near_one(1e-2, 0.3, centre=0.95),
            "beta2": near_one(1e-3, 0.1, centre=0.98),
            "weight_decay": log_uniform(1e-2, 1e1, centre=0.1),
        }
    ),
    decoupled=True,
    state=slots(1),
    extra="plugins",
    parts=EITHER,
    cites=("Chen et al. 2023, arXiv:2302.06675",),
)


def _kronecker(shape: Sequence[int], itemsize: int) -> int:
    """Count two moments, and per dimension of at most 10,000 a second-moment matrix with its eigenvectors.

    The package preconditions no 1-D parameter by default.
    """
    squares = sum(2 * side * side for side in shape if side <= 10_000) if len(shape) >= 2 else 0
    return (2 * math.prod(shape) + squares) * itemsize


SOAP = OptimizerSpec(
    name="soap",
    summary="Adam in the eigenbasis of Shampoo's preconditioner",
    factory="pytorch_optimizer:SOAP",
    # The paper's 3e-3 is for thousands of steps; measured here on digits (400 steps): .01.
    space=SearchSpace(
        {
            "lr": log_uniform(3e-5, 1e-1, centre=5e-3),
            "beta1": near_one(1e-2, 0.3, centre=0.95),
            "beta2": near_one(1e-3, 0.3, centre=0.95),
            "weight_decay": _DECOUPLED,
        }
    ),
    decoupled=True,
    complex=False,
    state=_kronecker,
    cost="matrix",
    extra="plugins",
    cites=("Vyas et al. 2025, arXiv:2409.11321",),
)

ADEMAMIX = OptimizerSpec(
    name="ademamix",
    summary="AdamW with a second, much slower momentum",
    factory="pytorch_optimizer:AdEMAMix",
    # The package's default is L2; the paper's weight decay is decoupled.
    fixed={"weight_decouple": True},
    space=SearchSpace(
        {
            "lr": log_uniform(1e-5, 1e-1, centre=2e-3),
            "beta1": near_one(1e-2, 0.5, centre=0.8),
            "beta2": near_one(1e-4, 0.3, centre=0.995),
            "beta3": near_one(1e-5, 1e-2, centre=0.9995),
            "alpha": log_uniform(1.0, 10.0, centre=8.0),
            "weight_decay": _DECOUPLED,
        }
    ),
    decoupled=True,
    complex=False,
    state=slots(3),
    extra="plugins",
    parts=EITHER,
    cites=("Pagliardini et al. 2024, arXiv:2409.03137",),
)

SPECS = (SCHEDULEFREE_ADAMW, SCHEDULEFREE_SGD, PRODIGY, LION, SOAP, ADEMAMIX)
