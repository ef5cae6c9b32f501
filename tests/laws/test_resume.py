"""A run that continues is the run that never stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.callbacks import ModelCheckpoint

from optselect import AutoOptimizer, OptimizerPlan, PlanMismatchError, ResumeError
from tests.support.modules import (
    Classifier,
    SparseClassifier,
    StopAfter,
    WithOptimizer,
    auto,
    equal_states,
    fit,
    loaders,
    made,
    tokens,
)


@pytest.mark.parametrize(
    "optimizer, kind",
    [
        ("adamw", Classifier),
        ("momentum", Classifier),
        ("muon", Classifier),
        ("sparse_adam", SparseClassifier),
    ],
)
def test_a_resumed_run_equals_the_uninterrupted_one_and_searches_nothing(
    optimizer: str, kind: Any, tmp_path: Path
) -> None:
    def data() -> Any:
        return loaders(tokens) if kind is SparseClassifier else loaders()

    choice = {"candidates": [optimizer], "budget": 0}
    whole = made(kind)
    uninterrupted = fit(whole, auto(tmp_path / "whole", **choice), data=data(), epochs=4)
    stopped = fit(made(kind), auto(tmp_path / "half", **choice), StopAfter(2), data=data(), epochs=4)
    stopped.save_checkpoint(tmp_path / "half.ckpt")

    continued, callback = made(kind, seed=5), auto(tmp_path / "rest", **choice)
    resumed = fit(continued, callback, data=data(), epochs=4, seed=9, ckpt_path=tmp_path / "half.ckpt")

    assert callback.study is None
    assert callback.profile is None
    assert equal_states(continued.state_dict(), whole.state_dict())
    assert equal_states(resumed.optimizers[0].state_dict(), uninterrupted.optimizers[0].state_dict())
    assert [c.scheduler.state_dict() for c in resumed.lr_scheduler_configs] == [
        c.scheduler.state_dict() for c in uninterrupted.lr_scheduler_configs
    ]


def test_a_searched_plan_comes_back_from_the_checkpoint(tmp_path: Path) -> None:
    callback = auto(tmp_path)
    fit(made(Classifier), callback, epochs=2).save_checkpoint(tmp_path / "a.ckpt")

    later = auto(tmp_path)
    fit(made(Classifier), later, epochs=3, ckpt_path=tmp_path / "a.ckpt")

    assert later.plan == callback.plan


def test_a_checkpoint_of_another_model_is_refused_by_name(tmp_path: Path) -> None:
    class Larger(Classifier):
        strict_loading = False

        def __init__(self) -> None:
            super().__init__()
            self.extra = torch.nn.Linear(2, 2)

    fit(made(Classifier), auto(tmp_path, budget=0)).save_checkpoint(tmp_path / "a.ckpt")

    with pytest.raises(PlanMismatchError, match=r"new: extra\.weight, extra\.bias"):
        fit(made(Larger), auto(tmp_path), epochs=3, ckpt_path=tmp_path / "a.ckpt")


def test_a_checkpoint_without_a_plan_is_refused_before_any_search(tmp_path: Path) -> None:
    fit(made(WithOptimizer)).save_checkpoint(tmp_path / "a.ckpt")
    callback = auto(tmp_path)

    with pytest.raises(ResumeError, match="holds no optimizer plan"):
        fit(made(WithOptimizer), callback, epochs=3, ckpt_path=tmp_path / "a.ckpt")

    assert callback.study is None


def test_a_plan_of_an_earlier_run_is_used_as_it_is(tmp_path: Path) -> None:
    first = auto(tmp_path)
    fit(made(Classifier), first, default_root_dir=tmp_path)
    assert first.plan_path is not None

    second = AutoOptimizer(plan=first.plan_path)
    fit(made(Classifier), second, default_root_dir=tmp_path)

    assert second.plan == first.plan
    assert second.study is None


@pytest.mark.parametrize("folder", ["best", "memory://remote"])
def test_the_plan_lies_in_the_log_directory_and_beside_the_checkpoints(folder: str, tmp_path: Path) -> None:
    callback = auto(tmp_path, budget=0)

    fit(made(Classifier), callback, ModelCheckpoint(folder), enable_checkpointing=True)

    with get_filesystem(folder).open(f"{folder}/plan.json") as file:
        beside = OptimizerPlan.from_dict(json.load(file))
    assert beside == callback.plan
    assert OptimizerPlan.load("plan.json") == callback.plan
