"""What a training is known by: its model, its data, its own optimizer and its settings, as facts and figures."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import partial
from pathlib import PurePath
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import IterableDataset, Subset, TensorDataset

from optselect.parameters.names import named_modules, named_parameters
from optselect.parameters.sharding import local, whole
from optselect.study.identity import Figure, Identity
from optselect.workload.code import code_digest, is_users_own
from optselect.workload.loaders import loader_generators
from optselect.workload.rng import generators_restored, rng_isolated, seed_rng

# Rows looked at, spread over the data set. Where it lies in memory as tensors, so many are read at once, so many times.
_ROWS, _READS_IN_MEMORY = 64, 16
# Numbers looked at in one row, and in one parameter, spread over it.
_NUMBERS = 4_096
# Parameters by the thousand share so many figures.
_WEIGHT_FIGURES = 32
_DEEPEST = 6
# How a step is computed, which may depend on the machine; what it does is the same.
_IMPLEMENTATION = frozenset({"foreach", "fused", "capturable", "differentiable", "params"})
_ADDRESS = re.compile(r"0x[0-9a-f]+")


def model_identity(model: nn.Module) -> Identity:
    """Of the model alone: its modules and their settings, its parameters, its code."""
    before = whole(model)
    modules = [(name, type(module).__qualname__, _settings_of(module)) for name, module in named_modules(before)]
    known = [(name, each) for name, each in named_parameters(before) if not is_lazy(each)]
    shapes = [(name, list(each.shape), each.requires_grad) for name, each in known]
    classes = dict.fromkeys(type(module) for _, module in named_modules(before))
    facts = {"model": [modules, shapes], "code": code_digest(classes)}
    return Identity().joined(facts, {"weights": _weight_figures(model)})


def data_identity(what: str, loaders: Sequence[Any], heads: Sequence[Sequence[Any]] = ()) -> Identity:
    """Of the data behind `loaders`, called `what`: their number, rows spread over them, and how they are batched.

    `heads` are first batches, for loaders whose data cannot be indexed.
    """
    facts: list[Any] = []
    figures: list[Figure] = []
    for place, loader in enumerate(loaders):
        count, rows = _rows_of(loader)
        if count is None and place < len(heads):
            rows = list(heads[place])
        look = _Look()
        for row in rows:
            look.at(row)
        facts.append([count, look.digest.hexdigest(), _batching(loader)])
        figures += look.figures
    return Identity().joined({what: facts}, {what: tuple(figures)})


def can_be_indexed(loader: Any) -> bool:
    """Tell whether rows can be asked for by number. A stream inherits `__getitem__`, and only raises there."""
    dataset = getattr(loader, "dataset", loader)
    return hasattr(dataset, "__getitem__") and not isinstance(dataset, IterableDataset)


def optimizer_facts(optimizers: Iterable[Optimizer], schedulers: Iterable[Any]) -> Any:
    """List the settings of a user's own optimizers and of their schedulers, in builtins."""
    return [list(map(_optimizer, optimizers)), list(map(plain, schedulers))]


def function_facts(function: Any) -> Any:
    """Say what a loss, or a step, is: its code, and the settings of a module."""
    if isinstance(function, nn.Module):
        return [type(function).__qualname__, _settings_of(function), code_digest([type(function)])]
    own = function if isinstance(function, FunctionType | MethodType) else type(function)
    return [getattr(own, "__qualname__", ""), code_digest([getattr(own, "__func__", own)])]


def plain(value: Any, depth: int = 0) -> Any:
    """`value` as JSON can say it, the same on every machine: of other objects the class, of paths the last part."""
    if value is None or isinstance(value, bool | int | float | str | PurePath):
        return _atom(value)
    if depth > _DEEPEST:
        return type(value).__qualname__
    if isinstance(value, Mapping):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(str(plain(item, depth + 1)) for item in value)
    if isinstance(value, Tensor | np.ndarray | np.generic):
        shape = list(value.shape)
        return plain(value.item(), depth + 1) if not shape else [str(value.dtype), shape]
    return _object(value, depth)


