"""Thirteen small trainings of other kinds, that nothing in optselect was set on.

Each differs from those of `tasks` in its loss, its data or its model. They were chosen by kind alone, before any
method but the default ran on them. Who changes optselect after a look at them takes others.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F

from optselect.recipes.bench import made, models, sources
from optselect.recipes.bench.losses import negative_evidence, next_character
from optselect.recipes.bench.task import Task

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
        loss=negative_evidence,
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
        loss=next_character,
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
        loss=next_character,
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
