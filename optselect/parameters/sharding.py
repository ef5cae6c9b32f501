"""Parameters that are cut over processes: as they were before, by whole names and shapes, and the parts that are here.

FSDP's first version cuts a stretch of flattened parameters into equal parts; what it leaves of a weight is a vector,
perhaps an empty one. FSDP2 and tensor parallelism keep DTensors, which know their whole shape. Where a function says
that it is collective, all processes call it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from optselect.parameters.names import named_parameters, unwrapped


@dataclass(frozen=True, kw_only=True)
class Shard:
    """How one parameter is cut.

    shape  of the whole
    parts  processes that hold a part of it each (1: each of them has it all)
    flat   whether the part is a stretch of the flattened weight
    group  of the processes that hold the parts of a flat one (None: all)
    """

    shape: tuple[int, ...]
    parts: int = 1
    flat: bool = False
    group: Any = None

    @property
    def numel(self) -> int:
        """Scalars in the whole."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """How the parameters of one model are cut over processes.

    model       the model as it was before: its modules by their own names, with whole shapes. Where that is not the
                model itself its parameters are on the meta device
    parameters  the real ones, or the parts of them that are here, by their own names
    shards      how each is cut, by name; empty where the model is not cut at all
    """

    model: nn.Module
    parameters: Mapping[str, nn.Parameter]
    shards: Mapping[str, Shard] = field(default_factory=dict)
    _names: Mapping[int, str] = field(default_factory=dict, repr=False)

    @property
    def is_cut(self) -> bool:
        """Whether a process holds less than the model."""
        return bool(self.shards)

    @property
    def is_flat(self) -> bool:
        """Whether what a process holds of a parameter is a stretch of a vector."""
        return any(shard.flat for shard in self.shards.values())

    def ndim(self, name: str) -> int:
        """Dimensions of the whole parameter."""
        return len(self.shards[name].shape) if self.is_cut else self.parameters[name].ndim

    def total(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sum over all processes what each measured on its parts, by parameter; a plain copy where nothing is cut.

        Each has the same names with values of the same shape. Collective.
        """
        if not self.is_cut or not parts:
            return dict(parts)
        processes = torch.distributed.get_world_size()
        # What several processes hold alike counts once.
        shares = ((part.double().cpu(), self.shards[name].parts / processes) for name, part in parts.items())
        values = torch.stack([part * share for part, share in shares])
        return dict(zip(parts, summed(values), strict=True))

    def mean(self, value: float) -> float:
        """Return the mean of `value` over all processes; where nothing is cut that of this one. Collective."""
        if not self.is_cut:
            return value
        return float(summed(torch.tensor(value, dtype=torch.float64))) / torch.distributed.get_world_size()

    def read(self, parameter: Tensor) -> Tensor:
        """Return the content of a parameter of `model`: of one that is cut put together, for as long as it is held.

        Collective.
        """
        name = self._names.get(id(parameter))
        if name is None or name not in self.shards:
            return parameter.detach()
        return put_together(self.parameters[name].detach(), self.shards[name])


def sharding_of(model: nn.Module) -> Sharding:
    """Find out how the parameters of `model` are cut, if they are."""
    named = list(named_parameters(model))
    flat = dict(_flat_shards(model))
    shards = {name: flat.get(id(parameter)) or _shard(parameter) for name, parameter in named}
    if all(shard is None for shard in shards.values()):
        return Sharding(model=model, parameters=dict(named))
    told = {name: shard or Shard(shape=tuple(dict(named)[name].shape)) for name, shard in shards.items()}
    if is_wrapped(model) or any(hasattr(parameter, "ds_shape") for _, parameter in named):
        model = _as_before(model, {id(parameter): told[name].shape for name, parameter in named})
    names = {id(parameter): name for name, parameter in named_parameters(model)}
    return Sharding(model=model, parameters=dict(named), shards=told, _names=names)


