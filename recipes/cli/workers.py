"""`optselect tune --workers N`: more processes on this machine beside the one that is asked; and who is at a search."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from optselect.errors import ConfigurationError
from optselect.launch.local import LocalWorkers, share

_OPTION = "--workers"
_LOGS = "optselect_workers"
# What a worker takes to see that the search has ended, and to say so.
_GRACE_SECONDS = 20.0


def workers_in(arguments: Sequence[str]) -> tuple[list[str], int]:
    """Take `--workers N` out of a command line: devices are shared out before anything looks at them.

    Raises `ConfigurationError` for what is no number of workers.
    """
    left, count = list(arguments), "1"
    for index in reversed(range(len(left))):
        option, equals, value = left[index].partition("=")
        if option == _OPTION:
            count = value if equals else "".join(left[index + 1 : index + 2])
            del left[index : index + (1 if equals else 2)]
            break
    if not count.isdecimal() or not 0 < int(count) <= _MOST:
        raise ConfigurationError(f"{_OPTION} is a number of processes from 1 to {_MOST}, but got {count[:40]!r}")
    return left, int(count)


# More would only wait for one another on one machine.
_MOST = 256


@contextmanager
def beside(arguments: Sequence[str], count: int) -> Iterator[None]:
    """Run `count` - 1 workers of the search of `arguments` beside what is run inside, each with its share.

    What they say is in `optselect_workers/worker-1.log`, … in this folder. Those that have not ended soon after the
    search are interrupted.
    """
    if count == 1:
        yield
        return
    environment, threads = dict(os.environ), torch.get_num_threads()
    workers = LocalWorkers(_GRACE_SECONDS)
    command = [sys.executable, "-m", "optselect.recipes.cli", "worker", *arguments]
    try:
        for number in range(1, count):
            log = Path(_LOGS) / f"worker-{number}.log"
            log.unlink(missing_ok=True)
            workers.start(command, share(environment, number, count), log)
        mine = share(environment, 0, count)
        os.environ.update(mine)
        torch.set_num_threads(int(mine["OMP_NUM_THREADS"]))
        yield
        workers.wait(_GRACE_SECONDS)
    finally:
        workers.stop()
        os.environ.clear()
        os.environ.update(environment)
        torch.set_num_threads(threads)
    for ended in workers.ended:
        if ended.status != 0:
            print(f"warning: worker {ended.worker + 1} of {count} ended early: {ended.words}")
