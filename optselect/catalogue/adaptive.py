"""Step sizes per coordinate from one running statistic: RMSprop, Adagrad, Adadelta, Adafactor."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optselect.catalogue.spec import EITHER, OptimizerSpec, slots
from optselect.space import SearchSpace, log_uniform, near_one

_L2 = log_uniform(1e-7, 1e-2, centre=1e-5)

RMSPROP = OptimizerSpec(
    name="rmsprop",
    summary="gradients divided by their running root mean square",
    factory="torch.optim:RMSprop",
    # torch's default of 1e-2 was worse than AdamW(1e-3) on five of ten tasks measured here; 3e-4 won the
    # smallest.
    space=SearchSpace(
        {
            "lr": log_uniform(1e-5, 1e-1, centre=2e-3),
            "alpha": near_one(1e-3, 0.1, centre=0.99),
            "weight_decay": _L2,
        }
    ),
    state=slots(1),
    parts=EITHER,
    cites=("Tieleman & Hinton 2012, Coursera lecture 6.5", "Graves 2013, arXiv:1308.0850"),
)

ADAGRAD = OptimizerSpec(
    name="adagrad",
    summary="gradients divided by the root of all their squares so far; trains sparse gradients",
    factory="torch.optim:Adagrad",
    # The sum only grows, so steps shrink by themselves. Measured here: .3 won on a bag of sparse embeddings.
    space=SearchSpace({"lr": log_uniform(1e-3, 1.0, centre=3e-2), "weight_decay": _L2}),
    sparse=True,
    state=slots(1),
    parts=EITHER,
    cites=("Duchi et al. 2011, JMLR 12",),
)

ADADELTA = OptimizerSpec(
    name="adadelta",
    summary="the ratio of running update and gradient sizes replaces the learning rate",
    factory="torch.optim:Adadelta",
    space=SearchSpace(
        {
            "lr": log_uniform(1e-1, 1e1, centre=1.0),
            "rho": near_one(1e-3, 0.3, centre=0.9),
            "weight_decay": _L2,
        }
    ),
    state=slots(2),
    parts=EITHER,
    cites=("Zeiler 2012, arXiv:1212.5701",),
)


def _factored(shape: Sequence[int], itemsize: int) -> int:
    """Count one number per row and per column of the last two dimensions; one per element of a vector."""
    numbers = math.prod(shape)
    if len(shape) >= 2:
        numbers = numbers // shape[-1] + numbers // shape[-2]
    return numbers * itemsize


ADAFACTOR = OptimizerSpec(
    name="adafactor",
    summary="a second moment kept as row and column means: almost no state",
    factory="torch.optim:Adafactor",
    # Steps are relative to the root mean square of the weights, hence a larger lr than Adam's.
    # Measured here on digits (400 steps): .03 to .1.
    space=SearchSpace(
        {
            "lr": log_uniform(1e-4, 0.3, centre=3e-2),
            "weight_decay": log_uniform(1e-4, 1.0, centre=1e-2),
        }
    ),
    decoupled=True,
    complex=False,
    state=_factored,
    cites=("Shazeer & Stern 2018, arXiv:1804.04235",),
)

SPECS = (RMSPROP, ADAGRAD, ADADELTA, ADAFACTOR)
