"""A search that a signal ends goes on from its study; a requeued job is the run that was never preempted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.laws.preempted_run import SCENARIOS

_SLURM = {
    "SLURM_NTASKS": "1",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_NNODES": "1",
    "SLURM_JOB_ID": "4242",
    "SLURM_JOB_NAME": "train",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All scenarios in one job of a SLURM whose `scontrol` writes down what it is asked."""
    folder = tmp_path_factory.mktemp("preempted")
    scontrol = folder / "bin/scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> "{folder}/scontrol"\n')
    scontrol.chmod(0o755)
    environment = {
        **os.environ,
        **_SLURM,
        "PATH": f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, str(Path(__file__).parent / "preempted_run.py"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def runs(folder: Path, scenario: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / f"{scenario}.json").read_text())
    for run in found:
        if run["plan"]:
            # The machine's, not the training's.
            run["plan"]["profile"]["model"].pop("memory_free")
            run["plan"]["reasons"] = [reason for reason in run["plan"]["reasons"] if reason["kind"] != "pace"]
            run["plan"].pop("search_seconds")
            for trial in run["plan"]["trials"]:
                trial.pop("pace", None)
    return found


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name != "alone"])
def test_the_rerun_of_a_disturbed_run_ends_as_if_nobody_had(scenario: str, folder: Path) -> None:
    (alone,) = runs(folder, "alone")

    disturbed, rerun = runs(folder, scenario)

    assert disturbed["ended"] == ("SystemExit" if scenario == "SIGINT" else "SIGTERMException")
    assert (rerun["ended"], rerun["plan"], rerun["weights"]) == ("done", alone["plan"], alone["weights"])
    assert rerun["trials"] == alone["trials"]


@pytest.mark.parametrize("scenario", ["SIGTERM", "SIGINT", "requeued in search"])
def test_a_search_ends_at_once_and_keeps_its_trials(scenario: str, folder: Path) -> None:
    disturbed, _ = runs(folder, scenario)

    assert disturbed["trials"] > 0
    assert disturbed["plan"] is None


def test_a_job_that_is_preempted_is_requeued_in_the_search_and_in_the_training(folder: Path) -> None:
    assert (folder / "scontrol").read_text().splitlines() == ["requeue 4242", "requeue 4242"]


def test_no_checkpoint_of_a_trial_is_written(folder: Path) -> None:
    """From a trial's weights the requeued job would go on without ever having chosen."""
    assert [run["checkpoints"] for run in runs(folder, "requeued in search")] == [[], []]


def test_a_job_that_is_requeued_in_its_training_searches_nothing(folder: Path) -> None:
    disturbed, rerun = runs(folder, "requeued in training")

    assert disturbed["checkpoints"] == ["hpc_ckpt_1.ckpt"]
    assert (disturbed["searched"], rerun["searched"]) == (True, False)
