"""A journal file that outlives its writers."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from optselect.study.journal import LastingJournal, OwnedLock, journal_storage

LINE = {"op_code": 9, "worker_id": "w", "text": "ä"}
VALUE = {"op_code": 7, "worker_id": "w", "trial_id": 0, "step": 1, "intermediate_value": 0.5}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.journal"


def journal(path: Path) -> LastingJournal:
    return LastingJournal(str(path))


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


# --- the end of the file --------------------------------------------------------------------

TAILS = [b'{"op_code":4,"wor', b'{"op_code":4,"wor\n', b"\x00" * 70_000 + b"\n", b"\n", b"{}\n", b'17\n{"op_code":1']


@pytest.mark.parametrize("tail", TAILS, ids=range(len(TAILS)))
@pytest.mark.parametrize("when", ["before it is opened", "while it is open"])
def test_what_is_no_whole_line_at_the_end_is_cut_off_before_the_next_is_added(
    tail: bytes, when: str, path: Path
) -> None:
    journal(path).append_logs([LINE, LINE])
    backend = journal(path)
    with path.open("ab") as file:
        file.write(tail)
    if when == "before it is opened":
        backend = journal(path)

    backend.append_logs([LINE])

    assert lines(path) == [LINE] * 3


def test_a_line_that_is_longer_than_what_is_read_at_once_is_kept(path: Path) -> None:
    long = {**LINE, "text": "x" * 200_000}
    journal(path).append_logs([long])

    journal(path).append_logs([LINE])

    assert lines(path) == [long, LINE]


def test_a_full_disk_takes_nothing_of_what_is_stored(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = journal(path)
    backend.append_logs([LINE])

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            backend.append_logs([VALUE])

    assert lines(path) == [LINE]
    backend.append_logs([LINE])
    assert lines(path) == [LINE] * 2


def test_the_disk_is_waited_for_with_each_value_of_a_real_study(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study(storage=journal_storage(path))
    waited: list[int] = []
    monkeypatch.setattr(os, "fsync", waited.append)

    trial = study.ask()
    trial.set_user_attr("cost", 1.0)
    before = len(waited)
    trial.report(0.5, 1)
    reported = len(waited)
    study.tell(trial, 0.4)

    assert (before, reported, len(waited)) == (0, 1, 2)


def test_the_disk_is_waited_for_where_a_value_is_stored(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = journal(path)
    waited: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda _: waited.append(len(lines(path))))

    for line in (LINE, LINE, VALUE, LINE, VALUE):
        backend.append_logs([line])

    assert waited == [3, 5]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a file")
def test_a_limit_on_the_files_size_cuts_no_line_in_two(path: Path) -> None:
    # A real write that the kernel breaks off in the middle, as on a full disk.
    program = f"""
import resource, signal, sys
from optselect.study.journal import LastingJournal
backend = LastingJournal({str(path)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, resource.RLIM_INFINITY))
try:
    for number in range(1_000):
        backend.append_logs([{{"op_code": 9, "number": number, "text": "x" * 300}}])
except OSError as error:
    print(number, error)
"""

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert "File too large" in said
    assert [line["number"] for line in lines(path)] == list(range(int(said.split()[0])))


# --- the lock -------------------------------------------------------------------------------


def killed_while_it_holds_the_lock(path: Path) -> int:
    program = f"""
import time
from optselect.study.journal import OwnedLock
OwnedLock({str(path)!r}).acquire()
print("held", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.pid


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot be asked whether a process lives")
def test_the_lock_of_a_killed_process_is_removed_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal(path).append_logs([LINE])
    dead = killed_while_it_holds_the_lock(path)
    lock = Path(f"{path}.lock")
    assert json.loads(lock.read_text())["pid"] == dead

    waits: list[float] = []
    monkeypatch.setattr("optselect.study.journal.time.sleep", waits.append)

    journal(path).append_logs([LINE])

    assert lines(path) == [LINE] * 2
    assert len(waits) == 1
    assert not lock.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot be asked whether a process lives")
def test_a_pid_that_was_given_out_again_does_not_keep_a_lock(path: Path) -> None:
    journal(path).append_logs([LINE])
    lock = OwnedLock(str(path))
    lock.acquire()
    file = Path(f"{path}.lock")
    file.write_text(json.dumps({**json.loads(file.read_text()), "started": "long ago"}))

    journal(path).append_logs([LINE])

    assert lines(path) == [LINE] * 2


@pytest.mark.parametrize("kind", ["symlink", "file", "of another machine"])
def test_any_other_lock_is_removed_when_it_is_old(kind: str, path: Path) -> None:
    journal(path).append_logs([LINE])
    lock = Path(f"{path}.lock")
    if kind == "symlink":
        lock.symlink_to(path)
    else:
        lock.write_text("" if kind == "file" else json.dumps({"machine": "there", "pid": 1, "started": "1"}))
    past = time.time() - 60
    os.utime(lock, (past, past), follow_symlinks=False)

    journal(path).append_logs([LINE])

    assert lines(path) == [LINE] * 2


@pytest.mark.parametrize("kind", ["of another machine", "of this process", "optuna's"])
def test_a_lock_that_may_be_held_is_waited_for(kind: str, path: Path) -> None:
    journal(path).append_logs([LINE])
    lock = Path(f"{path}.lock")
    if kind == "optuna's":
        lock.symlink_to(path)
    elif kind == "of this process":
        OwnedLock(str(path)).acquire()
    else:
        lock.write_text(json.dumps({"machine": f"not {socket.gethostname()}", "pid": 1, "started": "1"}))

    class Waited(Exception):  # noqa: N818  # no error: it ends the wait
        pass

    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 20:
            raise Waited

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("optselect.study.journal.time.sleep", sleep)
        with pytest.raises(Waited):
            journal(path).append_logs([LINE])

    assert lines(path) == [LINE]
    assert os.path.lexists(lock)
    assert {file.name for file in path.parent.iterdir()} == {path.name, lock.name}


def test_optunas_own_backend_reads_and_writes_the_same_file(path: Path) -> None:
    ours = optuna.create_study(storage=journal_storage(path), study_name="study")
    theirs = optuna.load_study(study_name="study", storage=JournalStorage(JournalFileBackend(str(path))))

    for study in (ours, theirs, ours, theirs):
        study.add_trial(optuna.trial.create_trial(value=1.0))

    assert len(ours.trials) == len(theirs.trials) == 4


def test_writers_at_the_same_time_lose_no_line(path: Path) -> None:
    program = f"""
from optselect.study.journal import LastingJournal
backend = LastingJournal({str(path)!r})
for number in range(40):
    backend.append_logs([{{"op_code": 9, "number": number}}])
"""
    processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(4)]

    assert [process.wait() for process in processes] == [0] * 4
    assert sorted(line["number"] for line in lines(path)) == sorted(list(range(40)) * 4)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
