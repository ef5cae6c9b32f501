"""Borrowing a model: what a trial changes in it, and how all of it comes back.

Python attributes are not copied back after a trial: for the time of the search each module works on
*stand-ins* (deep copies) while the originals are kept untouched, and on leaving the originals return.
So an object that something else refers to is the same object with the same content afterwards.
Parameters and buffers are the other way round, because optimizers and DDP hold on to the tensors
themselves: they stay, and their contents are copied back.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from optselect.errors import UnsupportedModuleError
from optselect.parameters.names import named_parameters
from optselect.parameters.sharding import bookkeeping, bookkeeping_names, is_cut, keeps_its_attributes, local, settle
from optselect.workload.rng import RngState, rng_state, set_rng_state
from optselect.workload.shelf import BESIDE, Kept, Shelf
from optselect.workload.stored import NotPlainError, plain, unchanged, unplain

# A compiled wrapper keeps its compiler's state in these: caches, whose deep copies fail.
_COMPILER_CACHES = frozenset({"_orig_mod", "dynamo_ctx", "_compiled_call_impl"})
# What these hold is compared object by object, and its contents are stored apart.
_TENSOR_HOLDERS = frozenset({"_parameters", "_buffers", "_modules"})
_MAX_STATE_ENTRIES = 10_000
_ATOMIC = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, type)


@dataclass(frozen=True, kw_only=True)
class ModelState:
    """A model's parameters, buffers and Python attributes at one moment of one training.

    tensors   the parameters and buffers, and
    contents  what is here of each
    """

    tensors: tuple[torch.Tensor, ...]
    contents: Kept
    grads: tuple[tuple[nn.Parameter, bool, torch.Tensor | None], ...]
    attributes: tuple[tuple[nn.Module, dict[str, Any]], ...]
    rng: RngState


class BorrowedModel:
    """The model as it was when borrowed; starts trainings from there and puts everything back.

    `pinned` objects (a trainer, loggers) are shared by the stand-ins instead of copied; so are data
    sets, loaders, modules, parameters and buffers; for an object whose id is in `instead` they hold another one.
    Attributes named in `kept` are the module's own during trials too. What the model began with lies on `shelf`, paused
    trainings on `aside`; without a shelf the parameters are not put aside, so nothing may move them. Raises
    `UnsupportedModuleError`, before anything is changed, when an attribute of a module cannot be copied or a parameter
    has no shape yet.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        pinned: Iterable[object] = (),
        instead: Mapping[int, object] = MappingProxyType({}),
        kept: Iterable[str] = (),
        shelf: Shelf | None = BESIDE,
        aside: Shelf = BESIDE,
    ) -> None:
        _refuse_lazy(model)
        settle(model)
        self.model = model
        self._instead = dict(instead)
        self._torchs = bookkeeping_names(model)
        self._kept = _COMPILER_CACHES.union(kept, self._torchs)
        self._pins = [
            *pinned,
            *model.modules(),
            *model.parameters(),
            *model.buffers(),
            *_shared_objects(model),
            *bookkeeping(model),
            *self._instead.values(),
        ]
        self._originals = [
            (module, {name: value for name, value in vars(module).items() if not self._is_torchs(module, name)})
            for module in model.modules()
        ]
        memo = self._memo()
        self._pristine = tuple((module, _stand_ins(module, self._present(module), memo)) for module in model.modules())
        self._aside = aside
        self._cut = is_cut(model)
        self._start = self._read(self._pristine, shelf or BESIDE, [] if shelf is None else model.parameters())
        self._grad_contents = [(grad, grad.detach().clone()) for _, _, grad in self._start.grads if grad is not None]

    def begin(self) -> None:
        """Start from the borrowed weights, with gradients cleared and fresh stand-ins for all attributes."""
        memo = self._memo()
        attributes = tuple((module, copy.deepcopy(values, memo)) for module, values in self._pristine)
        self._write(replace(self._start, attributes=attributes))
        for parameter, requires_grad, _ in self._start.grads:
            parameter.requires_grad_(requires_grad)
            parameter.grad = None

    def pause(self) -> ModelState:
        """Return the present state. Attributes are handed over, not copied: the next `begin` makes new ones."""
        settle(self.model)
        return self._read(self._attributes_now(), self._aside, self.model.parameters())

    def resume(self, state: ModelState) -> None:
        """Go back to a paused state."""
        self._write(state)
        for parameter, requires_grad, grad in state.grads:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad

    @contextmanager
    def unmoved(self, but: Iterable[torch.Tensor] = ()) -> Iterator[None]:
        """Return to the present state on leaving, the contents of some buffers excepted.

        Attributes are stand-ins inside; one that cannot be copied is shared. The parameters of a model that is cut over
        processes have to stay as they are inside: where it is cut there is seldom room for one more of them.
        """
        settle(self.model)
        state = self._read(self._attributes_now(), BESIDE, [] if self._cut else self.model.parameters())
        memo = self._memo()
        memo.update((id(each), each) for each in (*self.model.modules(), *self.model.parameters()))
        memo.update((id(each), each) for each in self.model.buffers())
        left = frozenset(map(id, but))
        pairs = [pair for pair in zip(state.tensors, state.contents, strict=True) if id(pair[0]) not in left]
        tensors, contents = tuple(tensor for tensor, _ in pairs), [content for _, content in pairs]
        inside = tuple((module, _stand_ins(module, values, memo, share=True)) for module, values in state.attributes)
        self._write(replace(state, tensors=(), contents=(), attributes=inside))
        try:
            yield
        finally:
            self.resume(replace(state, tensors=tensors, contents=contents))

    def restore(self) -> None:
        """Put everything back as it was when borrowed: the same objects with the same contents."""
        settle(self.model)
        for module, values in self._originals:
            torchs = {name: value for name, value in vars(module).items() if self._is_torchs(module, name)}
            vars(module).clear()
            vars(module).update(torchs)
            vars(module).update(values)
        self._write(replace(self._start, attributes=()))
        for parameter, requires_grad, grad in self._start.grads:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad
        with torch.no_grad():
            for grad, content in self._grad_contents:
                grad.copy_(content)

    def store(self) -> dict[str, Any]:
        """Return the present state in builtins and tensors. Raises `NotPlainError` when these cannot say it."""
        settle(self.model)
        tensors = [*self.model.parameters(), *self.model.buffers()]
        writable = [tensor for tensor in tensors if _is_writable(tensor)]
        if list(map(id, writable)) != list(map(id, self._start.tensors)):
            raise NotPlainError("the model has other parameters or buffers than at first")
        pinned = frozenset(map(id, self._pins))
        attributes = []
        for module, before in self._pristine:
            now = self._present(module)
            if now.keys() != before.keys() and not now.keys() > before.keys():
                raise NotPlainError("an attribute is gone")
            changed = {
                name: value
                for name, value in now.items()
                if name not in _TENSOR_HOLDERS and not (name in before and unchanged(value, before[name], pinned))
            }
            attributes.append(plain(changed))
        return {
            "tensors": [local(tensor) for tensor in writable],
            "grads": [(p.requires_grad, p.grad) for p in self.model.parameters()],
            "attributes": attributes,
            "rng": rng_state().to_dict(),
        }

    def restore_stored(self, stored: dict[str, Any]) -> None:
        """Go back to a stored state, from the borrowed one."""
        self.begin()
        attributes = tuple(
            (module, {**self._present(module), **unplain(changed)})
            for (module, _), changed in zip(self._pristine, stored["attributes"], strict=True)
        )
        rng = RngState.from_dict(stored["rng"])
        grads = tuple((p, *saved) for p, saved in zip(self.model.parameters(), stored["grads"], strict=True))
        tensors, contents = self._start.tensors, stored["tensors"]
        self.resume(ModelState(tensors=tensors, contents=contents, grads=grads, attributes=attributes, rng=rng))

    def _present(self, module: nn.Module) -> dict[str, Any]:
        return {name: value for name, value in vars(module).items() if not self._is_kept(module, name)}

    def _is_kept(self, module: nn.Module, name: str) -> bool:
        return name in self._kept or self._is_torchs(module, name)

    def _is_torchs(self, module: nn.Module, name: str) -> bool:
        """Tell whether torch keeps there how it has cut the model over processes: that goes on from trial to trial."""
        return name in self._torchs or (name != "training" and keeps_its_attributes(module))

    def _memo(self) -> dict[int, Any]:
        return {**{id(pin): pin for pin in self._pins}, **self._instead}

    def _attributes_now(self) -> tuple[tuple[nn.Module, dict[str, Any]], ...]:
        return tuple((module, self._present(module)) for module in self.model.modules())

    def _read(
        self,
        attributes: tuple[tuple[nn.Module, dict[str, Any]], ...],
        shelf: Shelf,
        parameters: Iterable[nn.Parameter],
    ) -> ModelState:
        tensors = tuple(tensor for tensor in (*parameters, *self.model.buffers()) if _is_writable(tensor))
        return ModelState(
            tensors=tensors,
            contents=shelf.keep(tensors),
            grads=tuple((p, p.requires_grad, p.grad) for p in self.model.parameters()),
            attributes=attributes,
            rng=rng_state(),
        )

    def _write(self, state: ModelState) -> None:
        settle(self.model)
        for module, values in state.attributes:
            kept = {name: value for name, value in vars(module).items() if self._is_kept(module, name)}
            vars(module).clear()
            vars(module).update(kept)
            vars(module).update(values)
        with torch.no_grad():
            for tensor, content in zip(state.tensors, state.contents, strict=True):
                _put_back(tensor, content)
        set_rng_state(state.rng)


