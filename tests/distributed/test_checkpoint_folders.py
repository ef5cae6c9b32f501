"""A distributed checkpoint is a folder of shards: the plan goes in and out, on as many processes as before or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from tests.distributed.data import rows
from tests.distributed.launch import launched
from tests.distributed.sharded_run import Net
from tests.support.modules import auto, fit

# Muon trains some of the weights and AdamW the others; Schedule-Free has modes.
RUNS = ["model_parallel-muon", "model_parallel-schedulefree_adamw", "fsdp-schedulefree_adamw"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs in one start on two processes, and one on one."""
    folder = tmp_path_factory.mktemp("folders")
    for optimizer in ("muon", "schedulefree_adamw"):
        callback = auto(folder, candidates=[optimizer], budget=0)
        fit(Net(), callback, data=(DataLoader(rows(), batch_size=16), None), default_root_dir=folder / optimizer)
    for processes in (2, 1):
        done = launched("checkpoint_run.py", folder, processes, *RUNS)
        assert done.returncode == 0, done.stderr
    return folder


def seen(folder: Path, run: str, processes: int) -> list[Any]:
    return [json.loads((folder / run / f"seen.{processes}.{rank}.json").read_text()) for rank in range(processes)]


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_a_resumed_run_has_the_plan_of_the_folder_and_ends_as_the_uninterrupted_one(run: str, folder: Path) -> None:
    assert seen(folder, run, 2) == [{"plan": True, "searched": False, "steps": 16, "equal shards": [True] * 4}] * 2


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_one_process_goes_on_with_weights_states_and_plan_of_two(run: str, folder: Path) -> None:
    (found,) = seen(folder, run, 1)

    assert found == {
        "plan": True,
        "searched": False,
        "steps": 24,
        "equal weights": [True] * 4,
        "equal states": True,
    }
