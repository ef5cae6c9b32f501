"""A task is a plain PyTorch training: data, a model, a loss, a batch size and a length.

`workload` shows it to optselect as a user would; `training.train` is the same training as a bare loop, for everything
else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from optselect import TorchWorkload
from optselect.errors import ConfigurationError
from optselect.recipes.bench.sources import Tensors

# Part of the cached files' names: raise it when what is read changes.
_CACHE_VERSION = 1
_SPLIT_SEED = 0
_ORDER_SEED = 1_000


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Three sets of examples: to train on, to choose by, and to judge by what was chosen."""

    train: Tensors
    val: Tensors
    test: Tensors


@dataclass(frozen=True, kw_only=True)
class Task:
    """One training.

    family  kind of training, by which whole kinds are left out where something learned is judged
    read    all examples as tensors of equal length, the target last
    sizes   examples in train, val and test
    model   a new model; its argument says whether embeddings give sparse gradients
    sparse  whether they do as the task stands. What cannot train them gets a model with dense gradients of
            the same values
    steps   gradient steps of the training, T
    judges  trainings, each with another fresh seed, that a choice is judged by: more where seeds differ much
    rivals  optimizers of the grid that the oracle is the best of (None: all)
    takes_derivatives
            whether the model takes some by its inputs, so that it needs gradients where it is judged, too
    """

    name: str
    family: str
    summary: str
    read: Callable[[], Tensors]
    sizes: tuple[int, int, int]
    model: Callable[[bool], nn.Module]
    loss: Callable[[Any, Tensor], Tensor]
    batch_size: int
    steps: int
    sparse: bool = False
    judges: int = 5
    rivals: tuple[str, ...] | None = None
    takes_derivatives: bool = False

    @property
    def fresh_seeds(self) -> range:
        """Those that no search uses: searches have 0, 1, 2 and so on."""
        return range(101, 101 + self.judges)

    def splits(self, cache: Path) -> Splits:
        """Return the data, shuffled and split once with a fixed seed, and kept in `cache`."""
        sizes = "-".join(map(str, self.sizes))
        file = cache / f"{self.name}-{sizes}-{_CACHE_VERSION}.pt"
        if not file.exists():
            _write(file, self._split())
        return Splits(**{name: tuple(tensors) for name, tensors in torch.load(file, weights_only=True).items()})

    def _split(self) -> dict[str, list[Tensor]]:
        tensors = self.read()
        order = torch.randperm(len(tensors[0]), generator=torch.Generator().manual_seed(_SPLIT_SEED))
        if sum(self.sizes) > len(order):
            raise ConfigurationError(
                f"{self.name} has {len(order)} examples, fewer than its sizes {self.sizes} ask for"
            )
        parts = order[: sum(self.sizes)].split(self.sizes)
        return {
            name: [tensor[rows].clone() for tensor in tensors]
            for name, rows in zip(("train", "val", "test"), parts, strict=True)
        }

    def new_model(self, seed: int, *, sparse: bool | None = None) -> nn.Module:
        """Make a model whose weights `seed` decides; `sparse` None: gradients as the task has them."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.model(self.sparse if sparse is None else sparse)

    def lasting(self, steps: int) -> Task:
        """Return the same training with another length."""
        return replace(self, steps=steps)

    def long(self, rivals: tuple[str, ...]) -> Task:
        """Return the same training ten times as long, under a name of its own, with a smaller grid and fewer judges."""
        return replace(self, name=f"{self.name}-long", steps=10 * self.steps, judges=3, rivals=rivals)


class Shuffled(Sampler[int]):
    """A new order of all rows in each epoch: the one that `orders` gives for the same seed."""

    def __init__(self, data: Sized, seed: int) -> None:
        self.rows = len(data)
        self.generator = torch.Generator().manual_seed(_ORDER_SEED + seed)

    def __iter__(self) -> Iterator[int]:
        yield from torch.randperm(self.rows, generator=self.generator).tolist()

    def __len__(self) -> int:
        return self.rows


def orders(rows: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Yield the rows of one batch after another without end; an epoch's last, smaller batch is left out."""
    generator = torch.Generator().manual_seed(_ORDER_SEED + seed)
    while True:
        epoch = torch.randperm(rows, generator=generator)
        yield from epoch[: rows // batch_size * batch_size].split(batch_size)


def training_loader(task: Task, data: Splits, seed: int) -> DataLoader[Tensors]:
    """Load the batches of `orders` as a DataLoader."""
    train = TensorDataset(*data.train)
    return DataLoader(train, batch_size=task.batch_size, sampler=Shuffled(train, seed), drop_last=True)


def workload(task: Task, data: Splits, seed: int) -> TorchWorkload:
    """Make `task` a workload as optselect sees it: model, loss, loaders and length, and no optimizer."""
    validation = DataLoader(TensorDataset(*data.val), batch_size=task.batch_size)
    return TorchWorkload(
        task.new_model(seed), task.loss, training_loader(task, data, seed), validation, steps=task.steps
    )


def validation_cost(task: Task) -> float:
    """Return what one look at the validation set costs, in gradient steps: a third for each batch."""
    return -(-task.sizes[1] // task.batch_size) / 3


def default_cache() -> Path:
    """Name `optselect/bench` under the user's cache folder, as the XDG specification says."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "optselect" / "bench"


def _write(file: Path, content: Mapping[str, list[Tensor]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # Another process may be writing the same file: each has its own, and the last rename stays.
    partial = file.with_suffix(f".{os.getpid()}")
    torch.save(dict(content), partial)
    partial.replace(file)
