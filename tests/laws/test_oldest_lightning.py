"""The laws of the callback on the oldest Lightning that the package admits."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_OLDEST = Path(sys.prefix) / "oldest-lightning"


def test_the_oldest_lightning_here_is_the_oldest_admitted() -> None:
    admitted = re.search(r'"lightning>=([\d.]+)"', (_ROOT / "pyproject.toml").read_text())
    assert admitted is not None

    installed = re.search(r"lightning==([\d.]+)", (_ROOT / "Makefile").read_text())

    assert installed is not None
    assert installed[1].removesuffix(".0") == admitted[1]


@pytest.mark.parametrize("package", ["lightning", "pytorch_lightning"])
def test_no_trace_and_resume_hold_on_the_oldest_lightning(package: str) -> None:
    """It attaches early enough for modules without configure_optimizers, leaves no trace and resumes."""
    if not (_OLDEST / package).exists():
        pytest.skip("make test installs it")
    environment = {**os.environ, "PYTHONPATH": str(_OLDEST)}
    files = [str(Path(__file__).parent / name) for name in ("test_no_trace.py", "test_resume.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    command += ["-p", "tests.support.other_name"] if package == "pytorch_lightning" else []
    # An old Lightning on a new torch: its own deprecations are not ours to mend.
    command += ["-W", "ignore::FutureWarning", "-W", "ignore::DeprecationWarning"]

    done = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout[-3000:]
