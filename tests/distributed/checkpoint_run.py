"""Checkpoints in shards: `python checkpoint_run.py FOLDER PROCESSES KIND-OPTIMIZER...`.

On two processes each run is made whole, in halves, and resumed from the folder that the first half left; on one it is
resumed from the folder of two. The plan of each is FOLDER/OPTIMIZER/plan.json. Each process writes what it saw into
FOLDER/KIND-OPTIMIZER/seen.PROCESSES.RANK.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.load import _load_distributed_checkpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from optselect import AutoOptimizer
from optselect.plan.stored import stored_plan
from tests.distributed.data import rows
from tests.distributed.launch import leave
from tests.distributed.sharded_run import FSDPOnCPU, Sharded, Shards, Stop


class Restored(L.Callback):
    """Whole weights, and states by the parameters' names, when the training goes on."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        named = {name.replace("_fsdp_wrapped_module.", ""): each for name, each in pl_module.named_parameters()}
        self.weights = {name: whole(each) for name, each in named.items()}
        state = trainer.optimizers[0].state
        self.states = {
            f"{name}.{slot}": whole(value)
            for name, parameter in named.items()
            for slot, value in state.get(parameter, {}).items()
        }


def whole(tensor: Any) -> Any:
    """The tensor that a shard is of, as it is now."""
    tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return tensor.detach().clone() if isinstance(tensor, Tensor) else tensor


def fit(kind: str, processes: int, folder: Path, *callbacks: L.Callback, ckpt_path: Any = None) -> L.Trainer:
    """Two epochs."""
    torch.manual_seed(0)
    strategy: Any = (
        FSDPOnCPU(auto_wrap_policy={nn.Linear}, state_dict_type="sharded")
        if kind == "fsdp"
        else ModelParallelStrategy(data_parallel_size=processes, tensor_parallel_size=1)
    )
    trainer = L.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy=strategy,
        max_epochs=2,
        logger=False,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(Sharded(), DataLoader(rows(), batch_size=8, shuffle=True), ckpt_path=ckpt_path)
    return trainer


def same(one: Any, other: Any) -> bool:
    """Whether two values, or tensors, are the same to the bit."""
    return torch.equal(one, other) if isinstance(one, Tensor) else bool(one == other)


def resumed(kind: str, optimizer: str, folder: Path, processes: int) -> dict[str, Any]:
    """What the run that goes on from the folder has of it."""
    checkpoint = folder / "kept/half.ckpt"
    uninterrupted, rest, callback, restored = Shards(), Shards(), AutoOptimizer(), Restored()
    if processes == 2:
        given = AutoOptimizer(plan=folder.parent / optimizer / "plan.json")
        fit(kind, processes, folder / "whole", given, uninterrupted)
        fit(kind, processes, folder / "half", given, Stop()).save_checkpoint(checkpoint)
    # Nothing but the folder knows the plan.
    trainer = fit(kind, processes, folder / f"rest of {processes}", callback, restored, rest, ckpt_path=checkpoint)
    seen: dict[str, Any] = {
        "plan": callback.plan == stored_plan(checkpoint) == stored_plan(folder.parent / optimizer / "plan.json"),
        "searched": callback.study is not None or callback.profile is not None,
        "steps": trainer.global_step,
    }
    if processes == 2:
        return {**seen, "equal shards": [*map(torch.equal, uninterrupted.weights, rest.weights)]}
    saved = _load_distributed_checkpoint(checkpoint)
    weights = saved["model" if kind == "fsdp" else "state_dict"]
    states = {f"{name}.{slot}": it for name, own in saved["optimizer_0"]["state"].items() for slot, it in own.items()}
    return {
        **seen,
        "equal weights": [same(restored.weights[name], weight) for name, weight in weights.items()],
        "equal states": sorted(states) == sorted(restored.states)
        and all(same(restored.states[name], value) for name, value in states.items()),
    }


if __name__ == "__main__":
    root, count = Path(sys.argv[1]), int(sys.argv[2])
    for run in sys.argv[3:]:
        which, _, chosen = run.partition("-")
        found = resumed(which, chosen, root / run, count)
        rank = torch.distributed.get_rank()
        (root / run / f"seen.{count}.{rank}.json").write_text(json.dumps(found))
    leave()
