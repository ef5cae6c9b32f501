"""Adam and the variants that keep its two moments.

The centres are for about 800 steps from random weights; `optselect.rules.prior` moves them to the regime and
the horizon at hand. Measured here, 1e-3 is too low for up to 800 steps: on six small tasks without attention
the best rates of a half-decade grid have a geometric mean of .014 for NAdam and .02 for AdamW, with
attention .003; the centre is on the stable side of that. Published spaces stop at 1e-2, but short trainings
won at .03, so the bound is .1.
"""

from __future__ import annotations

from optselect.catalogue.spec import EITHER, OptimizerSpec, slots
from optselect.space import SearchSpace, log_uniform, near_one

_LR = log_uniform(1e-5, 1e-1, centre=8e-3)
_BETAS = {"beta1": near_one(4e-3, 0.5, centre=0.9), "beta2": near_one(1e-4, 0.3, centre=0.999)}

# Decoupled: the product lr · weight_decay has medians of 3e-5 to 3e-4 (raw data of arXiv:2604.15297), so
# 1e-4 / lr.
_DECOUPLED = log_uniform(1e-4, 1.0, centre=1e-4 / 8e-3)

# Added to the gradient it is divided by √v̂ too and soon does too much (arXiv:1711.05101): small, as for SGD.
_L2 = log_uniform(1e-7, 1e-2, centre=1e-5)

_ADAM = "Kingma & Ba 2015, arXiv:1412.6980"
_DECOUPLING = "Loshchilov & Hutter 2019, arXiv:1711.05101"

ADAM = OptimizerSpec(
    name="adam",
    summary="Adam, with L2 regularisation added to the gradient",
    factory="torch.optim:Adam",
    space=SearchSpace({"lr": _LR, **_BETAS, "weight_decay": _L2}),
    state=slots(2),
    parts=EITHER,
    cites=(_ADAM,),
)

AMSGRAD = OptimizerSpec(
    name="amsgrad",
    summary="Adam whose second moment never shrinks",
    factory="torch.optim:Adam",
    fixed={"amsgrad": True},
    space=SearchSpace({"lr": _LR, **_BETAS, "weight_decay": _L2}),
    state=slots(3),
    parts=EITHER,
    cites=("Reddi et al. 2018, arXiv:1904.09237",),
)

ADAMW = OptimizerSpec(
    name="adamw",
    summary="Adam with decoupled weight decay",
    factory="torch.optim:AdamW",
    space=SearchSpace({"lr": _LR, **_BETAS, "weight_decay": _DECOUPLED}),
    decoupled=True,
    state=slots(2),
    parts=EITHER,
    cites=(_DECOUPLING, _ADAM),
)

NADAM = OptimizerSpec(
    name="nadam",
    summary="Adam with Nesterov momentum and decoupled weight decay",
    factory="torch.optim:NAdam",
    fixed={"decoupled_weight_decay": True},
    space=SearchSpace({"lr": _LR, **_BETAS, "weight_decay": _DECOUPLED}),
    decoupled=True,
    state=slots(2),
    parts=EITHER,
    cites=(
        "Dozat 2016, ICLR workshop, openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ",
        "Dahl et al. 2023, arXiv:2306.07179 (5 of 8 AlgoPerf targets)",
    ),
)

RADAM = OptimizerSpec(
    name="radam",
    summary="Adam that rectifies the variance of its first steps, with decoupled weight decay",
    factory="torch.optim:RAdam",
    fixed={"decoupled_weight_decay": True},
    # Rectified steps are short for the first hundreds. Measured here on digits (400 steps): .01 to .03.
    space=SearchSpace({"lr": log_uniform(1e-5, 1e-1, centre=1e-2), **_BETAS, "weight_decay": _DECOUPLED}),
    decoupled=True,
    state=slots(2),
    parts=EITHER,
    cites=("Liu et al. 2020, arXiv:1908.03265",),
)

ADAMAX = OptimizerSpec(
    name="adamax",
    summary="Adam with the infinity norm in place of the second moment",
    factory="torch.optim:Adamax",
    # Its denominator is a running maximum, larger than Adam's root mean square: torch and the paper double
    # the lr.
    space=SearchSpace({"lr": log_uniform(1e-5, 1e-1, centre=6e-3), **_BETAS, "weight_decay": _L2}),
    state=slots(2),
    parts=EITHER,
    cites=(_ADAM,),
)

SPECS = (ADAM, AMSGRAD, ADAMW, NADAM, RADAM, ADAMAX)
