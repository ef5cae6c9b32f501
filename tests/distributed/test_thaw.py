"""Parts that join later on two processes: their gradients are shared from then on, or it is refused by name."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.distributed.launch import launched


def test_what_joins_on_two_processes_stands_still_until_then_and_learns_alike_after(tmp_path: Path) -> None:
    done = launched("thaw_run.py", tmp_path, "ddp_find_unused_parameters_true")

    assert done.returncode == 0, done.stderr
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert torch.equal(one[0], one[1])
    assert not torch.equal(one[1], one[2])
    # The processes have other batches: without shared gradients their weights would differ.
    assert all(map(torch.equal, one, other))


def test_processes_that_do_not_look_for_unused_parameters_end_with_the_cure(tmp_path: Path) -> None:
    done = launched("thaw_run.py", tmp_path, "ddp")

    assert done.returncode != 0
    assert "ConfigurationError" in done.stderr
    assert "ddp_find_unused_parameters_true" in done.stderr
    assert not list(tmp_path.glob("*.pt"))
