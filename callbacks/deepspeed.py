"""What DeepSpeed makes of the optimizer that it is given."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

from optselect import catalogue
from optselect.callbacks.other_callbacks import is_named
from optselect.errors import UnsupportedModuleError
from optselect.optim.modes import has_modes
from optselect.plan import OptimizerPlan


def check_under_deepspeed(strategy: Any, plan: OptimizerPlan, optimizer: Optimizer) -> None:
    """Raise `UnsupportedModuleError` under DeepSpeed for an optimizer that its flat pieces make another one of.

    Its ZeRO stages give the optimizer flat copies of the weights, which it writes back after a step: matrices are gone,
    and weights that an optimizer switches beside its steps never reach the model.
    """
    if not is_named(strategy, "DeepSpeedStrategy"):
        return
    names = sorted({group.optimizer for group in plan.param_groups})
    specs = map(catalogue.get, names)
    blind = [spec.name for spec in specs if spec.cost == "matrix" or spec.ndim is not None or spec.name == "adafactor"]
    if blind or has_modes(optimizer):
        why = "treats a weight as a matrix" if blind else "switches weights between training and evaluation"
        raise UnsupportedModuleError(
            f"{' and '.join(blind or names)} {why}, and DeepSpeed trains flat copies of the weights; use "
            "ModelParallelStrategy, which keeps them, or a plan for another optimizer"
        )


def inside(optimizer: Any) -> Optimizer:
    """Return the optimizer that DeepSpeed has wrapped; any other as it is."""
    wrapped = type(optimizer).__module__.partition(".")[0] == "deepspeed" and hasattr(optimizer, "optimizer")
    found: Optimizer = optimizer.optimizer if wrapped else optimizer
    return found
