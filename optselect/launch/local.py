"""Workers as processes of this machine, which share out its cores and devices."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from optselect.launch.workers import Ended

_DEVICES, _THREADS = "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"
# What a worker takes to put aside what it is at, and to give back its job.
_GRACE_SECONDS = 20.0
_LOOK_SECONDS = 0.05
_LAST_BYTES = 4096


@contextmanager
def local_workers(
    command: Sequence[str],
    count: int,
    *,
    logs: str | os.PathLike[str] | None = None,
    grace_seconds: float = _GRACE_SECONDS,
) -> Iterator[LocalWorkers]:
    """Run `command` in `count` processes, each with its share of the machine, and give them to the block.

    What they say goes into `worker-0.log`, … in the folder `logs` (None: to where this process says its own). Those
    that still run when the block is left are ended by SIGTERM, and killed after `grace_seconds`. Raises `OSError`
    where the command cannot be started.
    """
    started = LocalWorkers(grace_seconds)
    try:
        for number in range(count):
            started.start(command, share(os.environ, number, count), _log_of(logs, number))
        yield started
    finally:
        started.stop()


def share(environment: Mapping[str, str], number: int, count: int) -> dict[str, str]:
    """Return `environment` with the cores and devices of worker `number` of `count`.

    All get as many threads, since sums come out otherwise with another number of them; where the user has set
    `OMP_NUM_THREADS`, that stays. Of the devices, each gets as many, too; where there are fewer devices than workers,
    several share one.
    """
    threads = environment.get(_THREADS) or str(max(_cores() // count, 1))
    shared = {**environment, _THREADS: threads}
    devices = _devices(environment)
    if devices:
        each = max(len(devices) // count, 1)
        first = number * each % len(devices)
        shared[_DEVICES] = ",".join(devices[first : first + each])
    return shared


class LocalWorkers:
    """Processes that were started by `local_workers`."""

    def __init__(self, grace_seconds: float) -> None:
        self._grace = grace_seconds
        self._processes: list[subprocess.Popen[bytes]] = []
        self._logs: list[Path | None] = []

    def start(self, command: Sequence[str], environment: Mapping[str, str], log: Path | None) -> None:
        """Start one more."""
        with _opened(log) as output:
            process = subprocess.Popen(  # noqa: S603  # the caller's own command
                list(command),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output is not None else None,
                # In a group of its own: Ctrl-C comes to the one who started it, which passes it on once.
                process_group=None if sys.platform == "win32" else 0,
            )
        self._processes.append(process)
        self._logs.append(log)

    @property
    def pids(self) -> tuple[int, ...]:
        """The process of each."""
        return tuple(process.pid for process in self._processes)

    @property
    def running(self) -> int:
        """How many have not ended."""
        return sum(process.poll() is None for process in self._processes)

    @property
    def ended(self) -> tuple[Ended, ...]:
        """Those that have ended so far, in the order of their numbers."""
        statuses = [process.poll() for process in self._processes]
        return tuple(
            Ended(worker=number, status=status, words=_last_line(self._logs[number]))
            for number, status in enumerate(statuses)
            if status is not None
        )

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until all have ended, `seconds` at most (None: as long as it takes); tell whether they have."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while self.running:
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK_SECONDS)
        return True

    def stop(self) -> None:
        """End those that run, wait for them, and kill those that take too long."""
        for process in self._processes:
            if process.poll() is None:
                # SIGTERM: what a shell or Ray starts in the background does not heed an interrupt.
                process.terminate()
        try:
            self.wait(self._grace)
        finally:
            for process in self._processes:
                if process.poll() is None:
                    process.kill()
                process.wait()


def _cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _devices(environment: Mapping[str, str]) -> list[str]:
    """List the CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if _DEVICES in environment:
        return [device.strip() for device in environment[_DEVICES].split(",") if device.strip()]
    # Only here: a launcher on a machine without a trainer's packages starts as fast.
    import torch  # noqa: PLC0415  # as the line above says

    return [str(device) for device in range(torch.cuda.device_count())]


def _log_of(logs: str | os.PathLike[str] | None, number: int) -> Path | None:
    return None if logs is None else Path(logs) / f"worker-{number}.log"


@contextmanager
def _opened(log: Path | None) -> Iterator[IO[bytes] | None]:
    if log is None:
        yield None
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        yield output


def _last_line(log: Path | None) -> str:
    if log is None:
        return ""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - _LAST_BYTES, 0))
        lines = file.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""
