"""pytorch-forecasting: DeepAR on series of its own data set, with the optimizer it takes by default."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
from pytorch_forecasting import DeepAR, TimeSeriesDataSet
from pytorch_forecasting.data import NaNLabelEncoder
from pytorch_forecasting.metrics import NormalDistributionLoss

from tests.packages.running import Run, loss_after_fit

MONITOR = "val_loss"
EPOCHS = 6


def series(run: Run, part: str, count: int, length: int = 40) -> Any:
    """Noisy waves of some phase and height, a row a day."""
    rng = run.draw(part)
    phase, height = rng.uniform(0, 6.28, (count, 1)), rng.uniform(0.5, 2, (count, 1))
    waves = height * np.sin(phase + 0.4 * np.arange(length)) + 0.2 * rng.normal(size=(count, length))
    return pd.DataFrame(
        {
            "series": np.repeat(np.arange(count), length).astype(str),
            "day": np.tile(np.arange(length), count),
            "value": waves.ravel(),
        }
    )


def sets_of(run: Run) -> dict[str, Any]:
    """Make the package's data sets."""
    training = TimeSeriesDataSet(
        series(run, "train", 20),
        time_idx="day",
        target="value",
        group_ids=["series"],
        min_encoder_length=16,
        max_encoder_length=16,
        max_prediction_length=4,
        time_varying_unknown_reals=["value"],
        categorical_encoders={"series": NaNLabelEncoder(add_nan=True)},
    )
    others = {
        part: TimeSeriesDataSet.from_dataset(training, series(run, part, count), stop_randomization=True)
        for part, count in (("val", 10), ("test", 30))
    }
    return {"train": training, **others}


def train(run: Run) -> float:
    sets = sets_of(run)
    loaders = {part: each.to_dataloader(train=part == "train", batch_size=32) for part, each in sets.items()}
    model = DeepAR.from_dataset(
        sets["train"], hidden_size=8, rnn_layers=1, learning_rate=1e-2, log_interval=-1, loss=NormalDistributionLoss()
    )
    trainer = pl.Trainer(**run.quiet, enable_checkpointing=False, gradient_clip_val=0.1)
    return loss_after_fit(trainer, model, loaders)


def example(run: Run) -> dict[str, Any]:
    """Name what the page takes as the reader's own."""
    sets = sets_of(run)
    return {"training": sets["train"], "validation": sets["val"]}
