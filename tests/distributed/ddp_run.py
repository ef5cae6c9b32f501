"""A training on two processes: `python ddp_run.py FOLDER STRATEGY searched|by_hand|collective`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from optselect import AutoOptimizer, Budget, OptimizerPlan


class Model(L.LightningModule):
    """BatchNorm and dropout; `collective` gathers in the training step."""

    def __init__(self, plan: str = "", *, collective: bool = False) -> None:
        super().__init__()
        self.plan_file, self.collective = plan, collective
        self.net = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        if self.collective:
            gathered = self.all_gather(loss.detach())
            assert isinstance(gathered, Tensor)
            self.log("gathered", gathered.mean(), sync_dist=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]), sync_dist=self.collective)


class ByHand(Model):
    """The model with the chosen optimizer written down."""

    def configure_optimizers(self) -> Any:
        optimizer, scheduler = OptimizerPlan.load(self.plan_file).build(self)
        if scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def main(folder: Path, strategy: str, variant: str) -> None:
    """Train; each process saves its weights as FOLDER/VARIANT.RANK.pt."""
    torch.manual_seed(0)
    inputs = torch.randn(128, 6)
    data = TensorDataset(inputs, (inputs @ torch.randn(6, 3)).argmax(1))
    by_hand = variant == "by_hand"
    model = ByHand(str(folder / "plan.json")) if by_hand else Model(collective=variant == "collective")
    callbacks: list[L.Callback] = (
        [] if by_hand else [AutoOptimizer(budget=Budget(steps=60), storage=folder / "study.journal")]
    )
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        max_epochs=2,
        callbacks=callbacks,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(data, batch_size=8, shuffle=True), DataLoader(data, batch_size=32))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    if strategy == "ddp":
        # Spawned processes have ended by now; the first one's weights came back to this one.
        torch.save(weights, folder / f"{variant}.{trainer.global_rank}.pt")
    else:
        torch.save(weights, folder / f"{variant}.0.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
