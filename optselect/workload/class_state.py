"""What modules keep on their classes: a counter, a cache, a registry that all instances share."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

# Classes of these packages are not the user's to change.
_OTHERS = frozenset(
    {"builtins", "abc", "typing", "collections", "torch", "torchmetrics", "lightning", "pytorch_lightning", "optselect"}
)
_CONTAINERS = (list, dict, set, deque)
_MAX_ENTRIES = 10_000
_MAX_DEPTH = 4

_State = Mapping[type, Mapping[str, tuple[Any, Any]]]
"""For each class and attribute the object, and what was in it."""


@contextmanager
def classes_restored(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Attributes of the modules' own classes on leaving: the same objects, tensors and containers filled as before.

    Containers in containers too; other objects are taken to be immutable. What ends the process (an interrupt, an exit)
    leaves them alone.
    """
    kinds = {kind for module in modules for kind in type(module).__mro__}
    state = {kind: _read(kind) for kind in kinds if kind.__module__.partition(".")[0] not in _OTHERS}
    try:
        yield
    except Exception:
        _put_back(state)
        raise
    _put_back(state)


def _read(kind: type) -> Mapping[str, tuple[Any, Any]]:
    return {name: (value, _content(value)) for name, value in vars(kind).items() if not _is_pythons(name)}


def _is_pythons(name: str) -> bool:
    return (name.startswith("__") and name.endswith("__")) or name.startswith("_abc_")


def _put_back(state: _State) -> None:
    for kind, before in state.items():
        for name in [name for name in vars(kind) if name not in before and not _is_pythons(name)]:
            delattr(kind, name)
        for name, (value, inside) in before.items():
            if vars(kind).get(name) is not value:
                setattr(kind, name, value)
            _fill(value, inside)


def _content(value: Any, depth: int = _MAX_DEPTH) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if type(value) not in _CONTAINERS or len(value) > _MAX_ENTRIES or not depth:
        return None
    if isinstance(value, set):
        return set(value)
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [(key, item, _content(item, depth - 1)) for key, item in items]


def _fill(value: Any, inside: Any) -> None:
    if inside is None:
        return
    if isinstance(value, torch.Tensor):
        with torch.no_grad():
            value.copy_(inside)
    elif isinstance(value, np.ndarray):
        value[...] = inside
    elif isinstance(value, set):
        value.clear()
        value.update(inside)
    else:
        for _, item, its in inside:
            _fill(item, its)
        value.clear()
        if isinstance(value, dict):
            value.update((key, item) for key, item, _ in inside)
        else:
            value.extend(item for _, item, _ in inside)
