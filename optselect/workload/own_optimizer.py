"""A look at the optimizer that a training brings with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch import nn
from torch.optim import Optimizer

from optselect.configuration.own_optimizer import OwnGroup, OwnOptimizer
from optselect.errors import UnsupportedModuleError
from optselect.optim.passes import passes
from optselect.parameters.names import named_parameters
from optselect.words import some
from optselect.workload.borrowed_model import BorrowedModel

_TOLD = ("lr", "weight_decay")


def left_out_by(workload: object) -> tuple[str, ...]:
    """Name the parameters that no plan for `workload` trains, beside the frozen ones."""
    # A workload of somebody else's may be older than the property.
    own: OwnOptimizer | None = getattr(workload, "own_optimizer", None)
    return () if own is None else own.left_out


def own_optimizer_of(
    borrowed: BorrowedModel, configure: Callable[[], tuple[Optimizer, Sequence[object]]]
) -> OwnOptimizer:
    """Look at the optimizer and the schedulers that `configure` makes: whatever it does to the model is undone.

    Raises `UnsupportedModuleError` where it trains what no other optimizer could be given.
    """
    borrowed.begin()
    model = borrowed.model
    trainable = {name for name, parameter in named_parameters(model) if parameter.requires_grad}
    optimizer, schedulers = configure()
    found = replace(
        _looked_at(model, optimizer, trainable),
        schedulers=tuple(type(each).__name__ for each in schedulers),
        one=configure()[0] is optimizer,
    )
    borrowed.begin()
    return found


def _looked_at(model: nn.Module, optimizer: Optimizer, trainable: set[str]) -> OwnOptimizer:
    names = {id(parameter): name for name, parameter in named_parameters(model)}
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if strangers := [parameter for parameter in trained if id(parameter) not in names]:
        raise UnsupportedModuleError(
            f"the training's own optimizer trains {len(strangers)} tensors that are no parameters of the model, so "
            "another optimizer could not be given them; register them in the model (self.layer = …, nn.ModuleList)"
        )
    if thawed := [names[id(each)] for each in trained if each.requires_grad and names[id(each)] not in trainable]:
        raise UnsupportedModuleError(
            f"the function that makes the training's own optimizer also unfreezes {some(thawed)}, which another "
            "optimizer would find frozen; set requires_grad in the model's __init__"
        )
    # A rate of 0 trains nothing. Where all have it somebody else sets the rates.
    still = {id(each) for group in optimizer.param_groups if _is_still(group) for each in group["params"]}
    moving = {id(parameter) for parameter in trained} - still
    moving = moving or still
    return OwnOptimizer(
        name=type(optimizer).__name__,
        groups=tuple(
            OwnGroup(
                parameters=tuple(names[id(parameter)] for parameter in group["params"]),
                hyperparameters={name: float(group[name]) for name in _TOLD if name in group},
            )
            for group in optimizer.param_groups
        ),
        left_out=tuple(name for key, name in names.items() if name in trainable and key not in moving),
        passes=passes(optimizer),
    )


def _is_still(group: Mapping[str, object]) -> bool:
    # A scheduler that warms up from 0 has put the rate aside.
    return group.get("lr") == 0.0 and group.get("initial_lr", 0.0) == 0.0
