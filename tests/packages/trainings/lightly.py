"""lightly: SimCLR of its head and loss on two views of small vectors, with an optimizer as its examples write it."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.packages.running import Run

MONITOR = None
EPOCHS = 8
WIDTH = 24


class SimCLR(pl.LightningModule):
    """Draws two noisy views of a batch in its step."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(WIDTH, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32))
        self.head = SimCLRProjectionHead(32, 32, 16)
        self.criterion = NTXentLoss()
        # The package leaves it as the memory was, and without a bank reads it nowhere.
        self.criterion.memory_bank.bank_ptr.zero_()

    def loss(self, batch: Any) -> Tensor:
        views = [self.head(self.backbone(batch[0] + 0.5 * torch.randn_like(batch[0]))) for _ in range(2)]
        loss: Tensor = self.criterion(*views)
        return loss

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.06)


def vectors(run: Run, part: str, count: int) -> TensorDataset:
    """Points of a curved surface."""
    inner = torch.as_tensor(run.draw(part).normal(size=(count, 4)), dtype=torch.float32)
    surface = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(3))
    return TensorDataset(torch.sin(inner @ surface))


def train(run: Run) -> float:
    loaders = {
        part: DataLoader(vectors(run, part, count), batch_size=64, shuffle=part == "train", drop_last=True)
        for part, count in (("train", 640), ("val", 256), ("test", 1024))
    }
    model = SimCLR()
    trainer = pl.Trainer(**run.quiet, enable_checkpointing=False)
    trainer.fit(model, loaders["train"], loaders["val"])
    torch.manual_seed(0)  # the views of the test
    return float(trainer.validate(model, loaders["test"], verbose=False)[0]["val_loss"])


def example(run: Run) -> dict[str, Any]:
    """Name what the page takes as the reader's own."""
    return {
        "module": SimCLR(),
        "train_loader": DataLoader(vectors(run, "train", 64), batch_size=16, shuffle=True),
        "val_loader": DataLoader(vectors(run, "val", 32), batch_size=16),
    }
