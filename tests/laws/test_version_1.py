"""What the first version wrote is read by every later one: plans, and checkpoints that a run goes on from."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.laws.fixture_module import fit, standing
from tests.laws.playing import (
    GOLDEN,
    auto_optimizer,
    built_by,
    differences,
    explained,
    facts_of,
    outcome_of,
    plan_at,
    plan_in,
    read,
    words_of,
    write_plan,
)
from tests.laws.trainings import SEARCHED, built_as, own_optimizer

PLANS = ("plan_v1", "plan_v1_user", "plan_v1_thaw")
CHECKPOINT = GOLDEN / "checkpoint_v1.pt"


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_of_version_1_is_explained_with_each_of_its_reasons(name: str) -> None:
    words = read(f"{name}.json")

    said = " ".join(explained(plan_at(GOLDEN / f"{name}.json")).split())

    assert words["version"] == 1
    assert words["reasons"]
    assert ("your own optimizer" if words["optimizer"] == "user" else words["optimizer"]) in said
    assert [reason for reason in words["reasons"] if " ".join(reason.split()) not in said] == []


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_of_version_1_builds_the_optimizer_it_built_then(name: str) -> None:
    then = read("built_v1.json")[name]
    model = SEARCHED[then["training"]](0).model

    optimizer, scheduler = built_by(plan_at(GOLDEN / f"{name}.json"), model, own_optimizer("slow momentum"))

    assert differences(then["built"], built_as(optimizer, scheduler), 1e-9) == []


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_of_version_1_survives_being_written_anew(name: str, tmp_path: Path) -> None:
    plan = plan_at(GOLDEN / f"{name}.json")

    write_plan(plan, tmp_path / "plan.json")

    assert plan_at(tmp_path / "plan.json") == plan
    assert plan_in(words_of(plan)) == plan


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_of_version_1_is_read_with_all_that_it_says(name: str) -> None:
    words = read(f"{name}.json")

    facts = facts_of(plan_at(GOLDEN / f"{name}.json"))

    assert facts == {
        **{each: words[each] for each in facts},
        "param_groups": [group["parameters"] for group in words["param_groups"]],
        "trials": [[trial["configuration"]["optimizer"], trial["seed"], trial["value"]] for trial in words["trials"]],
    }


def test_a_fit_goes_on_from_a_checkpoint_of_version_1_as_it_did_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    then, checkpoint = read("checkpoint_v1.json"), torch.load(CHECKPOINT, weights_only=True)
    callback = auto_optimizer(tmp_path)

    trainer, module = fit(callback, ckpt_path=_of_todays_torch(checkpoint, tmp_path))

    assert outcome_of(callback) == (plan_in(_state_in(checkpoint)["plan"]), False)
    assert not (tmp_path / "study.journal").exists()
    assert differences(then["at its end"], standing(trainer, module), 1e-5) == []


def test_the_checkpoint_of_version_1_is_from_the_midst_of_a_run_that_searched() -> None:
    then, checkpoint = read("checkpoint_v1.json"), torch.load(CHECKPOINT, weights_only=True)

    (optimizer,) = checkpoint["optimizer_states"]

    assert [{int(each["step"]) for each in optimizer["state"].values()}] == [{12}]
    assert (then["in its midst"]["steps"], then["at its end"]["steps"]) == ([12], [24])
    assert _state_in(checkpoint)["plan"]["trials"]


def _state_in(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What the callback wrote."""
    (state,) = (own for name, own in checkpoint["callbacks"].items() if name.startswith("AutoOptimizer"))
    found: dict[str, Any] = state
    return found


def _of_todays_torch(checkpoint: dict[str, Any], folder: Path) -> Path:
    """A copy that names today's torch: that another one is refused is a law of its own, and no matter of this one."""
    for each in _state_in(checkpoint)["optimizers"]:
        each["version"] = importlib.metadata.version(each["package"]).partition("+")[0]
    torch.save(checkpoint, folder / "checkpoint.pt")
    return folder / "checkpoint.pt"
