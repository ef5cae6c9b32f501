"""Workers on one machine: each with its share of it, and none is left behind."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from optselect.launch import local
from optselect.launch.local import LocalWorkers, local_workers, share
from optselect.launch.workers import Ended, Workers


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


WAITS = "import time; print('ready', flush=True); time.sleep(600)"
# Stands for a worker that does not heed SIGTERM.
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAITS}"


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_cores", lambda: 4)
    for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def ready(workers: LocalWorkers, folder: Path) -> None:
    """Wait until all have said so, so that a signal finds them at work."""
    files = [folder / f"worker-{number}.log" for number in range(len(workers.pids))]
    while not all(file.exists() and "ready" in file.read_text() for file in files):
        assert not workers.wait(0.01)


def gone(pids: Iterator[int]) -> bool:
    def is_gone(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    return all(map(is_gone, pids))


def test_workers_are_what_every_launcher_gives() -> None:
    with local_workers(python(""), 1) as started:
        workers: Workers = started

        assert workers.wait()


def test_each_worker_says_how_it_ended_and_what_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import os, sys; print('first'); print(os.environ['CUDA_VISIBLE_DEVICES']); sys.exit(len(sys.argv))"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,5")

    with local_workers([*python(program), "a", "b"], 2, logs=tmp_path / "logs") as workers:
        workers.wait()

        assert workers.ended == (Ended(worker=0, status=3, words="7"), Ended(worker=1, status=3, words="5"))
        assert workers.running == 0


@pytest.mark.parametrize("count, threads", [(1, "4"), (2, "2"), (3, "1"), (4, "1"), (9, "1")])
def test_the_cores_are_shared_out_alike_and_each_has_one_at_least(count: int, threads: str) -> None:
    environment = {"CUDA_VISIBLE_DEVICES": "", "HOME": "/home/me"}

    shares = [share(environment, number, count) for number in range(count)]

    assert shares == [{**environment, "OMP_NUM_THREADS": threads}] * count


def test_a_number_of_threads_that_the_user_has_set_stays() -> None:
    assert share({"OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": ""}, 0, 2)["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(
    "devices, count, shares",
    [
        ("0,1,2,3", 4, ["0", "1", "2", "3"]),
        ("0,1,2,3", 2, ["0,1", "2,3"]),
        ("4,6,7", 2, ["4", "6"]),
        ("0,1", 3, ["0", "1", "0"]),
        ("GPU-a, MIG-b", 2, ["GPU-a", "MIG-b"]),
    ],
)
def test_each_worker_has_as_many_devices_and_several_share_one_only_where_there_are_too_few(
    devices: str, count: int, shares: list[str]
) -> None:
    environment = {"CUDA_VISIBLE_DEVICES": devices}

    given = [share(environment, number, count)["CUDA_VISIBLE_DEVICES"] for number in range(count)]

    assert given == shares


def test_devices_that_nobody_has_named_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)

    assert [share({}, number, 2)["CUDA_VISIBLE_DEVICES"] for number in range(2)] == ["0", "1"]


def test_devices_that_the_user_has_hidden_stay_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)

    assert share({"CUDA_VISIBLE_DEVICES": ""}, 0, 2)["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals between processes")
@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit(143), ZeroDivisionError, None])
def test_however_the_block_is_left_no_worker_is(end: BaseException | None, tmp_path: Path) -> None:
    pids: tuple[int, ...] = ()

    with pytest.raises(BaseException) as left, local_workers(python(WAITS), 2, logs=tmp_path) as workers:  # noqa: PT011, PT012
        ready(workers, tmp_path)
        pids = workers.pids
        raise end or RuntimeError("the end of the block")

    assert gone(iter(pids))
    assert [each.status for each in workers.ended] == [-signal.SIGTERM] * 2
    assert left.value is not None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals between processes")
def test_a_worker_that_does_not_heed_its_end_is_killed_after_its_grace(tmp_path: Path) -> None:
    with local_workers(python(DEAF), 1, logs=tmp_path, grace_seconds=0.1) as workers:
        ready(workers, tmp_path)

    assert [each.status for each in workers.ended] == [-signal.SIGKILL]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals between processes")
def test_a_worker_that_is_killed_leaves_the_others_at_work(tmp_path: Path) -> None:
    with local_workers(python(WAITS), 2, logs=tmp_path) as workers:
        ready(workers, tmp_path)

        os.kill(workers.pids[1], signal.SIGKILL)
        while not workers.ended:
            workers.wait(0.01)

        assert [(each.worker, each.status) for each in workers.ended] == [(1, -signal.SIGKILL)]
        assert workers.running == 1
        assert not workers.wait(0.0)


def test_a_command_that_cannot_be_started_leaves_none_behind(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"), local_workers([str(tmp_path / "nowhere")], 2):
        pass
