"""A bounded number of samples, read without a loader: 10^8 rows cost what 10^3 cost."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, pairwise
from typing import Any

import numpy as np
import torch
from torch.utils.data import Subset, TensorDataset

from optselect.profile.items import Sample, read_item, rows_of
from optselect.workload.protocol import DataSource

MAX_ROWS = 2_000
MAX_NUMBERS = 20_000_000
MAX_BATCHES = 20
# Only a data set whose rows take longer than 15 ms each meets this bound: a profile that takes a minute is
# worse than one from fewer rows.
MAX_SECONDS = 30.0
# A data set that cannot be read says so at once; one with a few broken rows still gives the others.
_MOST_UNREADABLE = 10
_COLLATED = 256
# A loader that shuffles more takes longer to begin than the profile does (0.24 s at this size).
_SHUFFLED_ROWS = 1_000_000


def dataset_size(dataset: Any) -> int | None:
    """Count the rows of a map-style data set; None: there is none, or it has no length."""
    try:
        return len(dataset)
    except Exception:  # noqa: BLE001  # a user's __len__ may fail in any way; a scipy matrix refuses but has rows
        shape = getattr(dataset, "shape", None)
        return int(shape[0]) if shape else None


def read_samples(source: DataSource, batches: Sequence[Any] = ()) -> list[Sample]:
    """Read at most 2,000 samples, 2e7 numbers and 30 s of them, in an order that says nothing.

    A map-style data set is indexed: every row when there are at most 2,000, else one from each of 2,000 equal
    stretches. What cannot be indexed is read from `batches`, already drawn; without them from the head of the
    source. Which rows are read is a function of the size alone; the global random state is left alone.
    """
    size = dataset_size(source.dataset) if source.dataset is not None else None
    if size:
        samples = _bounded(_indexed(source.dataset, spread_indices(size, MAX_ROWS)))
        if any(sample.inputs for sample in samples):
            return samples
        samples = _collated(source, size)
        if samples:
            return samples
    return _from_batches(batches or _head(source))


def training_batches(source: DataSource, count: int) -> tuple[list[Any], DataSource]:
    """Draw `count` training batches; return them, and the source to go on reading from.

    They are what the training would draw, but of a data set beyond 10^6 rows: shuffling one of 10^8 takes 24 s
    and 4.9 GB before its first index (measured). There they are gathered by index, from the rows that
    `read_samples` looks at, and remembered for it, so that no row is read twice.
    """
    size = dataset_size(source.dataset) if source.dataset is not None else None
    if size is None or size <= _SHUFFLED_ROWS or source.collate is None or not source.batch_size:
        return (source.head(count) if count else []), source
    wanted = count * source.batch_size
    indices = spread_indices(size, max(wanted, MAX_ROWS))[:wanted]
    try:
        items = dict(zip(indices, _fetched(source.dataset, indices), strict=True))
        batches = [
            source.collate([items[index] for index in indices[start : start + source.batch_size]])
            for start in range(0, wanted, source.batch_size)
        ]
    # The user's code reads them, and may fail in any way: then the loader, which may know better, draws them.
    except Exception:  # noqa: BLE001  # see above
        return source.head(count), source
    return batches, replace(source, dataset=_Remembering(source.dataset, items))


class _Remembering:
    """A data set of which some items have been read."""

    def __init__(self, dataset: Any, items: Mapping[int, Any]) -> None:
        self._dataset = dataset
        self._items = items

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        return self._items[index] if index in self._items else self._dataset[index]


def _fetched(dataset: Any, indices: Sequence[int]) -> list[Any]:
    """Fetch the items as a DataLoader would."""
    many = getattr(dataset, "__getitems__", None)
    items = many(list(indices)) if callable(many) else [dataset[index] for index in indices]
    if not isinstance(items, list):
        raise TypeError(f"__getitems__ gives a {type(items).__name__}, not a list of items")
    return items


def spread_indices(size: int, most: int) -> list[int]:
    """Pick at most `most` of the indices below `size`, one from each of as many equal stretches, in random order.

    Drawn at random within its stretch: every k-th row would meet one class only where classes take turns.
    """
    count = min(size, most)
    own = np.random.default_rng(0)
    edges = [index * size // count for index in range(count + 1)]
    drawn = [int(own.integers(low, high)) for low, high in pairwise(edges)]
    return [drawn[place] for place in own.permutation(count)]


def _indexed(dataset: Any, indices: Sequence[int]) -> Iterator[Sample]:
    # By exact type: a subclass may read its rows in a way of its own.
    while type(dataset) is Subset:
        indices = [dataset.indices[index] for index in indices]
        dataset = dataset.dataset
    if type(dataset) is TensorDataset and all(each.layout is torch.strided for each in dataset.tensors):
        # One gather for every tensor instead of 2,000 small ones.
        per_row = max(1, sum(math.prod(each.shape[1:]) for each in dataset.tensors))
        chosen = torch.tensor(indices[: max(1, MAX_NUMBERS // per_row)])
        yield from map(read_item, zip(*(each[chosen.to(each.device)] for each in dataset.tensors), strict=True))
        return
    unreadable = 0
    for index in indices:
        try:
            yield read_item(dataset[index])
        except Exception:  # noqa: BLE001  # the user's code reads it, and may fail in any way
            unreadable += 1
            if unreadable >= _MOST_UNREADABLE:
                return


def _bounded(samples: Iterator[Sample]) -> list[Sample]:
    kept: list[Sample] = []
    stored, begun = 0, time.monotonic()
    for sample in islice(samples, MAX_ROWS):
        kept.append(sample)
        stored += sample.stored
        if len(kept) == _MOST_UNREADABLE and not any(each.inputs for each in kept):
            break  # texts, or nothing that could be profiled
        # Room for one more of the mean size, so that the bound holds with the next row.
        if stored * (1 + 1 / len(kept)) > MAX_NUMBERS or time.monotonic() - begun > MAX_SECONDS:
            break
    return kept


def _collated(source: DataSource, size: int) -> list[Sample]:
    """Read items that hold no numbers, such as texts, after the training's own collate function has made some."""
    if source.collate is None or source.dataset is None:
        return []
    try:
        items = [source.dataset[index] for index in spread_indices(size, _COLLATED)]
        return _from_batches([source.collate(items)])
    except Exception:  # noqa: BLE001  # as in _indexed
        return []


def _head(source: DataSource) -> list[Any]:
    """Read the first batches, enough for 2,000 rows; one alone first, to see how large they are."""
    try:
        first = source.head(1)
        rows = [read_item(row) for batch in first for row in rows_of(batch, MAX_ROWS)]
        if not rows:
            return first
        numbers = max(1, sum(row.stored for row in rows))
        more = min(MAX_BATCHES, math.ceil(MAX_ROWS / len(rows)), max(1, MAX_NUMBERS // numbers))
        return source.head(more) if more > 1 else first
    except Exception:  # noqa: BLE001  # as in _indexed
        return []


def _from_batches(batches: Sequence[Any]) -> list[Sample]:
    try:
        return _bounded(read_item(row) for batch in batches for row in rows_of(batch, MAX_ROWS))
    except Exception:  # noqa: BLE001  # as in _indexed
        return []
