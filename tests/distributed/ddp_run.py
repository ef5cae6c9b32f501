"""Trainings on two processes, one after another: `python ddp_run.py FOLDER STRATEGY VARIANT...`.

searched    chooses and trains
by_hand     trains with the plan of `searched` written down
collective  as searched, with collectives in the training step
half, rest  stops after the first epoch, with a checkpoint; goes on from it
saved       as searched, with the checkpoint of `half` on its way
apart       with the plan of `searched`, and random numbers of its own in each process
half_apart, rest_apart  as half and rest
from_one    goes on from a checkpoint of one process
dies        the second process ends without a word in a trial
thaws, refuses  see thawing.py
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from optselect import AutoOptimizer, Budget, OptimizerPlan
from tests.distributed import thawing
from tests.distributed.data import rows
from tests.distributed.launch import leave


class Model(L.LightningModule):
    """BatchNorm and dropout; `collective` gathers in the training step."""

    def __init__(self, plan: str = "", *, collective: bool = False, dies: bool = False) -> None:
        super().__init__()
        self.plan_file, self.collective, self.dies = plan, collective, dies
        self.net = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        if self.dies and self.trainer.global_rank == 1 and batch_idx == 5:
            os._exit(9)
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


class Saves(L.Callback):
    """A checkpoint after the first epoch, where a fit may end: the parent of spawned processes could write none."""

    def __init__(self, path: Path, *, stops: bool) -> None:
        self.path, self.stops = path, stops

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = self.stops


class Apart(L.Callback):
    """Each process draws random numbers of its own."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.ckpt_path is None:
            torch.manual_seed(100 + trainer.global_rank)


def train(
    folder: Path, variant: str, model: Model, *, ckpt_path: Path | None = None, **kwargs: Any
) -> tuple[L.Trainer, AutoOptimizer]:
    """Two epochs."""
    torch.manual_seed(0)
    apart = variant.endswith("apart")
    plan = folder / "searched.0.json" if apart else None
    auto = AutoOptimizer(budget=Budget(steps=60), storage=folder / f"{variant}.journal", plan=plan)
    callbacks: list[L.Callback] = [] if variant == "by_hand" else [auto]
    if apart:
        callbacks.append(Apart())
    if variant == "saved" or variant.startswith("half"):
        path = folder / f"{'half' if variant == 'saved' else variant}.ckpt"
        callbacks.append(Saves(path, stops=variant != "saved"))
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=2,
        callbacks=callbacks,
        default_root_dir=folder / variant,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **kwargs,
    )
    batches = DataLoader(rows(), batch_size=8, shuffle=True), DataLoader(rows(), batch_size=32)
    trainer.fit(model, *batches, ckpt_path=ckpt_path)
    return trainer, auto


def main(folder: Path, strategy: str, variants: list[str]) -> None:
    """Train each; each process saves its weights as FOLDER/VARIANT.RANK.pt, the plan as FOLDER/VARIANT.RANK.json."""
    checkpoints = {
        "rest": folder / "half.ckpt",
        "rest_apart": folder / "half_apart.ckpt",
        "from_one": folder / "one.ckpt",
    }
    for variant in variants:
        if variant in thawing.VARIANTS:
            thawing.VARIANTS[variant](folder)
            continue
        torch.manual_seed(0)
        plan = str(folder / "searched.0.json")
        by_hand = variant == "by_hand"
        model = ByHand(plan) if by_hand else Model(collective=variant == "collective", dies=variant == "dies")
        trainer, auto = train(folder, variant, model, ckpt_path=checkpoints.get(variant), devices=2, strategy=strategy)
        # Spawned processes have ended by now; the first one's weights came back to this one.
        name = f"{variant}.{trainer.global_rank if strategy == 'ddp' else 0}"
        torch.save({key: value.clone() for key, value in model.state_dict().items()}, folder / f"{name}.pt")
        if auto.plan is not None:
            auto.plan.save(folder / f"{name}.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
    leave()
