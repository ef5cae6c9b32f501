"""Two processes search with the model in shards, decide once, train as if by hand, and leave no trace on it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from optselect import OptimizerPlan
from tests.distributed.launch import launched
from tests.distributed.sharded_search import fit

KINDS = ["fsdp", "fsdp2", "tp"]
TASKS = [
    "ddp",
    *(f"{kind}{variant}" for kind in KINDS for variant in ("", ":by_hand")),
    *(f"{kind}:{variant}" for kind in ("fsdp", "fsdp2") for variant in ("clipped", "clipped_by_hand")),
    *("fsdp:all", "fsdp2:half", "fsdp2:rest", "fsdp2:on_disk", "fsdp2:no_room"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of it in one start of two processes."""
    folder = tmp_path_factory.mktemp("searched")
    done = launched("sharded_search.py", folder, 2, *TASKS)
    assert done.returncode == 0, done.stderr
    (folder / "printed").write_text(done.stderr)
    return folder


def seen(folder: Path, task: str, rank: int = 0) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(folder / f"{task}.{rank}.pt", weights_only=True)
    return loaded


def plan(folder: Path, task: str, rank: int = 0) -> OptimizerPlan:
    return OptimizerPlan.from_dict(seen(folder, task, rank)["plan"])


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether parts of weights and buffers, states, random numbers, attributes and steps are equal to the bit."""
    tensors = [
        (*each["weights"], *each["state"], each["random"], torch.tensor(each["attributes"])) for each in (one, other)
    ]
    return len(tensors[0]) == len(tensors[1]) and all(map(torch.equal, *tensors)) and one["steps"] == other["steps"]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_searched_run_equals_the_hand_written_one_on_every_part(kind: str, rank: int, folder: Path) -> None:
    assert same(seen(folder, f"{kind}.searched", rank), seen(folder, f"{kind}.by_hand", rank))


@pytest.mark.parametrize("kind", ["fsdp", "fsdp2"])
def test_gradients_are_clipped_in_trials_and_training_as_the_strategy_does(kind: str, folder: Path) -> None:
    assert same(seen(folder, f"{kind}.clipped"), seen(folder, f"{kind}.clipped_by_hand"))


@pytest.mark.parametrize("kind", KINDS)
def test_all_processes_decide_alike(kind: str, folder: Path) -> None:
    assert plan(folder, f"{kind}.searched", 0) == plan(folder, f"{kind}.searched", 1)


def tried(plan: OptimizerPlan) -> dict[str, list[float]]:
    return {trial.configuration.describe(): list(trial.values.values()) for trial in plan.trials}


@pytest.mark.parametrize("kind", ["fsdp", "fsdp2"])
def test_a_model_in_shards_is_searched_as_one_that_every_process_has_whole(kind: str, folder: Path) -> None:
    cut, whole = plan(folder, f"{kind}.searched"), plan(folder, "ddp.searched")

    assert cut.configuration == whole.configuration
    assert cut.param_groups == whole.param_groups
    assert cut.model_fingerprint == whole.model_fingerprint
    assert tried(cut).keys() == tried(whole).keys()
    assert all(values == pytest.approx(tried(whole)[name], rel=1e-4) for name, values in tried(cut).items())


def test_a_tensor_parallel_model_is_searched_as_on_one_process(folder: Path) -> None:
    fit(folder, 1, "alone", "searched")

    cut, whole = plan(folder, "tp.searched"), plan(folder, "alone.searched")
    assert cut.configuration.optimizer == whole.configuration.optimizer
    assert cut.param_groups[0].parameters == whole.param_groups[0].parameters


@pytest.mark.parametrize("kind", ["fsdp", "fsdp2"])
def test_a_profile_is_of_the_whole_model(kind: str, folder: Path) -> None:
    cut, whole = plan(folder, f"{kind}.searched").profile, plan(folder, "ddp.searched").profile

    assert cut is not None
    assert whole is not None
    assert cut.model.cut == ("flat" if kind == "fsdp" else "tensors")
    assert cut.model.shapes == whole.model.shapes
    assert cut.model.executed == whole.model.executed
    assert cut.model.head == whole.model.head
    assert cut.gradient.norms == pytest.approx(whole.gradient.norms, rel=1e-5)
    assert cut.gradient.relative_norms == pytest.approx(whole.gradient.relative_norms, rel=1e-5)
    assert cut.gradient.zero_fraction == whole.gradient.zero_fraction
    assert cut.gradient.noise_scale == pytest.approx(whole.gradient.noise_scale, rel=1e-3)


def test_what_sees_matrices_is_tried_on_no_flat_pieces(folder: Path) -> None:
    chosen = plan(folder, "fsdp.all")

    assert not {"muon", "soap", "adafactor"} & {trial.configuration.optimizer for trial in chosen.trials}


def test_a_resumed_run_in_shards_searches_nothing(folder: Path) -> None:
    rest = seen(folder, "fsdp2.rest")

    assert not rest["searched"]
    assert rest["steps"] == 16
    assert rest["plan"] == seen(folder, "fsdp2.half")["plan"]
    assert torch.equal(rest["weights"][0], seen(folder, "fsdp2.searched")["weights"][0])


def test_trials_from_a_copy_on_disk_are_those_from_memory(folder: Path) -> None:
    on_disk = plan(folder, "fsdp2.on_disk")

    assert tried(on_disk) == tried(plan(folder, "fsdp2.searched"))
    assert same(seen(folder, "fsdp2.on_disk"), seen(folder, "fsdp2.searched"))


def test_before_the_first_trial_a_line_says_where_copies_lie_and_what_they_cost(folder: Path) -> None:
    said = re.findall(
        r"are put aside once (beside them|on disk) .*puts them back in about \S+ s or \S+ micro", printed(folder)
    )

    searches = [task for task in TASKS if task != "ddp" and not task.endswith(("by_hand", "rest", "no_room"))]
    assert len(said) == len(searches)
    assert said.count("on disk") == 1


def printed(folder: Path) -> str:
    return (folder / "printed").read_text()


def test_without_room_for_a_copy_the_rules_have_the_word(folder: Path) -> None:
    chosen = plan(folder, "fsdp2.no_room")

    assert not chosen.trials
    assert chosen.optimizer in {"adamw", "nadam", "momentum"}
    assert any("has no room" in reason.text for reason in chosen.reasons)


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_others_and_the_next_run_goes_on(tmp_path: Path) -> None:
    done = launched("sharded_search.py", tmp_path, 2, "fsdp2:dies", seconds=60)
    again = launched("sharded_search.py", tmp_path, 2, "fsdp2:dies_again")

    assert done.returncode != 0
    assert again.returncode == 0, again.stderr
    assert plan(tmp_path, "fsdp2.dies_again").trials
