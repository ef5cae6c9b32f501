"""A plan under DeepSpeed on two CPU processes: `DS_ACCELERATOR=cpu python deepspeed_run.py FOLDER PLAN STAGE...`.

Each process writes what it saw into FOLDER/STAGE/seen.RANK.json.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy
from torch.utils.data import DataLoader

from optselect import AutoOptimizer, OptimizerPlan
from optselect.plan.stored import stored_plan
from tests.distributed.data import rows
from tests.distributed.launch import leave
from tests.distributed.sharded_run import Net, Shards, Stop


class DeepSpeedOnCPU(DeepSpeedStrategy):
    """Lightning wants CUDA under DeepSpeed; DeepSpeed itself does not."""

    def setup_environment(self) -> None:
        DDPStrategy.setup_environment(self)

    def setup_distributed(self) -> None:
        self.set_world_ranks()
        self._process_group_backend = "gloo"
        self._init_deepspeed_distributed()

    @property
    def root_device(self) -> torch.device:
        return torch.device("cpu", 0)  # DeepSpeed asks for its number


class ByHand(Net):
    """With the plan written down."""

    def __init__(self, plan: Path) -> None:
        super().__init__()
        self.plan = plan

    def configure_optimizers(self) -> Any:
        optimizer, scheduler = OptimizerPlan.load(self.plan).build(self)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def fit(stage: int, folder: Path, *callbacks: L.Callback, model: Any = None, ckpt_path: Any = None) -> L.Trainer:
    """Two epochs."""
    torch.manual_seed(0)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=DeepSpeedOnCPU(stage=stage),
        max_epochs=2,
        logger=False,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit((model or Net)(), DataLoader(rows(), batch_size=8, shuffle=True), ckpt_path=ckpt_path)
    return trainer


def resumed(stage: int, folder: Path, plan: Path) -> None:
    """By hand, uninterrupted, half, and the rest out of the folder."""
    by_hand, uninterrupted, rest, callback = Shards(), Shards(), Shards(), AutoOptimizer()
    given = AutoOptimizer(plan=plan)
    fit(stage, folder / "by_hand", by_hand, model=partial(ByHand, plan))
    fit(stage, folder / "whole", given, uninterrupted)
    checkpoint = folder / "kept/half.ckpt"
    fit(stage, folder / "half", given, Stop()).save_checkpoint(checkpoint)
    trainer = fit(stage, folder / "rest", callback, rest, ckpt_path=checkpoint)
    seen = {
        "by hand": [*map(torch.equal, by_hand.weights, uninterrupted.weights)],
        "resumed": [*map(torch.equal, rest.weights, uninterrupted.weights)],
        "plan": callback.plan == stored_plan(checkpoint) == OptimizerPlan.load(plan),
        "searched": callback.study is not None or callback.profile is not None,
    }
    (folder / f"seen.{trainer.global_rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    for each in sys.argv[3:]:
        resumed(int(each), Path(sys.argv[1]) / each, Path(sys.argv[2]))
    leave()
