"""finetuning-scheduler: trains the head first, then the layers under it, phase by phase."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
import yaml
from finetuning_scheduler import FinetuningScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.packages.running import Run, loss_after_fit

MONITOR = None
EPOCHS = 8


class Net(L.LightningModule):
    """A body and a head; the optimizer takes what trains at first, as the package wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
        self.head = nn.Linear(32, 1)

    def loss(self, batch: Any) -> Tensor:
        return F.mse_loss(self.head(self.body(batch[0])), batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW([each for each in self.parameters() if each.requires_grad], lr=1e-2)


def rows(run: Run, part: str, count: int) -> TensorDataset:
    """A regression with a product in it."""
    inputs = run.draw(part).normal(size=(count, 8)).astype(np.float32)
    targets = inputs[:, :1] * inputs[:, 1:2] + inputs[:, 2:3]
    return TensorDataset(torch.as_tensor(inputs), torch.as_tensor(targets))


def write_phases(path: Path, epochs: int) -> None:
    """Write which parameters train from which epoch on."""
    phases = {
        0: {"params": ["head.bias", "head.weight"], "max_transition_epoch": 2},
        1: {"params": ["body.0.bias", "body.0.weight"], "max_transition_epoch": epochs},
    }
    path.write_text(yaml.safe_dump(phases))


def train(run: Run) -> float:
    loaders = {
        part: DataLoader(rows(run, part, count), batch_size=32, shuffle=part == "train")
        for part, count in (("train", 320), ("val", 128), ("test", 1024))
    }
    schedule = run.folder / "phases.yaml"
    write_phases(schedule, run.epochs)
    phased = FinetuningScheduler(ft_schedule=str(schedule), epoch_transitions_only=True, restore_best=False)
    model = Net()
    trainer = L.Trainer(**{**run.quiet, "callbacks": [phased, *run.callbacks]}, enable_checkpointing=False)
    return loss_after_fit(trainer, model, loaders)


def example(run: Run) -> dict[str, Any]:
    """Name what the page takes as the reader's own."""
    write_phases(run.folder / "phases.yaml", run.epochs)
    return {
        "module": Net(),
        "train_loader": DataLoader(rows(run, "train", 64), batch_size=16, shuffle=True),
        "val_loader": DataLoader(rows(run, "val", 32), batch_size=16),
    }
