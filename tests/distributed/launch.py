"""Running a script of this folder on two processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def launched(script: str, *arguments: object, seconds: int = 900) -> subprocess.CompletedProcess[str]:
    """How the script ended; it starts its second process itself."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(Path(__file__).parent / script), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
