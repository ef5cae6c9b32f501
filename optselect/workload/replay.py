"""Iterators that can be read only once, replayed: what trials read of them is there again for the real run.

A loader may be such an iterator, or hold one, itself or in its data set: an open file, a generator, an endless cycle.
It is the iterator that is recorded and not the loader, so that the run finds every row where it would have been,
however it cuts them into epochs.
"""

from __future__ import annotations

import copy
import io
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

_MAX_DEPTH = 5
_MAX_HELD = 1_000
# What cannot hold a position in the data, or would hold any number of things.
_CLOSED = (torch.Tensor, nn.Module, type, types.ModuleType, types.FunctionType, types.MethodType)


class RecordedIterator(Iterator[Any]):
    """Stands in for an iterator while trials read it, and afterwards for the run.

    `reader` gives trials its items from the first on. Iterated itself it gives them to the run, from the first on once
    it is released, and then goes on. Other attributes are the iterator's.
    """

    def __init__(self, live: Iterator[Any]) -> None:
        self.live = live
        self._items: list[Any] = []
        self._position = 0
        self._recording = True

    def __next__(self) -> Any:
        if self._recording:
            item = self.item(self._position)
            self._position += 1
            return item
        return self._items.pop() if self._items else next(self.live)

    def item(self, index: int) -> Any:
        """Item `index`, for trials. Raises `StopIteration` where there are no more."""
        while index >= len(self._items):
            self._items.append(next(self.live))
        return _copied(self._items[index])

    @property
    def was_read(self) -> bool:
        """Tell whether the iterator is no longer where it was."""
        return bool(self._items)

    def reader(self) -> Reader:
        """Read the items from the first on."""
        return Reader(self)

    def release(self) -> None:
        """No trial reads any more: from now on the run does."""
        self._recording = False
        self._items.reverse()  # the next one is popped off the end

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "live":
            raise AttributeError(name)
        return getattr(self.live, name)


class Reader(Iterator[Any]):
    """A trial's own way through what is recorded."""

    def __init__(self, recorded: RecordedIterator) -> None:
        self._recorded = recorded
        self._next = 0

    def __next__(self) -> Any:
        item = self._recorded.item(self._next)
        self._next += 1
        return item

    def reader(self) -> Reader:
        """Another one, from the first item on."""
        return Reader(self._recorded)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._recorded, name)


def recorded(loader: Any, stack: ExitStack) -> Any:
    """`loader` with its iterators recorded until `stack` is left; another object where it is itself an iterator.

    An iterator that nobody reads meanwhile is put back.
    """
    if isinstance(loader, RecordedIterator):
        return loader  # given to two fits
    if isinstance(loader, Iterator):
        whole = RecordedIterator(loader)
        stack.callback(whole.release)
        return whole
    for owner, name, value in list(held(loader)):
        known: dict[int, RecordedIterator] = {}

        def record(live: Iterator[Any], known: dict[int, RecordedIterator] = known) -> Iterator[Any]:
            if isinstance(live, RecordedIterator):
                return live
            return known.setdefault(id(live), RecordedIterator(live))

        vars(owner)[name] = _replaced(value, record)
        stack.callback(_released, owner, name, value, list(known.values()))
    return loader


def _released(owner: object, name: str, before: Any, records: list[RecordedIterator]) -> None:
    for record in records:
        record.release()
    if not any(record.was_read for record in records):
        vars(owner)[name] = before


def held(root: Any) -> Iterator[tuple[object, str, Any]]:
    """Attributes around a loader that are iterators or hold some: their owner, their name, their value.

    Not looked into are data sets that are read by index, and what a loader keeps of its own workers.
    """
    yield from _held(root, set(), _MAX_DEPTH)


def _held(owner: Any, seen: set[int], depth: int) -> Iterator[tuple[object, str, Any]]:
    if id(owner) in seen or not depth or isinstance(owner, _CLOSED) or not hasattr(owner, "__dict__"):
        return
    seen.add(id(owner))
    if _is_indexed(owner):
        return
    for name, value in list(vars(owner).items()):
        if isinstance(owner, DataLoader) and name == "_iterator":
            continue
        inside = list(parts(value))
        if any(map(_is_read_once, inside)):
            yield owner, name, value
        for part in inside:
            if not isinstance(part, Iterator):
                yield from _held(part, seen, depth - 1)


def _replaced(value: Any, by: Callable[[Iterator[Any]], Any]) -> Any:
    """`value`, or the builtin container of it, with something else for each iterator."""
    if _is_read_once(value):
        return by(value)
    if type(value) is dict and len(value) <= _MAX_HELD:
        return {key: _replaced(part, by) for key, part in value.items()}
    if type(value) in (list, tuple) and len(value) <= _MAX_HELD:
        return type(value)(_replaced(part, by) for part in value)
    return value


def parts(value: Any) -> Iterator[Any]:
    """Yield what a builtin container holds, or the value itself."""
    if type(value) in (dict, list, tuple):
        if len(value) <= _MAX_HELD:
            for part in value.values() if type(value) is dict else value:
                yield from parts(part)
    else:
        yield value


def _is_indexed(owner: Any) -> bool:
    rows = hasattr(owner, "__getitem__") and hasattr(owner, "__len__")
    return rows and not isinstance(owner, IterableDataset | DataLoader)


def _is_read_once(value: Any) -> bool:
    return isinstance(value, Iterator) and not is_file_by_name(value)


def is_file_by_name(value: Any) -> bool:
    """Tell whether it is a file that another reader can open for itself."""
    return isinstance(value, io.IOBase) and isinstance(getattr(value, "name", None), str) and not value.closed


def reopened(file: Any, reader: object) -> Any:
    """Open the file at the same place, open as long as `reader` lives; the file itself where that cannot be."""
    try:
        place = file.tell()
        other = open(file.name, file.mode, encoding=getattr(file, "encoding", None))  # noqa: SIM115, PTH123  # as the file itself was opened; closed with its reader
        other.seek(place)
        weakref.finalize(reader, other.close)
    except (OSError, ValueError, AttributeError, TypeError):
        return file
    return other


def _copied(item: Any) -> Any:
    """Streams change their rows in place, too; what cannot be copied is shared."""
    try:
        return copy.deepcopy(item)
    except Exception:  # noqa: BLE001  # an object of another library
        return item
