"""Trainings with parts that join later, for ddp_run.py.

thaws    writes FOLDER/thaws.RANK.pt: the first layer's weights at the beginning, after the first epoch and at the end
refuses  does not look for unused parameters; writes the error into FOLDER/refuses.RANK.txt
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader

from optselect import AutoOptimizer, FineTuning, Thaw
from optselect.errors import ConfigurationError
from tests.distributed.data import rows


class Model(L.LightningModule):
    """A layer that joins and a head; the two processes' gradients differ, as their batches do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 16)
        self.head = nn.Linear(16, 3)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.head(torch.tanh(self.body(batch[0]))), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        scores = self.head(torch.tanh(self.body(batch[0])))
        self.log("val_loss", F.cross_entropy(scores, batch[1]), sync_dist=True)


class Watch(L.Callback):
    """Keeps a copy of the first layer at the beginning of each epoch, and at the end."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.seen.append(pl_module.body.weight.detach().clone())

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.seen.append(pl_module.body.weight.detach().clone())


def fit(folder: Path, strategy: str) -> tuple[L.Trainer, list[Tensor]]:
    """Two epochs; the first layer joins at the second."""
    torch.manual_seed(0)
    watch = Watch()
    auto = AutoOptimizer(budget=0, candidates=["adamw"], fine_tuning=FineTuning(thaw=Thaw(epoch=1)))
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        max_epochs=2,
        callbacks=[auto, watch],
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Model(), DataLoader(rows(), batch_size=8, shuffle=True), DataLoader(rows(), batch_size=32))
    return trainer, watch.seen


def thaws(folder: Path) -> None:
    trainer, seen = fit(folder, "ddp_find_unused_parameters_true")
    torch.save(seen, folder / f"thaws.{trainer.global_rank}.pt")


def refuses(folder: Path) -> None:
    try:
        fit(folder, "ddp")
    except ConfigurationError as error:
        (folder / f"refuses.{distributed.get_rank()}.txt").write_text(str(error))


VARIANTS = {"thaws": thaws, "refuses": refuses}
