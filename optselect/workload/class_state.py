"""What modules keep on their classes: a counter, a cache, a registry that all instances share."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

# Classes of these packages are not the user's to change.
_OTHERS = frozenset(
    {"builtins", "abc", "typing", "collections", "torch", "torchmetrics", "lightning", "pytorch_lightning", "optselect"}
)
_CONTAINERS = (list, dict, set, deque)
_KEPT = (type(None), bool, int, float, complex, str, bytes, tuple, torch.Tensor, np.ndarray, *_CONTAINERS)
_MAX_ENTRIES = 10_000
_MAX_DEPTH = 4

State = Mapping[type, Mapping[str, tuple[Any, Any]]]
"""For each class and attribute the object, and what was in it."""


class ClassState:
    """Attributes of the classes of `modules`, which trials find as they were when it was made.

    Numbers, texts, tensors and containers, containers in containers too; other objects are taken to be immutable.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        kinds = {kind for module in modules for kind in type(module).__mro__}
        self._kinds = [kind for kind in kinds if kind.__module__.partition(".")[0] not in _OTHERS]
        self.start = self.read()

    def read(self) -> State:
        """The classes as they are."""
        return {kind: {name: (value, _content(value)) for name, value in _attributes(kind)} for kind in self._kinds}

    @property
    def changed(self) -> bool:
        """Whether anything is not as it was, as far as can be told; in doubt it is."""
        return any(
            dict(_attributes(kind)).keys() != before.keys()
            or any(vars(kind)[name] is not value or _differs(value, inside) for name, (value, inside) in before.items())
            for kind, before in self.start.items()
        )


def put_back(state: State) -> None:
    """The classes as they were read: the same objects with the same content."""
    for kind, before in state.items():
        for name in [name for name, _ in _attributes(kind) if name not in before]:
            delattr(kind, name)
        for name, (value, inside) in before.items():
            if vars(kind).get(name) is not value:
                setattr(kind, name, value)
            _fill(value, inside)


def _attributes(kind: type) -> list[tuple[str, Any]]:
    return [
        (name, value)
        for name, value in vars(kind).items()
        if isinstance(value, _KEPT)
        and not (name.startswith("__") and name.endswith("__"))
        and not (isinstance(value, _CONTAINERS) and len(value) > _MAX_ENTRIES)
    ]


def _content(value: Any, depth: int = _MAX_DEPTH) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, set) or not (isinstance(value, _CONTAINERS) and depth):
        return set(value) if isinstance(value, set) else None
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


def _differs(value: Any, inside: Any) -> bool:
    if inside is None:
        return False
    if isinstance(value, torch.Tensor):
        return value.shape != inside.shape or not torch.equal(value, inside)
    if isinstance(value, np.ndarray):
        return not np.array_equal(value, inside)
    if isinstance(value, set):
        return bool(value != inside)
    now = list(value.items() if isinstance(value, dict) else enumerate(value))
    return len(now) != len(inside) or any(
        key != its_key or item is not its or _differs(its, its_inside)
        for (key, item), (its_key, its, its_inside) in zip(now, inside, strict=True)
    )