def _atom(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.9g}"
    if isinstance(value, PurePath) or (isinstance(value, str) and value.startswith("/")):
        return PurePath(value).name
    # A member of an enumeration may be a number or a string, too.
    return [type(value).__qualname__, value.name] if isinstance(value, Enum) else value


def _object(value: Any, depth: int) -> Any:
    if isinstance(value, Enum):
        return _atom(value)
    if isinstance(value, LRScheduler):
        own = {name: each for name, each in vars(value).items() if _is_setting(name, each)}
        return [type(value).__qualname__, plain(own, depth + 1)]
    if isinstance(value, partial):
        return [plain(value.func, depth + 1), plain(value.args, depth + 1), plain(value.keywords, depth + 1)]
    if is_users_own(value):
        return [value.__qualname__, code_digest([value])]
    return value.__qualname__ if isinstance(value, type | FunctionType | MethodType) else type(value).__qualname__


def _is_setting(name: str, value: Any) -> bool:
    return not isinstance(value, Optimizer) and (not name.startswith("_") or name in ("_schedulers", "_milestones"))


def _optimizer(optimizer: Optimizer) -> Any:
    groups = [
        [len(group["params"]), plain({name: value for name, value in group.items() if name not in _IMPLEMENTATION})]
        for group in optimizer.param_groups
    ]
    defaults = {name: value for name, value in optimizer.defaults.items() if name not in _IMPLEMENTATION}
    return [type(optimizer).__qualname__, plain(defaults), groups]


def _settings_of(module: nn.Module) -> Any:
    """Ask what a module says of itself, and what it calls its constants: a rate of dropout, a reduction."""
    try:
        said = module.extra_repr()
    except Exception:  # noqa: BLE001  # the user's code, which may not be ready to be asked
        said = ""
    constants = [name for name in getattr(module, "__constants__", ()) if name in vars(module)]
    return [_ADDRESS.sub("", said), plain({name: vars(module)[name] for name in constants})]


def _there(parameter: Tensor) -> bool:
    return not is_lazy(parameter) and parameter.device.type != "meta"


def _weight_figures(model: nn.Module) -> tuple[Figure, ...]:
    """Figures of all parameters and buffers, as far as they are here; those of many add up."""
    sums = [[0.0, 0.0] for _ in range(_WEIGHT_FIGURES)]
    named = [*model.named_parameters(), *model.named_buffers()]
    for place, (_, tensor) in enumerate(named):
        if _there(tensor):
            value, scale = _figure(_spread(local(tensor)))
            sums[place % _WEIGHT_FIGURES][0] += value
            sums[place % _WEIGHT_FIGURES][1] += scale
    return tuple((value, scale) for value, scale in sums[: len(named)])


def _rows_of(loader: Any) -> tuple[int | None, list[Any]]:
    """How many rows there are (None: not known), and some of them, read under fixed random numbers.

    Rows that come out otherwise each time are left out.
    """
    if not can_be_indexed(loader):
        return None, []
    dataset = getattr(loader, "dataset", loader)
    with rng_isolated(), generators_restored(loader_generators(loader)):
        seed_rng(0)
        try:
            count = len(dataset)
            if (tensors := _in_memory(dataset)) is not None:
                return count, _rows_in_memory(*tensors, count)
            rows = [dataset[index] for index in _places(count, _ROWS)]
            seed_rng(0)
            again = [dataset[0]] if rows else []
        except Exception:  # noqa: BLE001  # the user's code reads them, and may fail in any way; so will the training
            return None, []
    return count, rows if _same(rows[:1], again) else []


