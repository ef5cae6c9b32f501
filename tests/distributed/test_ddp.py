"""Two processes search in lock-step, decide once, train as if by hand, and resume on as many as there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from optselect import OptimizerPlan
from optselect.study.journal import journal_storage
from optselect.study.study import TrialStudy
from tests.distributed.ddp_run import Model, train
from tests.distributed.launch import launched


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that a script on two processes trains, in one start: a checkpoint of one process is there already."""
    folder = tmp_path_factory.mktemp("ddp")
    torch.manual_seed(0)
    _, auto = train(folder, "half", Model(), devices=1)
    (folder / "half.ckpt").rename(folder / "one.ckpt")
    assert auto.plan is not None
    auto.plan.save(folder / "one.json")
    variants = ["searched", "by_hand", "half", "rest", "from_one", "collective", "apart", "half_apart", "rest_apart"]
    done = launched("ddp_run.py", folder, "ddp", *variants, "thaws", "refuses")
    assert done.returncode == 0, done.stderr
    return folder


def weights(folder: Path, variant: str, rank: int = 0) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(folder / f"{variant}.{rank}.pt", weights_only=True)
    return loaded


def plan(folder: Path, variant: str, rank: int = 0) -> OptimizerPlan:
    return OptimizerPlan.load(folder / f"{variant}.{rank}.json")


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def parameters(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without BatchNorm's statistics, which are each process's own, by hand too."""
    return {name: value for name, value in weights.items() if "running" not in name}


def test_a_searched_run_on_two_processes_equals_the_hand_written_one(scripted: Path) -> None:
    assert equal(weights(scripted, "searched"), weights(scripted, "by_hand"))


@pytest.mark.parametrize("variant", ["searched", "collective"])
def test_a_value_comes_with_the_batches_of_both_processes(variant: str, scripted: Path) -> None:
    """Whether Lightning joins what they log, or each has its own."""
    study = TrialStudy(optuna.load_study(study_name=None, storage=journal_storage(scripted / f"{variant}.journal")))

    trials = study.trials()

    parts = [trial.batches[rung] for trial in trials for rung in trial.values]
    assert parts
    assert all([weight for _, weight in batches] == [32.0] * 4 for batches in parts)
    assert all(len(dict(batches)) == 4 for batches in parts)


@pytest.mark.parametrize("variant", ["searched", "collective", "rest", "from_one"])
def test_the_processes_decide_once_and_end_with_equal_weights(variant: str, scripted: Path) -> None:
    """With collectives in the training step, too, which do not hang."""
    assert plan(scripted, variant, 0) == plan(scripted, variant, 1)
    assert equal(parameters(weights(scripted, variant, 0)), parameters(weights(scripted, variant, 1)))


def test_a_run_resumed_on_two_processes_equals_the_uninterrupted_one(scripted: Path) -> None:
    assert equal(weights(scripted, "rest"), weights(scripted, "searched"))


def test_each_process_resumes_with_its_own_random_numbers(scripted: Path) -> None:
    assert equal(weights(scripted, "rest_apart", 0), weights(scripted, "apart", 0))
    assert equal(weights(scripted, "rest_apart", 1), weights(scripted, "apart", 1))


def test_random_numbers_of_another_process_are_saved_where_they_differ(scripted: Path) -> None:
    def others(name: str) -> Any:
        checkpoint = torch.load(scripted / f"{name}.ckpt", weights_only=True)
        return [list(each) for each in checkpoint["callbacks"]["AutoOptimizer"]["rng"]["others"]]

    assert others("half_apart") == [["torch"]]
    assert "others" not in torch.load(scripted / "one.ckpt", weights_only=True)["callbacks"]["AutoOptimizer"]["rng"]


def test_a_run_of_one_process_goes_on_on_two_with_its_plan_and_no_search(scripted: Path) -> None:
    assert plan(scripted, "from_one") == OptimizerPlan.load(scripted / "one.json")
    assert not (scripted / "from_one.journal").exists()


def test_a_run_of_two_processes_goes_on_on_one_with_its_plan_and_no_search(scripted: Path) -> None:
    # One process takes twice the steps that the schedule was laid out for.
    with pytest.warns(UserWarning, match="goes on beyond the 16 steps"):
        trainer, auto = train(scripted, "on_one", Model(), ckpt_path=scripted / "half.ckpt", devices=1)

    assert trainer.global_step == 24
    assert auto.plan == plan(scripted, "half")
    assert not (scripted / "on_one.journal").exists()


def test_spawned_processes_equal_the_hand_written_run_and_resume_and_the_parent_knows_their_plan(
    scripted: Path, tmp_path: Path
) -> None:
    """Each start of spawned processes takes long: the checkpoint is the searched run's own, by hand is done above."""
    done = launched("ddp_run.py", tmp_path, "ddp_spawn", "saved", "rest")

    assert done.returncode == 0, done.stderr
    assert equal(weights(tmp_path, "rest"), weights(tmp_path, "saved"))
    assert not (tmp_path / "rest.journal").exists()
    assert equal(weights(tmp_path, "saved"), weights(scripted, "by_hand"))
    assert plan(tmp_path, "saved") == OptimizerPlan.load(tmp_path / "saved/plan.json")


def test_a_process_that_dies_ends_the_others_with_an_error(tmp_path: Path) -> None:
    done = launched("ddp_run.py", tmp_path, "ddp", "dies", seconds=600)

    assert done.returncode != 0
    # Whoever sees it first: the other process in what they do together, or what started both.
    assert "Error" in done.stderr or "Forcefully terminating all other processes" in done.stderr


# --- parts that join later ------------------------------------------------------------------


def test_what_joins_on_two_processes_stands_still_until_then_and_learns_alike_after(scripted: Path) -> None:
    one, other = (torch.load(scripted / f"thaws.{rank}.pt", weights_only=True) for rank in (0, 1))

    assert torch.equal(one[0], one[1])
    assert not torch.equal(one[1], one[2])
    # The processes have other batches: without shared gradients their weights would differ.
    assert all(map(torch.equal, one, other))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_does_not_look_for_unused_parameters_ends_with_the_cure(rank: int, scripted: Path) -> None:
    assert "ddp_find_unused_parameters_true" in (scripted / f"refuses.{rank}.txt").read_text()
