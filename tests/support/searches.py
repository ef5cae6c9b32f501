"""Small searches around a plain PyTorch training, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from optselect import OptimizerPlan, TorchWorkload, select
from optselect.search.progress import Silent
from tests.support.small import loader, net, vectors

LOSS = nn.functional.cross_entropy
STEPS = 24


@dataclass
class Meter:
    """A loss that counts what it was asked for, in micro-batches."""

    training: int = 0
    forward: int = 0
    raises: dict[int, BaseException] = field(default_factory=dict)

    @property
    def cost(self) -> float:
        return self.training + self.forward / 3

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            self.training += 1
        else:
            self.forward += 1
        if error := self.raises.get(self.training + self.forward):
            raise error
        return LOSS(output, target)


def training(loss: Any = LOSS, *, model: nn.Module | None = None, steps: int = STEPS, **options: Any) -> TorchWorkload:
    return TorchWorkload(model or net(), loss, loader(), loader(vectors(48), shuffle=False), steps=steps, **options)


def choose(workload: TorchWorkload, budget: Any = None, **options: Any) -> OptimizerPlan:
    return select(workload, budget, progress=Silent(), **options)


def same_choice(one: OptimizerPlan, other: OptimizerPlan) -> bool:
    return plain(one) == plain(other)


def plain(plan: OptimizerPlan) -> dict[str, Any]:
    """Without the memory that is free just now, and without how long a step took."""
    data = plan.to_dict()
    del data["profile"]["model"]["memory_free"]
    data["reasons"] = [reason for reason in data["reasons"] if reason["kind"] != "pace"]
    del data["search_seconds"]
    for trial in data["trials"]:
        trial.pop("pace", None)
    return data
