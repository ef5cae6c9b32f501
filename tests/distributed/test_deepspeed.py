"""A plan that was made elsewhere is built under DeepSpeed, and read out of its checkpoints: on two CPU processes.

DeepSpeed is none of the packages that the tests install: pip install deepspeed, then run this file.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from tests.distributed.data import rows
from tests.distributed.launch import launched
from tests.distributed.sharded_run import Net
from tests.support.modules import auto, fit


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
def test_a_plan_trains_as_by_hand_and_resumes_out_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    callback = auto(tmp_path, candidates=["adamw"], budget=0)
    fit(Net(), callback, data=(DataLoader(rows(), batch_size=16), None), default_root_dir=tmp_path)

    done = launched("deepspeed_run.py", tmp_path, tmp_path / "plan.json", 1, 2, 3)

    assert done.returncode == 0, done.stderr
    expected = {"by hand": [True] * 4, "resumed": [True] * 4, "plan": True, "searched": False}
    for stage in (1, 2, 3):
        for rank in (0, 1):
            assert json.loads((tmp_path / f"{stage}/seen.{rank}.json").read_text()) == expected
