"""FSDP and ModelParallel open a checkpoint only after the optimizer is built: on two real processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from optselect import AutoOptimizer
from tests.distributed.data import rows
from tests.distributed.launch import launched
from tests.distributed.sharded_run import Net
from tests.support.modules import fit

KINDS = ["fsdp", "model_parallel"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both kinds in one start, with the plan of one process."""
    folder = tmp_path_factory.mktemp("sharded")
    callback = AutoOptimizer(candidates=["adamw"], budget=0)
    fit(Net(), callback, data=(DataLoader(rows(), batch_size=16), None), default_root_dir=folder)
    done = launched("sharded_run.py", folder, folder / "plan.json", *KINDS)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_sharded_run_resumes_with_its_plan_and_is_refused_without_one(kind: str, folder: Path) -> None:
    plan = json.loads((folder / "plan.json").read_text())

    for rank in (0, 1):
        seen = json.loads((folder / kind / f"seen.{rank}.json").read_text())

        assert "holds no optimizer plan" in seen.pop("refused")
        assert seen == {"equal shards": 4, "plan": plan, "steps": 16}
