"""Ten small real trainings, each of another kind, and seven that optselect was not made on; `strange` has others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import nn

from optselect.errors import ConfigurationError, nearest
from optselect.recipes.bench import minilm, models, sources
from optselect.recipes.bench.losses import next_character
from optselect.recipes.bench.strange import STRANGE
from optselect.recipes.bench.task import Task

_ALL = (
    Task(
        name="digits",
        family="tables",
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
        family="tables",
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
        family="tables",
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
        family="recurrent",
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
        family="factorisation",
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
        family="language",
        summary="causal transformer, characters",
        read=sources.bible,
        sizes=(28_000, 144, 480),
        model=lambda _: models.CharacterModel(sources.BIBLE_ALPHABET),
        loss=next_character,
        batch_size=12,
        steps=250,
    ),
    Task(
        name="mnist-cnn",
        family="convolutions",
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
        family="bags",
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
        family="vision transformers",
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
        family="fine-tuning",
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
        family="tables",
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
        family="tables",
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
        family="tables",
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
        family="sequences",
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
        family="recurrent",
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
        family="sequences",
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
        family="vision transformers",
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

# What the transfer of learning rates to longer trainings is measured on: asked for by name.
LONG: Mapping[str, Task] = {
    task.name: task
    for task in (
        TASKS["digits"].long(("adamw", "nadam", "muon")),
        TASKS["letter"].long(("adamw", "nadam", "muon")),
        TASKS["ml-100k"].long(("adamw", "nadam", "adagrad")),
    )
}


def named(names: Sequence[str]) -> list[Task]:
    """Find the tasks of these names; "unseen", "other" and "long" mean all of their kind, "all" all but the long ones.

    Raises `ConfigurationError` on a name that is none.
    """
    known = {name: [task] for name, task in {**TASKS, **UNSEEN, **STRANGE, **LONG}.items()} | {
        "unseen": [*UNSEEN.values()],
        "other": [*STRANGE.values()],
        "long": [*LONG.values()],
        "all": [*TASKS.values(), *UNSEEN.values(), *STRANGE.values()],
    }
    for name in names:
        if name not in known:
            raise ConfigurationError(f"there is no task {name!r}.{nearest(name, known)} Known: {', '.join(known)}")
    return [task for name in names for task in known[name]]
