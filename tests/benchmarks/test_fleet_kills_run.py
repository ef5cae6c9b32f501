"""The script that kills workers of a fleet runs, and what it prints is what came of it. No time is asserted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot fork")
def test_a_fleet_of_which_workers_are_killed_judges_each_job_once() -> None:
    # In a process of its own: it forks, which one with torch's and gRPC's threads in it should not.
    small = "--workers 3 --jobs 12 --seconds 0.8 --kill-every 1 --lease 1 --storage journal"
    line = [sys.executable, "-m", "tests.benchmarks.fleet_kills", *small.split()]

    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "; 12 of 12 jobs judged, 0 of them twice; " in done.stdout
    assert not done.stdout.startswith("journal, 3 workers: 0 kills")
