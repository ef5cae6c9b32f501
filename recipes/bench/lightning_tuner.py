"""What Lightning brings itself, on a plain model: its learning rate finder, and its BackboneFinetuning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import BackboneFinetuning
from lightning.pytorch.tuner.tuning import Tuner
from torch import Tensor, nn
from torch.utils.data import DataLoader

_STEPS = 100  # Lightning's default


def suggested_lr(
    model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], loader: DataLoader[Any], *, folder: str
) -> tuple[float | None, int]:
    """Ask `Tuner.lr_find` for a rate for AdamW (None: it suggests nothing), and its steps. Its files go to `folder`."""
    trainer = _trainer(_STEPS, folder)
    found = Tuner(trainer).lr_find(_Wrapped(model, loss), loader, num_training=_STEPS)
    if found is None:
        return None, 0
    return found.suggestion(), len(found.results["lr"])


def tune_backbone(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    loader: DataLoader[Any],
    *,
    lr: float,
    steps: int,
    epoch: int,
    folder: str,
) -> None:
    """Train `model.backbone` and its head with AdamW at `lr` under `BackboneFinetuning` as it is by default.

    The backbone stands still until `epoch`. It joins at a tenth of the head's rate, which doubles with each epoch
    until it is the head's.
    """
    callback = BackboneFinetuning(unfreeze_backbone_at_epoch=epoch)
    _trainer(steps, folder, callback).fit(_WithBackbone(model, loss, lr), loader)


def _trainer(steps: int, folder: str, *callbacks: L.Callback) -> L.Trainer:
    return L.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )


class _Wrapped(L.LightningModule):
    def __init__(self, model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], lr: float = 1e-3) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.lr = lr

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        *inputs, target = batch
        return self.loss(self.model(*inputs), target)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


class _WithBackbone(_Wrapped):
    @property
    def backbone(self) -> nn.Module:
        return self.model.get_submodule("backbone")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # As the callback's documentation asks: what stands still is not in the optimizer yet.
        trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(trainable, lr=self.lr, fused=True)
