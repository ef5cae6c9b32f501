"""The training of which a checkpoint is kept: tiny, in double precision, every random number by a generator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tests.laws.trainings import clusters, seeded

EPOCHS, STEPS_PER_EPOCH = 2, 12


class FixtureModule(L.LightningModule):
    """Three classes, without dropout: what a step does depends on its batch alone."""

    def __init__(self) -> None:
        super().__init__()
        self.net = seeded(lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), seed=11)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))


class StopAfter(L.Callback):
    """Ends a fit after some epochs, its configuration being that of the longer run."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


def fit(*callbacks: L.Callback, ckpt_path: Path | None = None) -> tuple[L.Trainer, FixtureModule]:
    """Both epochs, unless a callback stops before; on from a checkpoint where there is one."""
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=EPOCHS,
        callbacks=list(callbacks),
    )
    module = FixtureModule()
    train = DataLoader(
        clusters(16 * STEPS_PER_EPOCH), batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(12)
    )
    trainer.fit(module, train, DataLoader(clusters(48, offset=1), batch_size=48), ckpt_path=ckpt_path)
    return trainer, module


def standing(trainer: L.Trainer, module: L.LightningModule) -> dict[str, Any]:
    """Where a fit has come to, in plain words: its optimizer, the steps in its state, its rates and its weights."""
    (optimizer,) = trainer.optimizers
    return {
        "optimizer": type(optimizer).__name__,
        "steps": sorted({int(state["step"]) for state in optimizer.state.values()}),
        "rates": [group["lr"] for group in optimizer.param_groups],
        "global_step": trainer.global_step,
        "weights": {name: value.flatten().tolist() for name, value in module.state_dict().items()},
    }