@contextmanager
def requires_grad_restored(model: nn.Module) -> Iterator[None]:
    """Leave every parameter as frozen, or not, as it was."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, requires_grad in before:
            parameter.requires_grad_(requires_grad)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode inside, and back into the mode it had afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def training_bytes(model: nn.Module, optimizers: Iterable[Optimizer] = ()) -> int:
    """Count the bytes in the parameters and buffers of `model` and in the states of `optimizers`, as far as here."""
    slots = (slot for optimizer in optimizers for state in optimizer.state.values() for slot in state.values())
    states = (slot for slot in slots if isinstance(slot, torch.Tensor))
    here = map(local, (*model.parameters(), *model.buffers(), *states))
    return sum(tensor.numel() * tensor.element_size() for tensor in here)


@contextmanager
def attributes_restored(owner: object) -> Iterator[None]:
    """Restore an object's attributes on leaving: the same objects, small builtin containers with the same content.

    Lists, dicts and sets are copied one level deep and refilled, so a counter, a cache or a queue that
    the object keeps is as it was; what they contain is taken to be immutable. Longer ones are data.
    """
    values = dict(vars(owner))
    contents = [
        (value, copy.copy(value))
        for value in values.values()
        if type(value) in (list, dict, set) and len(value) <= _MAX_STATE_ENTRIES
    ]
    try:
        yield
    finally:
        vars(owner).clear()
        vars(owner).update(values)
        for container, content in contents:
            container.clear()
            container.extend(content) if isinstance(container, list) else container.update(content)


def _stand_ins(
    module: nn.Module, present: dict[str, Any], memo: dict[int, Any], *, share: bool = False
) -> dict[str, Any]:
    copies: dict[str, Any] = {}
    for name, value in present.items():
        if isinstance(value, _ATOMIC):
            copies[name] = value
        else:
            try:
                memo.update((id(tensor), tensor.detach().clone()) for tensor in _with_history(value))
                copies[name] = copy.deepcopy(value, memo)
            except Exception as error:
                if share:
                    copies[name] = value
                    continue
                raise UnsupportedModuleError(
                    f"{type(module).__name__}.{name} ({type(value).__name__}) cannot be copied ({error}), so trials "
                    "could not be undone; create it lazily outside the module, or give the class a __deepcopy__"
                ) from error
    return copies


def _shared_objects(model: nn.Module) -> list[object]:
    """List what modules hold and stand-ins share: data sets and loaders, whose copies could be huge, and imports."""
    return [
        value
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Dataset | DataLoader | types.ModuleType)
    ]


def _put_back(tensor: torch.Tensor, content: torch.Tensor) -> None:
    part = local(tensor)
    if part.shape == content.shape and part.dtype == content.dtype:
        # From pinned memory the device copies by itself, before what it is asked to do next.
        part.copy_(content, non_blocking=part.is_cuda)
    else:
        # Resized in place, as the observers of quantization-aware training do with their buffers.
        tensor.data = content.clone()


def _refuse_lazy(model: nn.Module) -> None:
    lazy = [name for name, parameter in named_parameters(model) if is_lazy(parameter)]
    if lazy:
        raise UnsupportedModuleError(
            f"{', '.join(lazy[:5])} {'has' if len(lazy) == 1 else 'have'} no shape yet, so there is nothing to put "
            "back after a trial; run the model on one batch first"
        )


def _is_writable(tensor: torch.Tensor) -> bool:
    """Tell whether its content can have changed: not on the meta device, nor where entries share memory."""
    shared = tensor.layout is torch.strided and any(
        size > 1 and stride == 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    return tensor.device.type != "meta" and not shared


def _with_history(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in `value` that autograd computed: they refuse to be copied, so trials work on plain copies."""
    if isinstance(value, torch.Tensor):
        if not value.is_leaf:
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _with_history(item)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _with_history(item)
