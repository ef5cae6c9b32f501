"""Running a script of this folder on two processes, and how it ends there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from torch import distributed


def launched(script: str, *arguments: object, seconds: int = 900) -> subprocess.CompletedProcess[str]:
    """How the script ended; it starts its second process itself."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(Path(__file__).parent / script), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds, check=False)


def leave() -> None:
    """For the end of such a script: its processes leave their group together.

    At the end of the interpreter the group's threads may still run, and then C++ aborts a script that has done all.
    """
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()
