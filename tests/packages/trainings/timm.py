"""timm: one of its vision transformers with its optimizer factory and its cosine, stepped as Lightning documents it."""

from __future__ import annotations

from typing import Any

import lightning as L
import timm
import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from tests.packages.running import Run, loss_after_fit

MONITOR = None
EPOCHS = 12
SIDE = 16


class Net(L.LightningModule):
    """Its schedule is one of epochs."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs
        shape = {"img_size": SIDE, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}
        self.net = timm.create_model("vit_tiny_patch16_224", num_classes=4, in_chans=1, **shape)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = create_optimizer_v2(self.net, opt="adamw", lr=3e-3, weight_decay=0.05)
        return [optimizer], [{"scheduler": CosineLRScheduler(optimizer, t_initial=self.epochs), "interval": "epoch"}]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        scheduler.step(epoch=self.current_epoch)


def images(run: Run, part: str, count: int) -> TensorDataset:
    """Noise, of which one quarter is brighter."""
    rng = run.draw(part)
    labels = torch.as_tensor(rng.integers(4, size=count))
    pixels = torch.as_tensor(rng.normal(size=(count, 1, SIDE, SIDE)), dtype=torch.float32)
    for image, label in zip(pixels, labels.tolist(), strict=True):
        image[0].unflatten(0, (2, -1))[label // 2].unflatten(1, (2, -1))[:, label % 2] += 1.0
    return TensorDataset(pixels, labels)


def train(run: Run) -> float:
    loaders = {
        part: DataLoader(images(run, part, count), batch_size=32, shuffle=part == "train")
        for part, count in (("train", 768), ("val", 128), ("test", 512))
    }
    model = Net(run.epochs)
    trainer = L.Trainer(**run.quiet, enable_checkpointing=False)
    return loss_after_fit(trainer, model, loaders)


def example(run: Run) -> dict[str, Any]:
    """Name what the page takes as the reader's own."""
    return {
        "train_loader": DataLoader(images(run, "train", 64), batch_size=16, shuffle=True),
        "val_loader": DataLoader(images(run, "val", 32), batch_size=16),
    }