def whole(model: nn.Module) -> nn.Module:
    """Return `model` as it was before it was cut over processes: itself, or a likeness with whole names and shapes."""
    return sharding_of(model).model


def is_wrapped(model: nn.Module) -> bool:
    """Tell whether FSDP's first version has wrapped `model` or something in it."""
    wrapper = _wrapper()
    return wrapper is not None and any(isinstance(module, wrapper) for module in model.modules())


def is_cut(model: nn.Module) -> bool:
    """Tell whether a process holds less than all of `model`."""
    return sharding_of(model).is_cut


def local(tensor: Tensor) -> Tensor:
    """Return what is here of `tensor`, sharing its memory, without a history."""
    tensor = tensor.detach()
    return tensor.to_local() if _is_dtensor(tensor) else tensor  # type: ignore[attr-defined]  # a DTensor's


def put_together(part: Tensor, shard: Shard) -> Tensor:
    """Return the whole of which `part` is here. Collective."""
    if _is_dtensor(part):
        return part.full_tensor()  # type: ignore[attr-defined,no-any-return]  # a DTensor's
    if shard.parts == 1:
        return part
    sizes = [torch.zeros(1, dtype=torch.long, device=part.device) for _ in range(shard.parts)]
    torch.distributed.all_gather(sizes, torch.tensor([part.numel()], device=part.device), group=shard.group)
    longest = max(map(int, sizes))
    padded = part.new_zeros(longest)
    padded[: part.numel()] = part
    parts = [torch.empty_like(padded) for _ in range(shard.parts)]
    torch.distributed.all_gather(parts, padded, group=shard.group)
    stretches = [each[: int(size)] for each, size in zip(parts, sizes, strict=True)]
    return torch.cat(stretches).view(shard.shape)


def summed(values: Tensor) -> Tensor:
    """Sum `values` over all processes, where they are reduced. Collective."""
    device = values.device
    # NCCL reduces on the device alone.
    there = values.cuda() if torch.distributed.get_backend() == "nccl" and device.type == "cpu" else values.clone()
    torch.distributed.all_reduce(there)
    return there.to(device)


def settle(model: nn.Module) -> None:
    """Let every module of `model` hold its own part again: after a forward pass some still have the whole.

    Collective only in the sense that all processes have to be at the same place.
    """
    wrapper, fully_sharded = _wrapper(), _fully_sharded()
    for module in model.modules():
        if wrapper is not None and isinstance(module, wrapper):
            _settle_flat(module)
        elif fully_sharded is not None and isinstance(module, fully_sharded):
            module.reshard()


def bookkeeping(model: nn.Module) -> Iterator[object]:
    """Yield what torch keeps to cut `model`, which cannot be copied: the state of FSDP2, the meshes of devices."""
    fully_sharded = _fully_sharded()
    for module in model.modules():
        if fully_sharded is not None and isinstance(module, fully_sharded):
            yield module._get_fsdp_state()  # noqa: SLF001  # there is no public way
    for parameter in model.parameters():
        if _is_dtensor(parameter):
            yield parameter.device_mesh  # type: ignore[attr-defined]  # a DTensor's


def bookkeeping_names(model: nn.Module) -> frozenset[str]:
    """Name the attributes of modules into which FSDP2 puts hooks at the first forward pass, and only then."""
    fully_sharded = _fully_sharded()
    if fully_sharded is None or not any(isinstance(module, fully_sharded) for module in model.modules()):
        return frozenset()
    return frozenset({"_state_dict_pre_hooks", "_load_state_dict_pre_hooks"})


def keeps_its_attributes(module: nn.Module) -> bool:
    """Tell whether `module` is a wrapper of FSDP's first version: all that it holds is its own bookkeeping."""
    wrapper = _wrapper()
    return wrapper is not None and isinstance(module, wrapper)


