"""Searches with the model in shards on several processes: `python sharded_search.py FOLDER PROCESSES TASK...`.

A task is KIND or KIND:VARIANT. The kinds:

ddp       each process has the whole model
fsdp      FSDP's first version around each layer and around the whole
fsdp2     ModelParallelStrategy with fully_shard
tp        ModelParallelStrategy with a tensor-parallel plan
alone     one process, for what `tp` is compared with (started by itself)

The variants, each a fit of two epochs (none: searched):

searched  chooses and trains
by_hand   trains with the plan of `searched` written down
all       searched, with all that the rules propose
clipped, clipped_by_hand   the same with gradients clipped, by norm where the strategy can
half, rest  stops after the first epoch, with a checkpoint; goes on from it
on_disk   searched, with the copy of the weights on disk
no_room   searched, where it has room nowhere
dies      the last process is killed in a trial

Each process writes what it saw into FOLDER/KIND.VARIANT.RANK.pt.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.utils.data import DataLoader

from optselect import AutoOptimizer, Budget, OptimizerPlan
from optselect.callbacks import workload
from optselect.parameters.sharding import local
from optselect.workload.room import Free
from tests.distributed.data import rows
from tests.distributed.launch import leave

CANDIDATES = ["adamw", "nadam", "momentum"]
NOTHING_FREE = Free(device=0, host=0, disk=0)


class FSDPOnCPU(FSDPStrategy):
    """torch wants an accelerator unless it is told that the CPU is meant, which Lightning cannot tell it."""

    def _setup_model(self, model: nn.Module) -> nn.Module:
        return FullyShardedDataParallel(model, device_id=torch.device("cpu"), **self.kwargs)


class Model(L.LightningModule):
    """A norm, where the features are together, and dropout; `cut` is the kind."""

    def __init__(self, cut: str, norm: type[nn.Module], *, plan: Path | None = None, dies: bool = False) -> None:
        super().__init__()
        self.cut, self.plan_file, self.dies = cut, plan, dies
        norms = [] if cut in ("tp", "alone") else [norm(16)]
        self.net = nn.Sequential(nn.Linear(6, 16), *norms, nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))
        self.seen: list[int] = []

    def configure_model(self) -> None:
        if self.cut == "fsdp2":
            for part in (self.net[0], self.net[-1], self.net):
                fully_shard(part, mesh=self.device_mesh["data_parallel"])  # type: ignore[index]
        elif self.cut == "tp":
            halves = {"0": ColwiseParallel(), "3": RowwiseParallel()}
            parallelize_module(self.net, self.device_mesh["tensor_parallel"], halves)  # type: ignore[index]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen.append(batch_idx)
        if self.dies and self.trainer.global_rank == self.trainer.world_size - 1 and batch_idx == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))


class ByHand(Model):
    """The model with the chosen optimizer written down."""

    def configure_optimizers(self) -> Any:
        assert self.plan_file is not None
        model = self.trainer.strategy.model if self.cut == "fsdp" else self
        assert model is not None
        optimizer, scheduler = OptimizerPlan.load(self.plan_file).build(model)
        if scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Seen(L.Callback):
    """What this process has in the end: its parts of the weights, the optimizer's state, random numbers."""

    def __init__(self) -> None:
        self.here: dict[str, Any] = {}

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        states = trainer.optimizers[0].state.values()
        slots = [slot for state in states for slot in state.values() if isinstance(slot, Tensor)]
        assert isinstance(pl_module, Model)
        self.here = {
            "weights": [local(each).clone() for each in (*pl_module.parameters(), *pl_module.buffers())],
            "state": [local(each).clone() for each in slots],
            "random": torch.get_rng_state(),
            "steps": trainer.global_step,
            "attributes": list(pl_module.seen),
        }


class Stop(L.Callback):
    """Ends a fit after its first epoch."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = True


def strategy_of(kind: str, processes: int) -> Any:
    """The strategy of that kind."""
    if kind == "fsdp":
        return FSDPOnCPU(auto_wrap_policy={nn.Linear}, state_dict_type="sharded")
    if kind == "fsdp2":
        return ModelParallelStrategy(data_parallel_size=processes, tensor_parallel_size=1)
    if kind == "tp":
        return ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=processes)
    return "ddp" if kind == "ddp" else "auto"


def fit(folder: Path, processes: int, kind: str, variant: str) -> None:
    """Train for two epochs, and write down what was seen."""
    torch.manual_seed(0)
    by_hand, clipped = variant.endswith("by_hand"), variant.startswith("clipped")
    plan = folder / f"{kind}.{'clipped' if clipped else 'searched'}.json"
    # DDP makes the statistics of BatchNorm those of one process, FSDP leaves each its own.
    norm = nn.BatchNorm1d if clipped else nn.LayerNorm
    model = (ByHand if by_hand else Model)(kind, norm, plan=plan, dies=variant == "dies")
    study = folder / f"{kind}.{'searched' if variant == 'rest' else variant.removesuffix('_again')}.journal"
    candidates = None if variant == "all" else CANDIDATES
    copies: Any = "disk" if variant == "on_disk" else "auto"
    auto = AutoOptimizer(budget=Budget(steps=60), candidates=candidates, storage=study, copies=copies)
    seen = Seen()
    callbacks: list[L.Callback] = [seen] if by_hand else [auto, seen]
    trainer = L.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy=strategy_of(kind, processes),
        max_epochs=2,
        callbacks=[*callbacks, *([Stop()] if variant == "half" else [])],
        gradient_clip_val=0.1 if clipped else None,
        gradient_clip_algorithm="value" if kind == "fsdp" else "norm",
        default_root_dir=folder / f"{kind}.{variant}",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    shuffle = kind not in ("tp", "alone")
    data = DataLoader(rows(), batch_size=8, shuffle=shuffle), DataLoader(rows(), batch_size=32)
    checkpoint = folder / f"{kind}.half.ckpt"
    trainer.fit(model, *data, ckpt_path=checkpoint if variant == "rest" else None)
    if variant == "half":
        trainer.save_checkpoint(checkpoint)
    name = f"{kind}.{variant}"
    if auto.plan is not None:
        seen.here["plan"] = auto.plan.to_dict()
        if trainer.is_global_zero:
            auto.plan.save(folder / f"{name}.json")
    seen.here["searched"] = auto.study is not None if trainer.is_global_zero else None
    torch.save(seen.here, folder / f"{name}.{trainer.global_rank}.pt")


def main(folder: Path, processes: int, tasks: list[str]) -> None:
    """One task after another; what a search says of itself goes to stderr."""
    logging.getLogger("optselect").addHandler(logging.StreamHandler())
    logging.getLogger("optselect").setLevel(logging.INFO)
    for task in tasks:
        kind, _, variant = task.partition(":")
        with ExitStack() as stack:
            if variant == "no_room":
                stack.enter_context(mock.patch.object(workload, "free_for", return_value=NOTHING_FREE))
            fit(folder, processes, kind, variant or "searched")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
    leave()
