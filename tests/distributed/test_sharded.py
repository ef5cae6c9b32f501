"""FSDP and ModelParallel open a checkpoint only after the optimizer is built: on two real processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from optselect import AutoOptimizer
from tests.callbacks.modules import fit
from tests.distributed.launch import launched
from tests.distributed.sharded_run import Net, rows


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fsdp", "model_parallel"])
def test_a_sharded_run_resumes_with_its_plan_and_is_refused_without_one(kind: str, tmp_path: Path) -> None:
    callback = AutoOptimizer(candidates=["adamw"], budget=0)
    fit(Net(), callback, data=(DataLoader(rows(), batch_size=16), None), default_root_dir=tmp_path)

    done = launched("sharded_run.py", tmp_path, kind)

    assert done.returncode == 0, done.stderr
    assert callback.plan is not None
    for rank in (0, 1):
        seen = json.loads((tmp_path / f"seen.{rank}.json").read_text())
        assert "holds no optimizer plan" in seen.pop("refused")
        assert seen == {"equal shards": 4, "plan": json.loads(json.dumps(callback.plan.to_dict())), "steps": 16}
