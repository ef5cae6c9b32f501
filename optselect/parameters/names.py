"""Names of modules and parameters as they are in the model that was written, whether it is compiled or not.

`torch.compile(module)` gives a wrapper that holds the module under a name of its own, and puts that name into those of
all parameters inside. Plans, patterns and studies do without it, so that they serve both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from torch import nn

WRAPPED = "_orig_mod"
"""Under which a compiled wrapper holds the module that it was made of."""

P_co = TypeVar("P_co", covariant=True)


class HasParameters(Protocol[P_co]):
    """A module, or what stands for one."""

    def named_parameters(self) -> Iterable[tuple[str, P_co]]:
        """Yield the parameters by their names."""
        ...


def own_name(name: str) -> str:
    """Return `net.0.weight` for `net._orig_mod.0.weight`."""
    return ".".join(part for part in name.split(".") if part != WRAPPED) if WRAPPED in name else name


def named_parameters(model: HasParameters[P_co]) -> Iterator[tuple[str, P_co]]:
    """Yield what `model.named_parameters()` does, by the own names."""
    for name, parameter in model.named_parameters():
        yield own_name(name), parameter


def named_modules(model: nn.Module, *, remove_duplicate: bool = True) -> Iterator[tuple[str, nn.Module]]:
    """Yield what `model.named_modules()` does, by the own names and without compiled wrappers."""
    for name, module in model.named_modules(remove_duplicate=remove_duplicate):
        if not is_wrapper(module):
            yield own_name(name), module


def named_children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the children of `module`, and for a compiled wrapper what it was made of."""
    for name, child in module.named_children():
        yield name, unwrapped(child)


def unwrapped(module: nn.Module) -> nn.Module:
    """Return what a compiled wrapper was made of; any other module as it is."""
    while is_wrapper(module):
        module = _held(module)[WRAPPED]
    return module


def is_wrapper(module: nn.Module) -> bool:
    """Tell whether `module` is what `torch.compile(module)` gives."""
    return WRAPPED in _held(module)


def name_in(model: nn.Module, name: str) -> str:
    """Return what the state dict of `model` calls `name`, which may be of the same model compiled otherwise."""
    found: list[str] = []
    module: nn.Module | None = model
    for part in own_name(name).split("."):
        while module is not None and is_wrapper(module):
            found.append(WRAPPED)
            module = _held(module)[WRAPPED]
        found.append(part)
        module = None if module is None else _held(module).get(part)
    return ".".join(found)


def _held(module: nn.Module) -> dict[str, nn.Module]:
    # Under all names: named_children leaves out what stands under a second one.
    held: dict[str, nn.Module] = vars(module)["_modules"]
    return held
