"""Training batches for trials: the same ones for every trial, drawn once while memory allows.

Drawing has random numbers of its own: a trial's dropout is the same whether a batch came from the
loader or from the cache.
"""

from __future__ import annotations

import copy
import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from optselect.errors import UnsupportedModuleError
from optselect.workload.rng import RngState, rng_isolated, rng_state, seed_rng, set_rng_state

# Training batches that a trial is judged by, and does not train on in its first epoch, where nothing validates.
HELD_BACK_BATCHES = 8
# A loader that gives nothing but None would be looked through for ever.
_MOST_SKIPPED = 100
DEFAULT_CACHE_BYTES = 512 * 2**20


class BatchCache:
    """Batches by their index over epochs.

    `open_loader` returns a loader that is iterated once for each epoch, beginning under the random state
    at construction, or for a `seed` other than 0 under a state of that seed's own. Batches are kept up to
    `limit_bytes`; beyond it they are drawn again for each trial, from a loader opened anew.
    `epoch_batches` is the length of an epoch where that is known; without it the end of an epoch is
    found by looking one batch ahead.
    """

    def __init__(
        self,
        open_loader: Callable[[], Iterable[Any]],
        *,
        seed: int = 0,
        epoch_batches: int | None = None,
        limit_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        self._open_loader = open_loader
        self._epoch_batches = epoch_batches
        self._limit = limit_bytes
        self._first_state = rng_state() if seed == 0 else _seeded(seed)
        self._kept: list[tuple[list[Any], TreeSpec]] = []
        self._bytes = 0
        self._full = False
        self._ends: list[int] = []  # for each finished epoch, the index after its last batch
        self._rewind()

    def _rewind(self) -> None:
        self._iterator: Iterator[Any] | None = None
        self._loader: Iterable[Any] | None = None
        self._state: RngState = self._first_state
        self._next = 0

    def __getitem__(self, index: int) -> Any:
        """Return batch `index`, counted from 0 over all epochs. Raises `UnsupportedModuleError` when the data end."""
        if index < len(self._kept):
            return _copied(self._kept[index])
        if index < self._next:
            self._rewind()
        while True:
            batch = self._drawn()
            at = self._next
            self._next += 1
            leaves, spec = tree_flatten(batch)
            self._keep(at, leaves, spec)
            if at == index:
                return _copied((leaves, spec))

    def is_last_of_epoch(self, index: int) -> bool:
        """Tell whether batch `index` ends its epoch."""
        if self._epoch_batches is not None:
            return (index + 1) % self._epoch_batches == 0
        if not self._ends or index >= self._ends[-1]:
            self[index + 1]
        return index + 1 in self._ends

    def epoch_after(self, index: int) -> int:
        """Find the first batch of the epoch after that of batch `index`."""
        while not self.is_last_of_epoch(index):
            index += 1
        return index + 1

    def _drawn(self) -> Any:
        outside = rng_state()
        set_rng_state(self._state)
        try:
            for _ in range(2):
                if self._loader is None:
                    self._loader = self._open_loader()
                if self._iterator is None:
                    self._iterator = iter(self._loader)
                try:
                    return next(self._iterator)
                except StopIteration:
                    self._iterator = None
                    if self._next not in self._ends:
                        self._ends.append(self._next)
            if self._next == 0:
                raise no_batch()
            raise UnsupportedModuleError(
                f"the training data ended for good after {self._next} batches, before a trial did; "
                "a loader that can be iterated only once cannot be searched over"
            )
        finally:
            self._state = rng_state()
            set_rng_state(outside)

    def _keep(self, index: int, leaves: list[Any], spec: TreeSpec) -> None:
        if self._full or index != len(self._kept):
            return
        size = sum(map(_nbytes, leaves))
        if self._bytes + size > self._limit:
            self._full = True
            return
        self._kept.append((leaves, spec))
        self._bytes += size


class TrialBatches:
    """The training's batches in as many orders as there are seeds, the same for every trial of a seed.

    `open_loader` gives a loader for a seed, as `BatchCache` opens one. Seed 0 is the order in which the training itself
    would draw them, if it is asked for under the random state that the training would begin with.
    """

    def __init__(self, open_loader: Callable[[int], Iterable[Any]], epoch_batches: int | None) -> None:
        self._open_loader = open_loader
        self._epoch_batches = epoch_batches
        self._by_seed: dict[int, BatchCache] = {}

    def of(self, seed: int) -> BatchCache:
        """Return the batches in this seed's order."""
        if seed not in self._by_seed:
            opened = functools.partial(self._open_loader, seed)
            self._by_seed[seed] = BatchCache(opened, seed=seed, epoch_batches=self._epoch_batches)
        return self._by_seed[seed]

    def first(self, count: int) -> list[Any]:
        """Read the first batches that the training itself would draw, without those that are None, to be skipped."""
        batches = (self.of(0)[index] for index in range(_MOST_SKIPPED + count))
        return list(itertools.islice((batch for batch in batches if batch is not None), count))


def no_batch() -> UnsupportedModuleError:
    """Make the error for a loader that is empty."""
    return UnsupportedModuleError(
        "the training loader gives no batch; with drop_last=True that is so when there are fewer samples "
        "than a batch has, so make the batch smaller or keep the last one"
    )


def _seeded(seed: int) -> RngState:
    with rng_isolated():
        seed_rng(seed)
        return rng_state()


def _nbytes(value: Any, depth: int = 4) -> int:
    """Estimate the memory that `value` holds: also where tensors or arrays are inside objects of other libraries."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, np.ndarray):
        return value.nbytes
    size = sys.getsizeof(value)
    if depth:
        parts: list[Any] = list(vars(value).values()) if hasattr(value, "__dict__") else []
        parts += value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else ()
        size += sum(_nbytes(part, depth - 1) for part in parts)
    return size


def _copied(batch: tuple[list[Any], TreeSpec]) -> Any:
    """Copy a batch that a training step may change in place (many do: `batch.pop("labels")`, `x.sub_(mean)`)."""
    leaves, spec = batch
    return tree_unflatten(
        [leaf.clone() if isinstance(leaf, torch.Tensor) else copy.deepcopy(leaf) for leaf in leaves], spec
    )
