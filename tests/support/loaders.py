"""Loaders of every kind that a training may bring."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, Sampler, WeightedRandomSampler

from tests.support.small import vectors

DATA = vectors(24)


class InPlace(Sampler[int]):
    """Shuffles a list of its own, as many samplers do, with a generator of its own kind."""

    def __init__(self, generator: Any = None, order: Any = None) -> None:
        self.order = list(range(24)) if order is None else order
        self.generator = generator or random
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        if isinstance(self.order, Tensor):
            self.order.copy_(self.order[torch.randperm(24)])
        else:
            self.generator.shuffle(self.order)
        return iter([int(index) for index in self.order])

    def __len__(self) -> int:
        return 24


class Stream(IterableDataset[Tensor]):
    """A stream that goes on where it stood, on itself."""

    def __init__(self) -> None:
        self.position = 0
        self.buffer = [0]

    def __iter__(self) -> Iterator[Tensor]:
        for _ in range(8):
            self.position += 1
            self.buffer.append(self.position)
            yield torch.tensor([self.position, len(self.buffer)])


class Own:
    """A loader of no known class, with a position, a generator and a list."""

    def __init__(self) -> None:
        self.epoch = 0
        self.generator = np.random.default_rng(0)
        self.order = list(range(6))

    def __iter__(self) -> Iterator[Tensor]:
        self.epoch += 1
        self.generator.shuffle(self.order)
        return iter([torch.tensor([index, self.epoch]) for index in self.order])


class Mover:
    """A wrapper around a loader, as those that move batches to a device."""

    def __init__(self, inner: DataLoader[Any]) -> None:
        self.inner = inner

    def __iter__(self) -> Iterator[Any]:
        return iter(self.inner)


def own_batches() -> DataLoader[Any]:
    sampler = RandomSampler(DATA, generator=torch.Generator().manual_seed(4))
    return DataLoader(DATA, batch_sampler=BatchSampler(sampler, batch_size=4, drop_last=False))


LOADERS: dict[str, Callable[[], Any]] = {
    "plain": lambda: DataLoader(DATA, batch_size=4),
    "shuffled": lambda: DataLoader(DATA, batch_size=4, shuffle=True),
    "generator": lambda: DataLoader(DATA, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(3)),
    "weighted": lambda: DataLoader(DATA, batch_size=4, sampler=WeightedRandomSampler([1.0] * 24, 24)),
    "batch sampler": own_batches,
    "in place, random": lambda: DataLoader(DATA, batch_size=4, sampler=InPlace()),
    "in place, Random": lambda: DataLoader(DATA, batch_size=4, sampler=InPlace(random.Random(1))),
    "in place, numpy": lambda: DataLoader(DATA, batch_size=4, sampler=InPlace(np.random.default_rng(1), np.arange(24))),
    "in place, legacy": lambda: DataLoader(DATA, batch_size=4, sampler=InPlace(np.random.RandomState(1))),
    "in place, torch": lambda: DataLoader(DATA, batch_size=4, sampler=InPlace(order=torch.arange(24))),
    "stream": lambda: DataLoader(Stream(), batch_size=4),
    "own class": Own,
    "wrapped": lambda: Mover(DataLoader(DATA, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(3))),
    "list": lambda: [torch.ones(2), torch.zeros(2)],
}
