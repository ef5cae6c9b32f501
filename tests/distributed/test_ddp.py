"""Two processes search in lock-step, decide once, and train as if by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

_SCRIPT = Path(__file__).parent / "ddp_run.py"


def train(folder: Path, strategy: str, variant: str) -> dict[str, torch.Tensor]:
    """Run the script on two processes; the first one's weights."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(_SCRIPT), str(folder), strategy, variant]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return weights(folder, variant, 0)


def weights(folder: Path, variant: str, rank: int) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(folder / f"{variant}.{rank}.pt", weights_only=True)
    return loaded


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_a_searched_run_on_two_processes_equals_the_hand_written_one(strategy: str, tmp_path: Path) -> None:
    searched = train(tmp_path, strategy, "searched")
    written = train(tmp_path, strategy, "by_hand")

    assert equal(searched, written)


def test_collectives_in_the_training_step_do_not_hang_and_ranks_agree(tmp_path: Path) -> None:
    first = train(tmp_path, "ddp", "collective")
    second = weights(tmp_path, "collective", 1)

    # BatchNorm's statistics are each process's own, by hand too.
    assert equal(*({name: value for name, value in w.items() if "running" not in name} for w in (first, second)))
