"""Lightning's own learning rate finder on a plain model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.tuner.tuning import Tuner
from torch import Tensor, nn
from torch.utils.data import DataLoader

_STEPS = 100  # Lightning's default


def suggested_lr(
    model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], loader: DataLoader[Any], *, folder: str
) -> tuple[float | None, int]:
    """What `Tuner.lr_find` suggests for AdamW (None: nothing), and its steps. Its files go to `folder`."""
    trainer = L.Trainer(
        max_steps=_STEPS,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    found = Tuner(trainer).lr_find(_Wrapped(model, loss), loader, num_training=_STEPS)
    if found is None:
        return None, 0
    return found.suggestion(), len(found.results["lr"])


class _Wrapped(L.LightningModule):
    def __init__(self, model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.lr = 1e-3

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        *inputs, target = batch
        return self.loss(self.model(*inputs), target)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.lr)
