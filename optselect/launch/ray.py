"""Workers as actors of Ray, on one machine or a cluster: where a machine is lost, its workers begin again elsewhere."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from optselect.errors import MissingExtraError
from optselect.launch.local import LocalWorkers, local_workers
from optselect.launch.workers import Ended

try:
    import ray
except ImportError as error:
    raise MissingExtraError("workers on Ray need it installed; pip install 'optselect[ray]'") from error

_GRACE_SECONDS = 20.0


@contextmanager
def ray_workers(
    command: Sequence[str],
    count: int,
    *,
    address: str | None = None,
    cpus: int = 1,
    gpus: float = 0.0,
    grace_seconds: float = _GRACE_SECONDS,
) -> Iterator[RayWorkers]:
    """Run `command` in `count` actors of `cpus` cores and `gpus` devices each, and give them to the block.

    `address` is that of a cluster, "auto" where this machine is part of one (None: a Ray of this machine alone, or the
    one that is connected already). What the command needs, optselect and the training's code and data among it, has to
    be on every machine. An actor that is lost with its machine, or killed, begins again where there is room, and so
    does its worker. Those that still run when the block is left are ended by SIGTERM, and killed after `grace_seconds`.
    """
    ours = not ray.is_initialized()
    if ours:
        ray.init(address=address, include_dashboard=None if address else False, log_to_driver=False)
    try:
        started = RayWorkers(command, count, cpus=cpus, gpus=gpus, grace_seconds=grace_seconds)
        try:
            yield started
        finally:
            started.stop()
    finally:
        if ours:
            ray.shutdown()


class RayWorkers:
    """Actors that were started by `ray_workers`."""

    def __init__(self, command: Sequence[str], count: int, *, cpus: int, gpus: float, grace_seconds: float) -> None:
        self._grace = grace_seconds
        # A second thread, for `stop` while `run` waits. Restarted for ever: a worker is expendable, its search is not.
        options: dict[str, Any] = {"max_restarts": -1, "max_task_retries": -1, "max_concurrency": 2}
        # Ray sets the threads of each by its cores.
        actor: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, **options)(_Worker)
        self.actors = [actor.remote(grace_seconds) for _ in range(count)]
        self._ends = [each.run.remote(list(command)) for each in self.actors]

    @property
    def running(self) -> int:
        """How many have not ended."""
        return len(self._ends) - len(self._ended())

    @property
    def ended(self) -> tuple[Ended, ...]:
        """Those that have ended so far, in the order of their numbers."""
        ended = self._ended()
        return tuple(_end(number, end) for number, end in enumerate(self._ends) if end in ended)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until all have ended, `seconds` at most (None: as long as it takes); tell whether they have."""
        ended, _ = ray.wait(self._ends, num_returns=len(self._ends), timeout=seconds)
        return len(ended) == len(self._ends)

    def stop(self) -> None:
        """End those that run, wait for them, and kill those that take too long."""
        stopping = [actor.stop.remote() for actor, end in zip(self.actors, self._ends, strict=True) if not _is(end)]
        if stopping:
            ray.wait(stopping, num_returns=len(stopping), timeout=self._grace + 1.0)
            self.wait(1.0)
        for actor in self.actors:
            ray.kill(actor, no_restart=True)

    def _ended(self) -> list[Any]:
        ended, _ = ray.wait(self._ends, num_returns=len(self._ends), timeout=0)
        return list(ended)


class _Worker:
    """One worker, wherever Ray puts it."""

    def __init__(self, grace_seconds: float) -> None:
        self._grace = grace_seconds
        self._workers: LocalWorkers | None = None
        self._stopped = False

    def run(self, command: list[str]) -> tuple[int, str]:
        """Run it to its end; return its status and its last words."""
        with (
            tempfile.TemporaryDirectory() as logs,
            local_workers(command, 1, logs=logs, grace_seconds=self._grace) as self._workers,
        ):
            if self._stopped:
                return -signal.SIGTERM, ""
            self._workers.wait()
            (end,) = self._workers.ended
            return end.status, end.words

    def stop(self) -> None:
        """End it."""
        self._stopped = True
        if self._workers is not None:
            self._workers.stop()


def _is(end: Any) -> bool:
    return bool(ray.wait([end], timeout=0)[0])


def _end(number: int, end: Any) -> Ended:
    try:
        status, words = ray.get(end)
    except ray.exceptions.RayError as error:
        # Nowhere is room for it any more, or somebody has killed it for good.
        return Ended(worker=number, status=-signal.SIGKILL, words=type(error).__name__)
    return Ended(worker=number, status=status, words=words)
