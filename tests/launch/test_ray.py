"""Workers on a Ray of this machine: the same as processes, but that a lost one begins again."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from optselect.launch.workers import Ended, Workers

pytestmark = pytest.mark.slow

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own, at its import
    ray: Any = pytest.importorskip("ray", reason="an extra: pip install 'optselect[ray]'")
    from optselect.launch.ray import ray_workers


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


def python(program: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", program, *arguments]


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# Says who it is, and waits to be killed; one that finds another's name ends.
MARKS = """
import os, sys, time
with open(sys.argv[1], "a") as file:
    print(os.getpid(), file=file, flush=True)
if len(open(sys.argv[1]).readlines()) < int(sys.argv[2]):
    time.sleep(600)
print("the end")
"""


def test_each_worker_says_how_it_ended_and_what_last() -> None:
    with ray_workers(python("import sys; print('first'); print('last'); sys.exit(3)"), 2) as started:
        workers: Workers = started

        assert workers.wait(120)
        assert workers.ended == (Ended(worker=0, status=3, words="last"), Ended(worker=1, status=3, words="last"))
        assert workers.running == 0


def test_an_actor_that_is_lost_begins_again_with_its_worker(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    with ray_workers(python(MARKS, str(marks), "2"), 1) as workers:
        while not lines(marks):
            assert not workers.wait(0.05)

        ray.kill(workers.actors[0], no_restart=False)

        assert workers.wait(120)
        assert workers.ended == (Ended(worker=0, status=0, words="the end"),)
    orphan, again = lines(marks)
    assert orphan != again
    while not is_gone(int(orphan)):
        time.sleep(0.05)


def test_however_the_block_is_left_no_worker_is(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    with pytest.raises(KeyboardInterrupt), ray_workers(python(MARKS, str(marks), "9"), 1) as workers:  # noqa: PT012  # in the midst of it
        while not lines(marks):
            assert not workers.wait(0.05)
        raise KeyboardInterrupt

    assert is_gone(int(lines(marks)[0]))
