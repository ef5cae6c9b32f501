"""Ten small trainings, each of another kind, and two groups that optselect was not made on: seven, and thirteen.

A task is a plain PyTorch training: data, a model, a loss, a batch size and a length. `workload` shows it to
optselect as a user would; `training.train` is the same training as a bare loop, for everything else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from optselect import TorchWorkload
from optselect.errors import ConfigurationError, nearest
from optselect.recipes.bench import made, minilm, models, sources
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


def named(names: Sequence[str]) -> list[Task]:
    """Find the tasks of these names; "unseen", "other" and "long" mean all of their kind.

    Raises `ConfigurationError` on a name that is none.
    """
    known = {name: [task] for name, task in {**TASKS, **UNSEEN, **STRANGE, **LONG}.items()} | {
        "unseen": [*UNSEEN.values()],
        "other": [*STRANGE.values()],
        "long": [*LONG.values()],
    }
    for name in names:
        if name not in known:
            raise ConfigurationError(f"there is no task {name!r}.{nearest(name, known)} Known: {', '.join(known)}")
    return [task for name in names for task in known[name]]


def _write(file: Path, content: Mapping[str, list[Tensor]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # Another process may be writing the same file: each has its own, and the last rename stays.
    partial = file.with_suffix(f".{os.getpid()}")
    torch.save(dict(content), partial)
    partial.replace(file)


def _next_character(scores: Tensor, characters: Tensor) -> Tensor:
    return F.cross_entropy(scores.flatten(0, 1), characters.flatten())


def _negative_evidence(output: tuple[Tensor, Tensor, Tensor], pixels: Tensor) -> Tensor:
    """Bound the evidence from below: Kingma, Welling 2014, arXiv:1312.6114. Summed over pixels, as they do."""
    logits, mean, log_variance = output
    told = F.binary_cross_entropy_with_logits(logits, pixels, reduction="sum")
    divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2
    return (told + divergence) / len(pixels)


_ALL = (
    Task(
        name="digits",
        summary="perceptron, 8 x 8 pixels",
        read=sources.digits,
        sizes=(1_000, 300, 497),
        model=lambda _: models.perceptron(64, 128, 10),
        loss=F.cross_entropy,
        batch_size=64,
        steps=400,
        judges=16,
    ),
    Task(
        name="diabetes",
        summary="perceptron, regression on 242 rows",
        read=sources.diabetes,
        sizes=(242, 80, 120),
        model=lambda _: models.regression(10, 64),
        loss=F.mse_loss,
        batch_size=32,
        steps=300,
        judges=16,
    ),
    Task(
        name="letter",
        summary="perceptron, a table of 16 columns, 26 classes",
        read=lambda: sources.keel("letter"),
        sizes=(14_000, 1_024, 4_000),
        model=lambda _: models.perceptron(16, 192, 26),
        loss=F.cross_entropy,
        batch_size=128,
        steps=800,
    ),
    Task(
        name="vowels",
        summary="LSTM, speech",
        read=sources.vowels,
        sizes=(270, 120, 250),
        model=lambda _: models.Recurrent(12, 64, 9),
        loss=F.cross_entropy,
        batch_size=32,
        steps=300,
        judges=10,
    ),
    Task(
        name="ml-100k",
        summary="matrix factorisation, sparse gradients",
        read=sources.movielens,
        sizes=(80_000, 5_120, 14_880),
        model=lambda sparse: models.Factorisation(943, 1_682, 32, sparse=sparse),
        loss=F.mse_loss,
        batch_size=256,
        steps=800,
        sparse=True,
    ),
    Task(
        name="kjv",
        summary="causal transformer, characters",
        read=sources.bible,
        sizes=(28_000, 144, 480),
        model=lambda _: models.CharacterModel(sources.BIBLE_ALPHABET),
        loss=_next_character,
        batch_size=12,
        steps=250,
    ),
    Task(
        name="mnist-cnn",
        summary="convolutions with BatchNorm",
        read=sources.mnist,
        sizes=(3_400, 512, 1_088),
        model=lambda _: models.convolutional(10),
        loss=F.cross_entropy,
        batch_size=32,
        steps=200,
    ),
    Task(
        name="reviews",
        summary="bag of words, sparse gradients",
        read=sources.reviews,
        sizes=(26_000, 1_536, 5_000),
        model=lambda sparse: models.WordBag(sources.VOCABULARY, 32, sparse=sparse),
        loss=F.cross_entropy,
        batch_size=64,
        steps=400,
        sparse=True,
    ),
    Task(
        name="mnist-vit",
        summary="vision transformer",
        read=sources.mnist,
        sizes=(3_400, 512, 1_088),
        model=lambda _: models.PatchTransformer(10),
        loss=F.cross_entropy,
        batch_size=32,
        steps=300,
        judges=10,
    ),
    Task(
        name="minilm",
        summary="pretrained transformer layer, fine-tuned",
        read=minilm.sentences,
        sizes=(2_000, 256, 1_000),
        model=lambda _: minilm.MiniLMTop(),
        loss=F.cross_entropy,
        batch_size=16,
        steps=120,
    ),
)

TASKS: Mapping[str, Task] = {task.name: task for task in _ALL}

# Trainings that no rule, centre or constant of optselect was set on: asked for by name. Their data, kinds and sizes
# were fixed before any method ran on them. Who changes optselect after a look at them takes others.
_UNSEEN = (
    Task(
        name="magic",
        summary="perceptron, a table of 10 columns, 2 classes",
        read=lambda: sources.keel("magic"),
        sizes=(12_000, 1_024, 5_000),
        model=lambda _: models.perceptron(10, 96, 2),
        loss=F.cross_entropy,
        batch_size=128,
        steps=600,
        judges=8,
    ),
    Task(
        name="texture",
        summary="perceptron, a table of 40 columns, 11 classes",
        read=lambda: sources.keel("texture"),
        sizes=(3_500, 500, 1_500),
        model=lambda _: models.perceptron(40, 96, 11),
        loss=F.cross_entropy,
        batch_size=64,
        steps=300,
        judges=8,
    ),
    Task(
        name="segment",
        summary="perceptron, a small table of 19 columns, 7 classes",
        read=lambda: sources.keel("segment"),
        sizes=(450, 130, 1_700),
        model=lambda _: models.perceptron(19, 64, 7),
        loss=F.cross_entropy,
        batch_size=32,
        steps=300,
        judges=8,
    ),
    Task(
        name="splice",
        summary="convolutions with BatchNorm, letters of DNA",
        read=sources.splice,
        sizes=(2_000, 300, 890),
        model=lambda _: models.LetterConvolutions(sources.DNA_ALPHABET, 60, 3),
        loss=F.cross_entropy,
        batch_size=32,
        steps=200,
        judges=8,
    ),
    Task(
        name="penbased",
        summary="GRU, points along a pen's stroke",
        read=sources.pen_strokes,
        sizes=(7_000, 1_000, 2_900),
        model=lambda _: models.Recurrent(2, 64, 10, kind=nn.GRU),
        loss=F.cross_entropy,
        batch_size=64,
        steps=300,
        judges=8,
    ),
    Task(
        name="chess",
        summary="transformer over the columns of a table",
        read=sources.chess,
        sizes=(2_000, 300, 890),
        model=lambda _: models.ColumnTransformer(sources.CHESS_CODES, 2),
        loss=F.cross_entropy,
        batch_size=16,
        steps=200,
        judges=8,
    ),
    Task(
        name="optdigits",
        summary="vision transformer, 8 x 8 pixels",
        read=sources.written_digits,
        sizes=(3_500, 512, 1_500),
        model=lambda _: models.PatchTransformer(10, side=2, width=32),
        loss=F.cross_entropy,
        batch_size=32,
        steps=200,
        judges=8,
    ),
)

UNSEEN: Mapping[str, Task] = {task.name: task for task in _UNSEEN}

# Other kinds of training that nothing was set on, either: each differs from all above in its loss, its data or its
# model. They were chosen by kind alone, before any method but the default ran on them.
_STRANGE = (
    Task(
        name="autoencoder",
        summary="autoencoder, squared error of 28 x 28 pixels",
        read=made.pictures_twice,
        sizes=(3_400, 512, 1_088),
        model=lambda _: models.autoencoder(784, 128, 16),
        loss=F.mse_loss,
        batch_size=64,
        steps=600,
        judges=8,
    ),
    Task(
        name="vae",
        summary="variational autoencoder, evidence summed over 8 x 8 pixels",
        read=made.digits_twice,
        sizes=(1_000, 300, 497),
        model=lambda _: models.VariationalAutoencoder(64, 256, 8),
        loss=_negative_evidence,
        batch_size=50,
        steps=800,
        judges=8,
    ),
    Task(
        name="counts",
        summary="perceptron, counts by the Poisson likelihood",
        read=made.counts,
        sizes=(4_000, 500, 2_500),
        model=lambda _: models.regression(6, 128),
        loss=F.poisson_nll_loss,
        batch_size=64,
        steps=800,
        judges=8,
    ),
    Task(
        name="tail",
        summary="perceptron, 26 classes of 700 rows down to 14",
        read=made.rare_letters,
        sizes=(3_200, 500, 1_000),
        model=lambda _: models.perceptron(16, 192, 26),
        loss=F.cross_entropy,
        batch_size=64,
        steps=800,
        judges=8,
    ),
    Task(
        name="noisy",
        summary="perceptron, a table of 36 columns, 30 % of all labels random",
        read=lambda: made.mislabelled("satimage"),
        sizes=(4_000, 500, 1_900),
        model=lambda _: models.perceptron(36, 192, 6),
        loss=F.cross_entropy,
        batch_size=64,
        steps=800,
        judges=8,
    ),
    Task(
        name="vehicle",
        summary="wide perceptron, a hundred passes over 150 rows",
        read=lambda: sources.keel("vehicle"),
        sizes=(150, 150, 546),
        model=lambda _: models.perceptron(18, 512, 4),
        loss=F.cross_entropy,
        batch_size=32,
        steps=400,
        judges=8,
    ),
    Task(
        name="kjv-gru",
        summary="GRU, characters",
        read=sources.bible,
        sizes=(28_000, 144, 480),
        model=lambda _: models.RecurrentCharacterModel(sources.BIBLE_ALPHABET, 32, 64),
        loss=_next_character,
        batch_size=16,
        steps=200,
        judges=8,
    ),
    Task(
        name="bytes",
        summary="causal transformer, bytes of UTF-8",
        read=sources.review_bytes,
        sizes=(28_000, 192, 512),
        model=lambda _: models.CharacterModel(256, width=48, window=sources.BYTE_WINDOW),
        loss=_next_character,
        batch_size=12,
        steps=250,
        judges=8,
    ),
    Task(
        name="burgers",
        summary="physics-informed perceptron, Burgers' equation",
        read=made.burgers_points,
        sizes=(3_000, 500, 1_500),
        model=lambda _: models.BurgersNet(32, made.VISCOSITY),
        loss=F.mse_loss,
        batch_size=128,
        steps=600,
        judges=8,
        takes_derivatives=True,
    ),
    Task(
        name="seasons",
        summary="dilated convolutions, forecasts by absolute error",
        read=made.seasons,
        sizes=(4_000, 500, 1_500),
        model=lambda _: models.DilatedConvolutions(made.SERIES_HORIZON, 24),
        loss=F.l1_loss,
        batch_size=32,
        steps=500,
        judges=8,
    ),
    Task(
        name="graphs",
        summary="graph convolutions, 4 families of graphs",
        read=made.graphs,
        sizes=(2_000, 400, 1_200),
        model=lambda _: models.GraphConvolutions(made.GRAPH_FEATURES, 48, made.GRAPH_FAMILIES),
        loss=F.cross_entropy,
        batch_size=32,
        steps=800,
        judges=8,
    ),
    Task(
        name="shapes",
        summary="convolutions with BatchNorm down and up, a class for each pixel",
        read=made.shapes,
        sizes=(1_200, 200, 600),
        model=lambda _: models.Segmentation(4, 8),
        loss=F.cross_entropy,
        batch_size=16,
        steps=250,
        judges=8,
    ),
    Task(
        name="pairs",
        summary="siamese perceptron, whether two digits are the same",
        read=made.digit_pairs,
        sizes=(1_700, 300, 800),
        model=lambda _: models.Siamese(64, 192, 16),
        loss=F.binary_cross_entropy_with_logits,
        batch_size=32,
        steps=800,
        judges=8,
    ),
)

STRANGE: Mapping[str, Task] = {task.name: task for task in _STRANGE}

# What the transfer of learning rates to longer trainings is measured on: asked for by name.
LONG: Mapping[str, Task] = {
    task.name: task
    for task in (
        TASKS["digits"].long(("adamw", "nadam", "muon")),
        TASKS["letter"].long(("adamw", "nadam", "muon")),
        TASKS["ml-100k"].long(("adamw", "nadam", "adagrad")),
    )
}
