"""gluonts: a feed-forward network that forecasts series. Its validation windows are few; its training draws its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from gluonts.dataset.common import ListDataset
from gluonts.torch import SimpleFeedForwardEstimator

from tests.packages.running import Run

MONITOR = "val_loss"
EPOCHS = 10
AHEAD, BACK = 6, 24
# Of an epoch: the loader is a stream, so a share of the training means nothing.
STREAMED_STEPS = 12


def series(run: Run, part: str, count: int, length: int = 60) -> list[Any]:
    """Noisy waves of some phase and height."""
    rng = run.draw(part)
    phase, height = rng.uniform(0, 6.28, (count, 1)), rng.uniform(0.5, 2, (count, 1))
    waves = height * np.sin(phase + 0.4 * np.arange(length)) + 0.2 * rng.normal(size=(count, length))
    entries = [{"start": pd.Period("2020-01-01", "D"), "target": wave} for wave in waves]
    return list(ListDataset(entries, freq="D"))


def train(run: Run) -> float:
    trainer = {name: value for name, value in run.quiet.items() if name != "max_epochs"}
    estimator = SimpleFeedForwardEstimator(
        prediction_length=AHEAD,
        context_length=BACK,
        hidden_dimensions=[16, 16],
        batch_size=16,
        num_batches_per_epoch=STREAMED_STEPS,
        trainer_kwargs={**trainer, "max_epochs": run.epochs},
    )
    output = estimator.train_model(series(run, "train", 60), series(run, "val", 20))
    losses = []
    for entry in series(run, "test", 200):
        target = torch.as_tensor(entry["target"], dtype=torch.float32)[None]
        with torch.no_grad():
            seen = torch.ones(1, AHEAD)
            losses.append(
                output.trained_net.model.loss(
                    past_target=target[:, -AHEAD - BACK : -AHEAD],
                    future_target=target[:, -AHEAD:],
                    future_observed_values=seen,
                ).mean()
            )
    return float(torch.stack(losses).mean())


def example(run: Run) -> dict[str, Any]:
    """Name what the page takes as the reader's own."""
    return {"training_series": series(run, "train", 8), "validation_series": series(run, "val", 4)}
