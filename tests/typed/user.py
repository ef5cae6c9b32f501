"""What a user writes, for type checkers alone: `make types` runs mypy on it, `make pyright` pyright, both strictly."""

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from optselect import (
    AutoOptimizer,
    Budget,
    FineTuning,
    OptimizerPlan,
    TorchWorkload,
    catalogue,
    measure,
    param_groups,
    propose,
    regrouped,
    select,
)
from optselect.recipes.digits import DigitsData, DigitsModel


def with_lightning() -> OptimizerPlan:
    auto = AutoOptimizer(budget=0.5, candidates=["user", "adamw"], fine_tuning=FineTuning(layer_decay=0.7))
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", logger=False, callbacks=[auto])
    trainer.fit(DigitsModel(), datamodule=DigitsData())
    plan = auto.chosen
    told: list[str] = [plan.explain(), plan.as_code(), *(each.name for each in plan.neighbours)]
    plan.save(f"{len(told)}.json")
    return OptimizerPlan.load("plan.json")


def without_lightning(model: nn.Module) -> torch.optim.Optimizer:
    rows = TensorDataset(torch.randn(64, 8), torch.randint(0, 2, (64,)))
    workload = TorchWorkload(model, nn.CrossEntropyLoss(), DataLoader(rows, 32), DataLoader(rows, 64), steps=40)
    scores: dict[str, float] = {each.optimizer: each.score for each in propose(measure(workload))}
    plan = select(workload, Budget(steps=80), candidates=[*scores], progress=False)
    optimizer, scheduler = plan.build(model, total_steps=40)
    optimizer.step()
    if scheduler is not None:
        scheduler.step()
    return optimizer


def groups_alone(model: nn.Module, plan: OptimizerPlan) -> torch.optim.AdamW:
    policy = FineTuning(head_lr_ratio=10.0)
    torch.optim.SGD(param_groups(model, policy, lr=0.1))
    torch.optim.AdamW(plan.param_groups_of(model), lr=float(catalogue.get("adamw").space["lr"].centre))
    return regrouped(torch.optim.AdamW(model.parameters()), model, policy)
