"""Which process holds something, and whether it is there no more."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import sys
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """Describe this process, such that no other one is described so: `machine`, `pid` and `started`."""
    return _identity(os.getpid())


def is_dead(holder: Any) -> bool:
    """Tell whether `holder`, as `this_process` describes it, is known to be there no more.

    That can be known only of one that ran on this machine since it was booted, in this process namespace.
    """
    # On Windows, asking whether a process lives would end it.
    if sys.platform == "win32" or not isinstance(holder, dict) or holder.get("machine") != this_process()["machine"]:
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except (OSError, TypeError, KeyError):
        return False
    # The pid may have been given out again.
    return bool(holder.get("started") != _started(holder["pid"]))


@functools.lru_cache(maxsize=1)
def _identity(pid: int) -> dict[str, Any]:
    """Describe this process; a fork has another pid."""
    return {"machine": _machine(), "pid": pid, "started": _started(pid)}


def _machine() -> str:
    """Identify this machine since its boot, and the process namespace: where a pid means one process."""
    facts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        facts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(facts)


def _started(pid: int) -> str | None:
    """Tell when a process began, in the kernel's words; None where it does not tell, or has ended."""
    try:
        # The name, in brackets, may hold anything; 3 is the state and 22 the start time, counted from 1.
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # A process that was killed keeps its number until its parent has asked how it ended.
        return None if facts[0] in ("Z", "X") else facts[19]
    except (OSError, IndexError):
        return None
