"""A sharded model as its plan knows it: whole parameters, by the names they had before they were wrapped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optselect import catalogue
from optselect.building.optimizer import build_groups, refused_values
from optselect.errors import PlanMismatchError, UnsupportedModuleError
from optselect.plan import OptimizerPlan

# What FSDPStrategy puts into the names of what it wraps. Where FSDP is not, a wrapper is the user's own, and the
# plan knows the parameters by its name.
_FSDP = "_fsdp_wrapped_module."
_CHECKPOINTED = "_checkpoint_wrapped_module."


@dataclass(frozen=True, kw_only=True)
class _Whole:
    """A parameter as it was before it was sharded."""

    shape: tuple[int, ...]
    requires_grad: bool


class Unwrapped:
    """The parameters of a module by their own names; `whole`: their shapes instead of the shards that are here."""

    def __init__(self, module: nn.Module, *, whole: bool = False) -> None:
        self._module = module
        self._whole = whole

    def named_parameters(self) -> Iterator[tuple[str, Any]]:
        """Yield the parameters as a module gives them."""
        shapes = dict(_flat_shapes(self._module))
        parameters = list(self._module.named_parameters())
        wrappers = (_FSDP, _CHECKPOINTED) if any(_FSDP in name for name, _ in parameters) else ()
        for name, parameter in parameters:
            for wrapper in wrappers:
                name = name.replace(wrapper, "")  # noqa: PLW2901  # the same name, more of it taken off
            # DeepSpeed's shards know their whole shape; DTensors have no other.
            shape = shapes.get(id(parameter), getattr(parameter, "ds_shape", parameter.shape))
            yield name, _Whole(shape=tuple(shape), requires_grad=parameter.requires_grad) if self._whole else parameter


def check_fits(plan: OptimizerPlan, module: nn.Module) -> None:
    """Raise `PlanMismatchError`, naming the parameters, unless `plan` is for `module`, sharded or not.

    And `PlanFormatError` for one from which nothing can be built.
    """
    plan.check(to_build=True)
    plan.model_fingerprint.check(Unwrapped(module, whole=True))


def fits(plan: OptimizerPlan, module: nn.Module) -> bool:
    """Tell whether `plan` is for `module`, sharded or not."""
    try:
        check_fits(plan, module)
    except PlanMismatchError:
        return False
    return True


def build_on(plan: OptimizerPlan, module: nn.Module, *, thawed: int = 0) -> tuple[Optimizer, LRScheduler | None]:
    """Build the optimizer and scheduler of `plan` on the parameters, or shards of them, that are here.

    `thawed`: see `OptimizerPlan.build`. Raises `UnsupportedModuleError` for an optimizer that sees matrices where
    FSDP left only pieces of vectors.
    """
    flat = bool(dict(_flat_shapes(module)))
    if flat and (blind := sorted({g.optimizer for g in plan.param_groups if _sees_shapes(g.optimizer)})):
        raise UnsupportedModuleError(
            f"{' and '.join(blind)} treats a weight as a matrix, and FSDP has cut the weights into flat pieces; "
            "use ModelParallelStrategy, which keeps their shape, or a plan for another optimizer"
        )
    model = cast("nn.Module", Unwrapped(module))
    with refused_values(plan):
        return build_groups(plan.param_groups, plan.schedule, model, plan.total_steps, thawed=thawed)


def _sees_shapes(optimizer: str) -> bool:
    spec = catalogue.get(optimizer)
    return spec.cost == "matrix" or spec.ndim is not None or optimizer == "adafactor"


def _flat_shapes(module: nn.Module) -> Iterable[tuple[int, tuple[int, ...]]]:
    """Yield the whole shape of each parameter that FSDP's first version has put into a flat one, by the shard's id."""
    for part in module.modules():
        flat = getattr(part, "_flat_param", None)
        for shard, shape in zip(getattr(flat, "_params", None) or (), getattr(flat, "_shapes", ()), strict=False):
            yield id(shard), tuple(shape)
