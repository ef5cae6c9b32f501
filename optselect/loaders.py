"""Reading a loader for trials without moving the loader itself."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

T = TypeVar("T")


def trial_loader(loader: Iterable[Any], seed: int = 0) -> Iterable[Any]:
    """`loader` for trials: a twin of a DataLoader, anything else itself.

    The twin has no persistent workers (the loader's own would be left in the middle of an epoch, which
    silently shortened the real run: measured), shallow copies of the data set of a stream and of the
    samplers, so that a position they keep on themselves stays where it was, and generators of its own:
    clones for `seed` 0, seeded ones otherwise.
    """
    if not isinstance(loader, DataLoader):
        return loader
    generators: dict[int, torch.Generator] = {}
    twin = _twin(loader, generators, seed)
    # Straight into __dict__: a DataLoader refuses to change these after __init__.
    vars(twin).update(_iterator=None, persistent_workers=False)
    if isinstance(loader.dataset, IterableDataset):
        vars(twin)["dataset"] = _twin(loader.dataset, generators, seed)
    for name in ("sampler", "batch_sampler"):
        sampler = _twin(getattr(loader, name), generators, seed)
        if hasattr(sampler, "sampler"):
            sampler.sampler = _twin(sampler.sampler, generators, seed)
        vars(twin)[name] = sampler
    return twin


def _twin(owner: T, generators: dict[int, torch.Generator], seed: int) -> T:
    twin = copy.copy(owner)
    for name, value in vars(owner).items() if hasattr(owner, "__dict__") else ():
        if isinstance(value, torch.Generator):
            # A loader and its sampler share one generator; so do their twins.
            if id(value) not in generators:
                generators[id(value)] = value.clone_state()
                if seed:
                    generators[id(value)].manual_seed(seed)
            vars(twin)[name] = generators[id(value)]
    return twin


def loader_generators(loader: Any) -> Iterator[torch.Generator | np.random.Generator]:
    """Random generators that `loader`, its samplers and its data set hold."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    owners = (loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    for owner in (*owners, getattr(loader, "dataset", None)):
        for value in vars(owner).values() if hasattr(owner, "__dict__") else ():
            if isinstance(value, torch.Generator | np.random.Generator):
                yield value
