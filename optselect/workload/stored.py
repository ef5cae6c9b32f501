"""Values as builtins and tensors, so that a file of them can be read without running anything in it."""

from __future__ import annotations

import functools
import io
import pickle  # written to compare objects, never read
import types
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

_ATOMIC = (type(None), bool, int, float, str, bytes)
_SEQUENCES = {"list": list, "tuple": tuple, "set": set, "deque": deque}
_MAPPINGS = {"dict": dict, "ordered": OrderedDict}
# Their state is in `state` and `param_groups`; the conformance suite stops and resumes each entry of the catalogue.
_KNOWN = frozenset({"torch", "optselect", "schedulefree", "prodigyopt", "pytorch_optimizer"})


class NotPlainError(Exception):
    """A value that builtins and tensors cannot say."""


def plain(value: Any, seen: set[int] | None = None) -> Any:
    """Say `value` in builtins and tensors; inverse of `unplain`. Raises `NotPlainError`.

    What is held in two places is refused: it would come back as two.
    """
    seen = set() if seen is None else seen
    kind = type(value)
    if kind in _ATOMIC:
        return value
    if kind is not tuple:
        if id(value) in seen:
            raise NotPlainError(f"a {kind.__name__} is held in two places")
        seen.add(id(value))
    if kind is Tensor and not value.requires_grad and value.layout is torch.strided:
        return value
    if kind is np.ndarray and value.dtype.kind in "biuf":
        return ["array", torch.from_numpy(value.copy())]
    for name, type_ in _SEQUENCES.items():
        if kind is type_:
            most = value.maxlen if isinstance(value, deque) else None
            return [name, [plain(item, seen) for item in value], most]
    for name, type_ in _MAPPINGS.items():
        if kind is type_:
            return [name, [[plain(key, seen), plain(item, seen)] for key, item in value.items()]]
    raise NotPlainError(f"a {kind.__name__} is neither a builtin nor a tensor")


def unplain(value: Any) -> Any:
    """Rebuild what `plain` was given."""
    if not isinstance(value, list):
        return value
    kind, inside = value[:2]
    if kind == "array":
        return inside.numpy()
    if kind in _MAPPINGS:
        return _MAPPINGS[kind]((unplain(key), unplain(item)) for key, item in inside)
    items = map(unplain, inside)
    return deque(items, maxlen=value[2]) if kind == "deque" else _SEQUENCES[kind](items)


def unchanged(now: Any, before: Any, pinned: Collection[int] = ()) -> bool:
    """Tell whether `now` is as its copy `before` was, as far as can be told without asking it; in doubt not.

    `pinned` are ids of objects that both share.
    """
    if now is before:
        return True  # shared, or something that cannot change: else a copy would be another object
    if type(now) is not type(before):
        return False
    if isinstance(now, _ATOMIC):
        return bool(now == before)
    if isinstance(now, Tensor):
        same = now.shape == before.shape and now.dtype == before.dtype and now.requires_grad == before.requires_grad
        return same and torch.equal(now, before)
    if isinstance(now, dict):
        pairs = zip(now.values(), before.values(), strict=False)
        return list(now) == list(before) and all(unchanged(one, other, pinned) for one, other in pairs)
    if isinstance(now, list | tuple | deque):
        return len(now) == len(before) and all(map(functools.partial(unchanged, pinned=pinned), now, before))
    if isinstance(now, types.MethodType):
        return now.__func__ is before.__func__ and unchanged(now.__self__, before.__self__, pinned)
    if isinstance(now, functools.partial):
        one, other = ((each.func, each.args, each.keywords) for each in (now, before))
        return unchanged(one, other, pinned)
    try:
        return _pickled(now, pinned) == _pickled(before, pinned)
    except Exception:  # noqa: BLE001  # an object may refuse to be pickled in any way
        return False


def stored_optimizer(optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> list[Any]:
    """Return groups and state of an optimizer of a known kind. Raises `NotPlainError` for any other."""
    for part in (optimizer, *getattr(optimizer, "children", {}).values()):
        _refuse_unknown(part)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not {id(parameter) for parameter in parameters}.issuperset(map(id, trained)):
        raise NotPlainError("the optimizer trains something that is no parameter of the model")
    groups = [
        [len(group["params"]), plain({name: value for name, value in group.items() if name != "params"})]
        for group in optimizer.param_groups
    ]
    state = [plain(dict(optimizer.state[p])) if p in optimizer.state else None for p in trained]
    return [type(optimizer).__qualname__, groups, state]


def restore_optimizer(optimizer: Optimizer, stored: list[Any]) -> None:
    """Put into a new optimizer what `stored_optimizer` said of another. Raises `NotPlainError` when it is unlike it.

    Not by `load_state_dict`, which casts what it loads to the parameters' precision.
    """
    kind, groups, state = stored
    if kind != type(optimizer).__qualname__ or [size for size, _ in groups] != [
        len(group["params"]) for group in optimizer.param_groups
    ]:
        raise NotPlainError("the optimizer has other groups now")
    for group, (_, values) in zip(optimizer.param_groups, groups, strict=True):
        group.update(unplain(values))
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter, slots in zip(trained, state, strict=True):
        if slots is not None:
            optimizer.state[parameter] = unplain(slots)


def stored_schedulers(schedulers: Sequence[Any]) -> list[Any]:
    """Return the states of torch's schedulers and ours. Raises `NotPlainError` for any other."""
    for scheduler in schedulers:
        _refuse_unknown(scheduler)
    return [[type(scheduler).__qualname__, plain(scheduler.state_dict())] for scheduler in schedulers]


def restore_schedulers(schedulers: Sequence[LRScheduler], stored: list[Any]) -> None:
    """Put into new schedulers what `stored_schedulers` said of others. Raises `NotPlainError` when they are unlike."""
    if [kind for kind, _ in stored] != [type(scheduler).__qualname__ for scheduler in schedulers]:
        raise NotPlainError("there are other schedulers now")
    for scheduler, (_, state) in zip(schedulers, stored, strict=True):
        scheduler.load_state_dict(unplain(state))


def _refuse_unknown(part: object) -> None:
    if type(part).__module__.partition(".")[0] not in _KNOWN:
        raise NotPlainError(f"{type(part).__name__} may keep a state of its own")


def _pickled(value: Any, pinned: Collection[int]) -> bytes:
    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> int | None:
            return id(obj) if id(obj) in pinned else None

    written = io.BytesIO()
    Pickler(written).dump(value)
    return written.getvalue()
