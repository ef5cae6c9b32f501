"""Names of modules and parameters as they are in the model that was written, whatever torch has put around it.

`torch.compile(module)` gives a wrapper that holds the module under a name of its own, and puts that name into those of
all parameters inside; so do FSDP's first version and activation checkpointing. Plans, patterns and studies do without
them, so that they serve all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from torch import nn

WRAPPED = "_orig_mod"
"""Under which a compiled wrapper holds the module that it was made of."""

# The same of FSDP's first version and of activation checkpointing. They take them out of state dicts themselves.
_AROUND = (WRAPPED, "_fsdp_wrapped_module", "_checkpoint_wrapped_module")

P_co = TypeVar("P_co", covariant=True)


class HasParameters(Protocol[P_co]):
    """A module, or what stands for one."""

    def named_parameters(self) -> Iterable[tuple[str, P_co]]:
        """Yield the parameters by their names."""
        ...


def own_name(name: str) -> str:
    """Return `net.0.weight` for `net._orig_mod.0.weight`."""
    if not any(around in name for around in _AROUND):
        return name
    return ".".join(part for part in name.split(".") if part not in _AROUND)


def named_parameters(model: HasParameters[P_co]) -> Iterator[tuple[str, P_co]]:
    """Yield what `model.named_parameters()` does, by the own names."""
    for name, parameter in model.named_parameters():
        yield own_name(name), parameter


def named_modules(model: nn.Module, *, remove_duplicate: bool = True) -> Iterator[tuple[str, nn.Module]]:
    """Yield what `model.named_modules()` does, by the own names and without wrappers."""
    for name, module in model.named_modules(remove_duplicate=remove_duplicate):
        if not is_wrapper(module):
            yield own_name(name), module


def named_children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the children of `module`, and for a wrapper what it was made of."""
    for name, child in module.named_children():
        yield name, unwrapped(child)


def unwrapped(module: nn.Module) -> nn.Module:
    """Return what a wrapper was made of; any other module as it is."""
    while (within := _within(module)) is not None:
        module = within[1]
    return module


def is_wrapper(module: nn.Module) -> bool:
    """Tell whether `module` is what `torch.compile(module)` gives, or another wrapper of torch's."""
    return _within(module) is not None


def name_in(model: nn.Module, name: str) -> str:
    """Return what the state dict of `model` calls `name`, which may be of the same model compiled otherwise."""
    found: list[str] = []
    module: nn.Module | None = model
    for part in own_name(name).split("."):
        while module is not None and (within := _within(module)) is not None:
            around, module = within
            found += [around] if around == WRAPPED else []
        found.append(part)
        module = None if module is None else _held(module).get(part)
    return ".".join(found)


def _within(module: nn.Module) -> tuple[str, nn.Module] | None:
    """Return the module inside a wrapper, and the name it has there; None: `module` is none."""
    held = _held(module)
    return next(((around, held[around]) for around in _AROUND if around in held), None)


def _held(module: nn.Module) -> dict[str, nn.Module]:
    # Under all names: named_children leaves out what stands under a second one.
    held: dict[str, nn.Module] = vars(module)["_modules"]
    return held
