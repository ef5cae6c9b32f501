"""neuralforecast: NHITS, whose keyword arguments go to its trainer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from neuralforecast import NeuralForecast
from neuralforecast.losses.pytorch import MSE
from neuralforecast.models import NHITS

from tests.packages.running import Run

MONITOR = "ptl/val_loss"
EPOCHS = 8
AHEAD, BACK = 6, 24
# All series are one batch, hence an epoch one step; the training's length is given in steps.
STEPS = 12


def series(run: Run, part: str, count: int, length: int) -> Any:
    """Noisy waves of some phase and height, a row a day."""
    rng = run.draw(part)
    phase, height = rng.uniform(0, 6.28, (count, 1)), rng.uniform(0.5, 2, (count, 1))
    waves = height * np.sin(phase + 0.4 * np.arange(length)) + 0.2 * rng.normal(size=(count, length))
    days = pd.date_range("2020-01-01", periods=length)
    return pd.DataFrame(
        {
            "unique_id": np.repeat(np.arange(count), length),
            "ds": np.tile(days, count),
            "y": waves.ravel(),
        }
    )


def train(run: Run) -> float:
    trainer = {name: value for name, value in run.quiet.items() if name != "max_epochs"}
    model = NHITS(
        h=AHEAD,
        input_size=BACK,
        loss=MSE(),
        max_steps=STEPS * run.epochs,
        val_check_steps=STEPS,
        mlp_units=[[32, 32]] * 3,
        windows_batch_size=32,
        random_seed=run.seed,
        **trainer,
    )
    forecasts = NeuralForecast(models=[model], freq="D")
    forecasts.fit(series(run, "train", 30, 60), val_size=2 * AHEAD)
    test = series(run, "test", 60, 60)
    known = test.groupby("unique_id").head(60 - AHEAD)
    truth = test.groupby("unique_id").tail(AHEAD)
    predicted = forecasts.predict(known)
    return float(np.mean(np.square(predicted["NHITS"].to_numpy() - truth["y"].to_numpy())))


def example(run: Run) -> dict[str, Any]:
    """Name what the page takes as the reader's own."""
    return {"frame": series(run, "train", 4, 80)}
