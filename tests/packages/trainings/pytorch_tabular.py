"""pytorch-tabular: its CategoryEmbeddingModel, which keeps the best weights of the training."""

from __future__ import annotations

from typing import Any

import pandas as pd
from pytorch_tabular import TabularModel
from pytorch_tabular.config import DataConfig, OptimizerConfig, TrainerConfig
from pytorch_tabular.models import CategoryEmbeddingModelConfig

from tests.packages.running import Run

MONITOR = "valid_loss"
EPOCHS = 10
NAMES = [f"x{place}" for place in range(8)]


def table(run: Run, part: str, rows: int) -> Any:
    """A regression with a product and a kind in it."""
    rng = run.draw(part)
    frame = pd.DataFrame(rng.normal(size=(rows, len(NAMES))), columns=NAMES)
    frame["kind"] = rng.choice(list("abc"), size=rows)
    shift = frame["kind"].map({"a": -1.0, "b": 0.0, "c": 1.0})
    frame["y"] = frame["x0"] * frame["x1"] + frame["x2"] + shift + 0.3 * rng.normal(size=rows)
    return frame


def train(run: Run) -> float:
    model = TabularModel(
        data_config=DataConfig(target=["y"], continuous_cols=NAMES, categorical_cols=["kind"]),
        model_config=CategoryEmbeddingModelConfig(task="regression", layers="32-16"),
        optimizer_config=OptimizerConfig(),
        trainer_config=TrainerConfig(
            batch_size=32,
            max_epochs=run.epochs,
            accelerator="cpu",
            devices=1,
            early_stopping=None,
            progress_bar="none",
            checkpoints_path=str(run.folder / "checkpoints"),
            trainer_kwargs={"enable_model_summary": False, "default_root_dir": str(run.folder)},
        ),
        verbose=False,
        suppress_lightning_logger=True,
    )
    callbacks = list(run.callbacks)
    model.fit(train=table(run, "train", 400), validation=table(run, "val", 150), seed=run.seed, callbacks=callbacks)
    return float(model.evaluate(table(run, "test", 600), verbose=False)[0]["test_loss"])


def example(run: Run) -> dict[str, Any]:
    """Name what the page takes as the reader's own."""
    frames = {"train_frame": table(run, "train", 128), "val_frame": table(run, "val", 64)}
    return {**frames, "continuous": NAMES, "categorical": ["kind"]}
