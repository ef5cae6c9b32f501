"""scvi-tools: a variational autoencoder of counts, with the package's training plan."""

from __future__ import annotations

from typing import Any

import numpy as np
import scvi
from anndata import AnnData

from tests.packages.running import Run

MONITOR = "elbo_validation"
EPOCHS = 12
GENES = 60


def counts(run: Run, part: str, cells: int) -> Any:
    """Cells of five kinds, out of two laboratories."""
    programmes = np.random.default_rng(7).gamma(1.0, 1.5, (5, GENES))
    rng = run.draw(part)
    drawn = rng.poisson(programmes[rng.integers(5, size=cells)] * rng.gamma(2.0, 0.5, (cells, 1)))
    data = AnnData(drawn.astype(np.float32))
    data.obs["laboratory"] = rng.integers(2, size=cells).astype(str)
    return data


def train(run: Run) -> float:
    data = counts(run, "train", 500)
    scvi.model.SCVI.setup_anndata(data, batch_key="laboratory")
    scvi.settings.seed = run.seed  # the split into training and validation, too
    model = scvi.model.SCVI(data, n_latent=5, n_hidden=32)
    quiet = {name: value for name, value in run.quiet.items() if name not in ("max_epochs", "enable_model_summary")}
    model.train(max_epochs=run.epochs, batch_size=64, train_size=0.8, check_val_every_n_epoch=1, **quiet)
    scvi.settings.seed = run.seed  # of the latent draws
    return -float(model.get_elbo(counts(run, "test", 500)))


def example(run: Run) -> dict[str, Any]:
    """Name what the page takes as the reader's own."""
    return {"cells": counts(run, "train", 200)}