def _places(count: int, most: int) -> list[int]:
    if count <= most:
        return list(range(count))
    return [place * (count - 1) // (most - 1) for place in range(most)]


def _in_memory(dataset: Any) -> tuple[Sequence[Tensor], Sequence[int] | None] | None:
    """Give the tensors of a data set that does nothing but hold them, and which of their rows it takes (None: all)."""
    if type(dataset) is TensorDataset:
        return dataset.tensors, None
    if type(dataset) is Subset and type(dataset.dataset) is TensorDataset:
        return dataset.dataset.tensors, dataset.indices
    return None


def _rows_in_memory(tensors: Sequence[Tensor], taken: Sequence[int] | None, count: int) -> list[Any]:
    """Rows spread over the tensors, read many at a time: one by one they would take longer than a short trial."""
    places = _places(count, _ROWS * _READS_IN_MEMORY)
    rows = torch.tensor(places if taken is None else [int(taken[place]) for place in places], dtype=torch.long)
    return [tuple(tensor[some.to(tensor.device)] for tensor in tensors) for some in rows.split(_ROWS) if len(some)]


def _same(rows: list[Any], again: list[Any]) -> bool:
    looks = [_Look(), _Look()]
    for look, read in zip(looks, (rows, again), strict=True):
        look.at(read)
    return looks[0].digest.digest() == looks[1].digest.digest() and looks[0].figures == looks[1].figures


def _batching(loader: Any) -> Any:
    parts = (getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None))
    settings = (getattr(loader, "batch_size", None), getattr(loader, "drop_last", None))
    try:
        length = len(loader)
    except (TypeError, NotImplementedError):
        length = None
    return [plain(settings), length, *(type(part).__qualname__ for part in parts)]


class _Look:
    """What is seen of rows: what is exact in a digest, floating-point numbers as figures."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.figures: list[Figure] = []

    def at(self, row: Any) -> None:
        """Look at one row."""
        floats: list[Figure] = []
        for leaf in _leaves(row):
            if isinstance(leaf, float):
                leaf = np.asarray(leaf)  # noqa: PLW2901  # a number like those in an array
            if not isinstance(leaf, np.ndarray):
                self.digest.update(repr(leaf).encode(errors="replace"))
                continue
            self.digest.update(repr((leaf.dtype.kind, leaf.shape)).encode())
            some = _spread(leaf)
            if some.dtype.kind in "fc":
                finite = np.isfinite(some)
                self.digest.update(np.packbits(finite).tobytes() if not finite.all() else b"")
                floats.append(_figure(np.where(finite, some, 0)))
            else:
                self.digest.update(some.tobytes() if some.dtype.kind != "O" else b"")
        if floats:
            self.figures.append((sum(value for value, _ in floats), sum(scale for _, scale in floats)))


def _leaves(value: Any, depth: int = 0) -> Iterator[Any]:
    """Arrays, numbers and texts in a row, also inside objects of other libraries."""
    if value is None or isinstance(value, str | bytes | bool | int | float):
        yield value
    elif isinstance(value, Tensor):
        dense = value.detach().cpu().to_dense().resolve_conj().resolve_neg()
        yield (dense.float() if dense.dtype == torch.bfloat16 else dense).numpy()
    elif isinstance(value, np.ndarray | np.generic | complex) or hasattr(value, "__array_interface__"):
        yield np.asarray(value)  # an image of PIL, too
    elif depth <= _DEEPEST:
        yield from _inner_leaves(value, depth + 1)


def _inner_leaves(value: Any, depth: int) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _leaves(item, depth)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item, depth)
    elif hasattr(value, "__dict__"):
        yield type(value).__qualname__
        yield from _leaves({name: each for name, each in vars(value).items() if each is not value}, depth)


def _spread(numbers: Any) -> Any:
    """At most so many of them, at equal distances."""
    flat = numbers.reshape(-1) if isinstance(numbers, np.ndarray) else numbers.to_dense().flatten()
    size = len(flat)
    some = flat[:: max(-(-size // _NUMBERS), 1)]
    if isinstance(some, np.ndarray):
        return some
    some = some.cpu().resolve_conj().resolve_neg()
    return (some if some.is_complex() else some.double()).numpy()


def _figure(numbers: Any) -> Figure:
    """Sum `numbers` with weights that tell their places apart, and the sum of their sizes."""
    parts = np.concatenate([numbers.real, numbers.imag]) if np.iscomplexobj(numbers) else numbers
    parts = parts.astype(np.float64)
    places = np.arange(1, len(parts) + 1, dtype=np.uint64)
    # Knuth's multiplicative hash: the same on every machine, and no two places alike.
    weights = (places * np.uint64(2_654_435_761) % np.uint64(2**32)).astype(np.float64) / 2.0**31 - 1.0
    return float(weights @ parts), float(np.abs(parts).sum())
