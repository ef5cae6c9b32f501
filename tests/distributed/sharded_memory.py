"""Peak memory of each process with and without a search: `sharded_memory.py FOLDER KIND PROCESSES VARIANT [WIDTH]`.

The kinds are `fsdp` and `fsdp2`; the model has 50 million parameters, or those of another width. The variants:

by_hand   trains with AdamW alone
loaded    the same, with the libraries loaded that a search loads
searched  searches before it
on_disk   the same, with the copy of the weights on disk

Each process prints its peak in MiB, and the MiB of its parts of the weights. The figures are in
docs/reference/sharded.md; nothing here is a test. Run it with MALLOC_MMAP_THRESHOLD_=1048576, so that glibc gives back
what is freed: else the peak is that of its heap, which grows with every step.
"""

from __future__ import annotations

import importlib
import resource
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, TensorDataset

from optselect import AutoOptimizer, Budget
from optselect.workload.borrowed_model import training_bytes
from tests.distributed.launch import leave
from tests.distributed.sharded_search import FSDPOnCPU

WIDTH, LAYERS = 2048, 12
MIB = 2**20
# What a search loads, and a training by hand does not.
LIBRARIES = ["sklearn.preprocessing", "sklearn.utils.multiclass", "pytorch_optimizer"]


class Wide(L.LightningModule):
    """Twelve layers of `width` by `width`."""

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.kind = kind
        layers = [nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU()) for _ in range(LAYERS)]
        self.net = nn.Sequential(*layers, nn.Linear(width, 1))

    def configure_model(self) -> None:
        if self.kind == "fsdp2":
            for part in (*self.net, self.net):
                fully_shard(part, mesh=self.device_mesh["data_parallel"])  # type: ignore[index]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.mse_loss(self.net(batch[0]).squeeze(1), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.mse_loss(self.net(batch[0]).squeeze(1), batch[1]))


class ByHand(Wide):
    """With an optimizer of its own."""

    def configure_optimizers(self) -> Any:
        assert self.trainer.strategy.model is not None
        return torch.optim.AdamW(self.trainer.strategy.model.parameters(), lr=1e-4)


def main(folder: Path, kind: str, processes: int, variant: str, width: int) -> None:
    """One fit of eight steps."""
    torch.manual_seed(0)
    searches = variant in ("searched", "on_disk")
    for library in LIBRARIES if variant == "loaded" else ():
        importlib.import_module(library)
    inputs = torch.randn(16 * processes, width)
    data = DataLoader(TensorDataset(inputs, inputs[:, 0]), batch_size=2)
    strategy: Any = (
        FSDPOnCPU(auto_wrap_policy={nn.Sequential, nn.Linear})
        if kind == "fsdp"
        else ModelParallelStrategy(data_parallel_size=processes, tensor_parallel_size=1)
    )
    candidates = ["adamw", "momentum", "lion"]
    copies: Any = "disk" if variant == "on_disk" else "auto"
    storage = folder / f"{kind}.journal"
    auto = AutoOptimizer(budget=Budget(steps=40), candidates=candidates, storage=storage, copies=copies)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy=strategy,
        max_epochs=1,
        callbacks=[auto] if searches else [],
        default_root_dir=folder,
        logger=False,
        limit_val_batches=2,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = (Wide if searches else ByHand)(kind, width)
    trainer.fit(model, data, data)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB
    own = training_bytes(model) / MIB
    tried = len(auto.plan.trials) if auto.plan is not None else 0
    said = f"{kind} {variant} rank {trainer.global_rank}: peak {peak:.0f} MiB, parts {own:.0f} MiB, trials {tried}"
    sys.stdout.write(f"{said}\n")


if __name__ == "__main__":
    width = int(sys.argv[5]) if len(sys.argv) > 5 else WIDTH
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], width)
    leave()
