"""One reader for a plan in a file: a plan.json, or a checkpoint."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from optselect import AutoOptimizer
from optselect.configuration import Configuration
from optselect.errors import PlanFormatError, ResumeError
from optselect.plan import ModelFingerprint, OptimizerPlan
from optselect.plan.stored import CALLBACK_KEY, callback_state, stored_plan

PLAN = OptimizerPlan(
    configuration=Configuration(optimizer="sgd"), model_fingerprint=ModelFingerprint.of(nn.Linear(3, 2))
)


def checkpoint(state: Any) -> dict[str, Any]:
    return {"state_dict": nn.Linear(3, 2).state_dict(), "callbacks": {CALLBACK_KEY: state}}


class Trap:
    """Raises when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("code was run",))


def test_the_key_is_the_one_that_lightning_gives_the_callback() -> None:
    assert AutoOptimizer().state_key == CALLBACK_KEY


def test_a_plan_file_gives_its_plan(tmp_path: Path) -> None:
    PLAN.save(tmp_path / "plan.json")

    assert stored_plan(tmp_path / "plan.json") == PLAN


@pytest.mark.parametrize("name, zipped", [("last.ckpt", True), ("last.ckpt", False), ("weights.pt", True)])
def test_a_checkpoint_gives_its_plan(name: str, zipped: bool, tmp_path: Path) -> None:
    torch.save(checkpoint({"plan": PLAN.to_dict()}), tmp_path / name, _use_new_zipfile_serialization=zipped)

    assert stored_plan(tmp_path / name) == PLAN


@pytest.mark.parametrize("content", [checkpoint({"plan": None}), checkpoint({}), {"callbacks": {}}, {}, [1, 2]])
def test_a_checkpoint_without_a_plan_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "last.ckpt")

    with pytest.raises(ResumeError, match="holds no optimizer plan"):
        stored_plan(tmp_path / "last.ckpt")


def test_a_checkpoint_whose_plan_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    torch.save(checkpoint({"plan": {"version": 1}}), tmp_path / "last.ckpt")

    with pytest.raises(PlanFormatError):
        stored_plan(tmp_path / "last.ckpt")


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "last.ckpt", "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Trap(), protocol=2))
        file.writestr("archive/version", "3\n")

    with pytest.raises(ResumeError, match="cannot be read as a checkpoint"):
        stored_plan(tmp_path / "last.ckpt")


def test_a_subclass_has_a_state_of_its_own() -> None:
    assert callback_state({"callbacks": {"Mine": {"plan": None}}}, "Mine") == {"plan": None}
    assert callback_state({"callbacks": {"Mine": {"plan": None}}}) is None
