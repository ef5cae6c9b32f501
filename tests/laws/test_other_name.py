"""The laws of the callback under Lightning's other name, in which half of its users write it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).parent
_ROOT = Path(__file__).parents[2]

# Of the matrix those kinds in which classes of Lightning's own are subclassed, made, raised or asked for.
_KINDS = (
    "batches without a loss",
    "CombinedLoader, shortest",
    "data module with a counter",
    "loader iterator",
    "looks callbacks up",
    "nested LightningModule",
    "one-shot stream",
    "plateau scheduler of its own",
    "uses the logger",
)


def test_no_trace_and_resume_hold_under_the_other_name() -> None:
    files = [str(_HERE / name) for name in ("test_no_trace.py", "test_resume.py")]
    kinds = [f"{_HERE / 'test_no_trace_matrix.py'}::test_a_search_leaves_no_trace[{kind}]" for kind in _KINDS]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.support.other_name"]

    done = subprocess.run([*command, *files, *kinds], cwd=_ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout[-3000:]
