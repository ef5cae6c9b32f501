"""Strategies that open a checkpoint only when the optimizer is there: the plan is found before that."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import SingleDeviceStrategy

from optselect import AutoOptimizer, OptimizerPlan, PlanMismatchError, ResumeError
from tests.support.modules import Classifier, StopAfter, WithOptimizer, auto, equal_states, fit, made


class Late(SingleDeviceStrategy):
    """Restores as FSDP, DeepSpeed and ModelParallel do."""

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        return True


class Sealed(Late):
    """Its checkpoints are in a format of its own."""

    def save_checkpoint(self, checkpoint: Any, filepath: Any, storage_options: Any = None) -> None:
        super().save_checkpoint(checkpoint, filepath)
        content = Path(filepath).read_bytes()
        Path(filepath).write_bytes(content[::-1])

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        opened = Path(f"{checkpoint_path}.opened")
        opened.write_bytes(Path(checkpoint_path).read_bytes()[::-1])
        return super().load_checkpoint(opened)


def trained(folder: Path, strategy: type[Late], *callbacks: Any, **kwargs: Any) -> Any:
    """Four epochs under the plan, checkpoints in FOLDER/checkpoints."""
    saving = ModelCheckpoint(folder / "checkpoints", filename="{epoch}", save_top_k=-1)
    module = made(Classifier, seed=kwargs.pop("seed", 0))
    kwargs = {"enable_checkpointing": True, "default_root_dir": folder, "epochs": 4, **kwargs}
    fit(module, *callbacks, saving, strategy=strategy(torch.device("cpu")), **kwargs)
    return module


@pytest.fixture
def plan(tmp_path: Path) -> OptimizerPlan:
    callback = auto(tmp_path / "single", candidates=["muon"], budget=0)
    fit(made(Classifier), callback, epochs=4, default_root_dir=tmp_path / "single")
    assert callback.plan is not None
    return callback.plan


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("strategy", [Late, Sealed])
@pytest.mark.parametrize("moved", [False, True])
def test_a_resumed_run_equals_the_uninterrupted_one(
    strategy: type[Late], moved: bool, plan: OptimizerPlan, tmp_path: Path
) -> None:
    """Where the plan is in the checkpoint, and where only the side-car can be read."""
    whole = trained(tmp_path / "whole", strategy, AutoOptimizer(plan=plan))
    trained(tmp_path / "half", strategy, AutoOptimizer(plan=plan), StopAfter(2))
    folder = tmp_path / "half/checkpoints"
    if moved:
        # One that was copied elsewhere, folder and all.
        folder = Path(shutil.copytree(folder, tmp_path / "copied"))
    callback = AutoOptimizer()

    rest = trained(tmp_path / "rest", strategy, callback, seed=5, ckpt_path=folder / "epoch=1.ckpt")

    assert equal_states(rest.state_dict(), whole.state_dict())
    assert callback.plan == plan


@pytest.mark.parametrize("strategy", [Late, Sealed])
def test_without_a_plan_nothing_is_touched(strategy: type[Late], tmp_path: Path) -> None:
    fit(made(WithOptimizer), strategy=strategy(torch.device("cpu"))).save_checkpoint(tmp_path / "alone/a.ckpt")
    callback, module = AutoOptimizer(), made(WithOptimizer, seed=5)
    before = {name: value.clone() for name, value in module.state_dict().items()}

    with pytest.raises(ResumeError, match="holds no optimizer plan"):
        fit(module, callback, epochs=3, ckpt_path=tmp_path / "alone/a.ckpt", strategy=strategy(torch.device("cpu")))

    assert equal_states(module.state_dict(), before)
    assert (callback.plan, callback.study) == (None, None)


def test_the_side_car_of_another_run_is_found_out_when_the_checkpoint_is_opened(
    plan: OptimizerPlan, tmp_path: Path
) -> None:
    trained(tmp_path, Sealed, AutoOptimizer(plan=plan), StopAfter(2))
    other = auto(tmp_path, candidates=["adamw"], budget=0)
    fit(made(Classifier), other, epochs=4, default_root_dir=tmp_path / "other")
    shutil.copy(tmp_path / "other/plan.json", tmp_path / "checkpoints/plan.json")

    with pytest.raises(ResumeError, match=r"was trained with muon .*asks for adamw"):
        trained(tmp_path / "rest", Sealed, AutoOptimizer(), ckpt_path=tmp_path / "checkpoints/epoch=1.ckpt")


def test_a_given_plan_comes_before_a_side_car(plan: OptimizerPlan, tmp_path: Path) -> None:
    trained(tmp_path, Sealed, AutoOptimizer(plan=plan), StopAfter(2))
    (tmp_path / "checkpoints/plan.json").write_text("{}")
    callback = AutoOptimizer(plan=plan)

    trained(tmp_path / "rest", Sealed, callback, ckpt_path=tmp_path / "checkpoints/epoch=1.ckpt")

    assert callback.plan == plan


def test_a_mismatch_stays_an_error_where_no_search_is_possible(plan: OptimizerPlan, tmp_path: Path) -> None:
    trained(tmp_path, Late, AutoOptimizer(plan=plan), StopAfter(2))

    class Frozen(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.net[0].requires_grad_(False)

    with pytest.raises(PlanMismatchError, match="now frozen"):
        fit(
            made(Frozen),
            AutoOptimizer(on_mismatch="search"),
            epochs=4,
            ckpt_path=tmp_path / "checkpoints/epoch=1.ckpt",
            strategy=Late(torch.device("cpu")),
        )
