"""With each package, the callback works, leaves no trace, and resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from optselect import Budget, OptimizerPlan
from tests.packages.running import Left, Witness, auto_optimizer, importable, run
from tests.support.modules import equal_states

pytestmark = pytest.mark.packages

# With trials the package's own optimizer stays where none beat it; the rules alone never choose it.
SEARCHED, RULES = "searched", "by the rules"
CHOICES: dict[str, dict[str, Any]] = {
    SEARCHED: {"candidates": ["adamw"], "budget": Budget(steps=30)},
    RULES: {"candidates": ["adamw"], "budget": 0},
}
CASES = [pytest.param(package, choice, id=f"{package}-{choice}") for package in importable() for choice in CHOICES]


@pytest.mark.parametrize("package, choice", CASES)
def test_a_training_with_a_plan_is_the_one_written_by_hand(package: str, choice: str, tmp_path: Path) -> None:
    ours, our_loss = run(package, tmp_path / "chosen", auto_optimizer(package, tmp_path, **CHOICES[choice]))

    plan = plan_of(ours)
    theirs, their_loss = run(package, tmp_path / "written", witness=Witness(plan=plan))

    assert ours.state["steps"][0] > 0
    assert [what for what in theirs.state if not equal_states(ours.state[what], theirs.state[what])] == []
    assert our_loss == their_loss
    assert plan.optimizer == "adamw" or choice == SEARCHED
    assert bool([trial for trial in plan.trials if trial.value is not None]) == (choice == SEARCHED)


@pytest.mark.parametrize("package, choice", CASES)
def test_an_interrupted_training_goes_on_with_its_plan_and_searches_nothing(
    package: str, choice: str, tmp_path: Path
) -> None:
    first = auto_optimizer(package, tmp_path / "first", **CHOICES[choice])
    stopped, _ = run(package, tmp_path / "stopped", first, witness=Witness(stop_after=1))
    stopped.trainer.save_checkpoint(tmp_path / "half.ckpt")

    second = auto_optimizer(package, tmp_path / "second", **CHOICES[choice])
    ended, _ = run(package, tmp_path / "resumed", second, checkpoint=tmp_path / "half.ckpt")

    assert plan_of(ended) == plan_of(stopped)
    assert ended.auto is not None
    assert ended.auto.study is None
    assert ended.auto.profile is None
    assert ended.state["steps"][0] > stopped.state["steps"][0]


def plan_of(left: Left) -> OptimizerPlan:
    """Return the plan that the training was run with."""
    assert left.auto is not None
    assert left.auto.plan is not None
    return left.auto.plan
