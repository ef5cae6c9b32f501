"""darts: N-BEATS on series, with the arguments of its trainer."""

from __future__ import annotations

from typing import Any

import numpy as np
from darts import TimeSeries
from darts.models import NBEATSModel

from tests.packages.running import Run

MONITOR = "val_loss"
EPOCHS = 8
AHEAD, BACK = 6, 24


def series(run: Run, part: str, count: int, length: int = 60) -> list[Any]:
    """Noisy waves of some phase and height."""
    rng = run.draw(part)
    phase, height = rng.uniform(0, 6.28, (count, 1)), rng.uniform(0.5, 2, (count, 1))
    waves = height * np.sin(phase + 0.4 * np.arange(length)) + 0.2 * rng.normal(size=(count, length))
    return [TimeSeries.from_values(wave.astype(np.float32)) for wave in waves]


def train(run: Run) -> float:
    trainer = {name: value for name, value in run.quiet.items() if name not in ("max_epochs", "logger")}
    model = NBEATSModel(
        input_chunk_length=BACK,
        output_chunk_length=AHEAD,
        generic_architecture=True,
        num_stacks=2,
        num_blocks=1,
        num_layers=2,
        layer_widths=32,
        batch_size=32,
        n_epochs=run.epochs,
        random_state=run.seed,
        pl_trainer_kwargs={**trainer, "logger": False},
    )
    model.fit(series(run, "train", 20), val_series=series(run, "val", 10), verbose=False)
    test = series(run, "test", 60)
    forecasts = model.predict(AHEAD, [each[:-AHEAD] for each in test], verbose=False)
    errors = [forecast.values() - truth[-AHEAD:].values() for forecast, truth in zip(forecasts, test, strict=True)]
    return float(np.mean(np.square(errors)))


def example(run: Run) -> dict[str, Any]:
    """Name what the page takes as the reader's own."""
    return {"series": series(run, "train", 4), "later_series": series(run, "val", 2)}
