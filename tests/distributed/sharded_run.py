"""A model in shards on two processes, stopped and resumed: `python sharded_run.py FOLDER PLAN KIND...`.

The kinds are `fsdp` and `model_parallel`. Each process writes what it saw into FOLDER/KIND/seen.RANK.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from optselect import AutoOptimizer, ResumeError
from tests.distributed.data import rows
from tests.distributed.launch import leave


class FSDPOnCPU(FSDPStrategy):
    """torch wants an accelerator unless it is told that the CPU is meant, which Lightning cannot tell it."""

    def _setup_model(self, model: nn.Module) -> nn.Module:
        return FullyShardedDataParallel(model, device_id=torch.device("cpu"), **self.kwargs)


class Net(L.LightningModule):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])


class Sharded(Net):
    """Cut over the processes as ModelParallelStrategy has it: in the module."""

    def configure_model(self) -> None:
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            for part in (self.net[0], self.net[2], self.net):
                fully_shard(part, mesh=self.device_mesh["data_parallel"])  # type: ignore[index]


class ByHand(Sharded):
    """With an optimizer of its own."""

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.01)


class Shards(L.Callback):
    """What this process holds of the weights in the end."""

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.weights = [
            (parameter.to_local() if isinstance(parameter, DTensor) else parameter).detach().clone()
            for parameter in pl_module.parameters()
        ]


class Stop(L.Callback):
    """Ends the first fit early."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = True


def fit(
    kind: str, folder: Path, *callbacks: L.Callback, model: L.LightningModule | None = None, ckpt_path: Any = None
) -> tuple[L.Trainer, list[Tensor]]:
    """Two epochs; the trainer and this process's shards."""
    torch.manual_seed(0)
    strategy: Any = (
        FSDPOnCPU(auto_wrap_policy={nn.Linear}, state_dict_type="sharded")
        if kind == "fsdp"
        else ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    )
    shards = Shards()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        max_epochs=2,
        logger=False,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, shards],
    )
    trainer.fit(model or Sharded(), DataLoader(rows(), batch_size=8, shuffle=True), ckpt_path=ckpt_path)
    return trainer, shards.weights


def resumed(kind: str, folder: Path, plan: Path) -> None:
    """Uninterrupted, half, and the rest; then on from a checkpoint without a plan."""
    _, uninterrupted = fit(kind, folder / "whole", AutoOptimizer(plan=plan))
    trainer, _ = fit(kind, folder / "half", AutoOptimizer(plan=plan), Stop())
    trainer.save_checkpoint(folder / "kept/half.ckpt")
    callback = AutoOptimizer()
    trainer, rest = fit(kind, folder / "rest", callback, ckpt_path=folder / "kept/half.ckpt")
    seen: dict[str, Any] = {
        "equal shards": sum(map(torch.equal, uninterrupted, rest)),
        "plan": callback.plan.to_dict() if callback.plan else None,
        "steps": trainer.global_step,
    }
    trainer, _ = fit(kind, folder / "by_hand", Stop(), model=ByHand())
    trainer.save_checkpoint(folder / "alone/half.ckpt")
    try:
        fit(kind, folder / "refused", AutoOptimizer(), ckpt_path=folder / "alone/half.ckpt")
    except ResumeError as error:
        seen["refused"] = str(error)
    (folder / f"seen.{trainer.global_rank}.json").write_text(json.dumps(seen))


def main(folder: Path, plan: Path, kinds: list[str]) -> None:
    """One kind of shards after another."""
    for kind in kinds:
        resumed(kind, folder / kind, plan)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
    leave()