def _settle_flat(module: Any) -> None:
    from torch.distributed.fsdp import _runtime_utils  # noqa: PLC0415  # loaded already where something is wrapped

    handle = module._handle  # noqa: SLF001  # there is no public way
    # Before the first forward pass there is nothing to give back.
    if handle is None or not handle.uses_sharded_strategy or not hasattr(handle.flat_param, "_local_shard"):
        return
    if not handle.needs_unshard():
        # Freed, too: the next forward pass would take what was gathered for the weights before.
        _runtime_utils._reshard(module, handle, True)  # noqa: SLF001  # no public way
    elif handle._skipped_use_sharded_views:  # noqa: SLF001  # no public way
        handle._use_sharded_views()  # noqa: SLF001  # no public way


def _shard(parameter: nn.Parameter) -> Shard | None:
    """Tell how a parameter is cut that FSDP's first version has not; None: not at all."""
    if _is_dtensor(parameter):
        mesh, placements = parameter.device_mesh, parameter.placements  # type: ignore[attr-defined]  # a DTensor's
        parts = math.prod(mesh.size(place) for place, each in enumerate(placements) if not each.is_replicate())
        return Shard(shape=tuple(parameter.shape), parts=parts)
    # DeepSpeed's shards know their whole shape.
    shape = getattr(parameter, "ds_shape", None)
    return None if shape is None else Shard(shape=tuple(shape), flat=True)


def _flat_shards(model: nn.Module) -> Iterator[tuple[int, Shard]]:
    """Yield the shards of what FSDP's first version has put into a flat parameter, by the id of the part here."""
    wrapper = _wrapper()
    for module in model.modules() if wrapper is not None else ():
        handle = module._handle if isinstance(module, wrapper) else None  # noqa: SLF001  # no public way
        if handle is None:
            continue
        flat, cut = handle.flat_param, handle.uses_sharded_strategy
        for part, shape in zip(flat._params or (), flat._shapes, strict=False):  # noqa: SLF001  # no public way
            group = handle.process_group if cut else None
            yield id(part), Shard(shape=tuple(shape), parts=handle.world_size if cut else 1, flat=cut, group=group)


def _as_before(model: nn.Module, shapes: Mapping[int, Sequence[int]]) -> nn.Module:
    """Make a likeness of `model` without wrappers, its parameters on the meta device; all else is shared with it."""
    parameters: dict[int, nn.Parameter] = {}
    modules: dict[int, nn.Module] = {}

    def parameter_like(part: nn.Parameter) -> nn.Parameter:
        if id(part) not in parameters:
            empty = torch.empty(tuple(shapes.get(id(part), part.shape)), dtype=part.dtype, device="meta")
            parameters[id(part)] = nn.Parameter(empty, requires_grad=part.requires_grad)
        return parameters[id(part)]

    def likeness(module: nn.Module) -> nn.Module:
        inner = unwrapped(module)
        if id(inner) not in modules:
            twin: nn.Module = object.__new__(type(inner))
            modules[id(inner)] = twin
            values = dict(vars(inner))
            own = {name: part if part is None else parameter_like(part) for name, part in values["_parameters"].items()}
            children = {name: child if child is None else likeness(child) for name, child in values["_modules"].items()}
            # FSDP leaves its parts among the plain attributes, too.
            vars(twin).update({name: value for name, value in values.items() if name not in own})
            vars(twin).update(_parameters=own, _modules=children)
        return modules[id(inner)]

    return likeness(model)


# What is not loaded has cut nothing, and loading it takes a second.


def _wrapper() -> Any:
    return getattr(sys.modules.get("torch.distributed.fsdp"), "FullyShardedDataParallel", None)


def _fully_sharded() -> Any:
    return getattr(sys.modules.get("torch.distributed.fsdp"), "FSDPModule", None)


def _is_dtensor(tensor: Tensor) -> bool:
    kind = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)
    return kind is not None and isinstance(tensor, kind)
