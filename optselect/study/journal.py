"""Optuna's journal file, made to outlive its writers: a torn end, a lock left behind, a full disk."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from optselect.study.process import is_dead, this_process

try:
    import fcntl
except ImportError:  # Windows, where asking whether a process lives would end it
    fcntl = None  # type: ignore[assignment]

# How every line of a journal file begins.
_HEAD = b'{"op_code":'
# Optuna's own: a lock is held for one write, so one this old has no holder.
_GRACE_SECONDS = 30.0
_LONGEST_WAIT_SECONDS = 0.1
_BLOCK = 1 << 16
# The format's numbers for how a trial ended and what it was judged at on the way: what took training to know. Waiting
# for the disk is most of what an append costs, and all that stands before one of these in the file is on the disk with
# it. A process that dies loses nothing that was written, waited for or not.
_WAITED_FOR = frozenset({6, 7})


def journal_storage(path: str | os.PathLike[str]) -> JournalStorage:
    """Open Optuna's journal file at `path`, a torn end cut off first.

    Raises `ValueError`, and leaves the file as it is, when it is no journal.
    """
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        with file.open("rb") as opened:
            head = opened.read(len(_HEAD))
        if head != _HEAD[: len(head)]:
            # Above all not to be cut: it may be a database, or anything else of the user's.
            raise ValueError("not an Optuna journal file; for a database, pass its URL, as in sqlite:///path")
    return JournalStorage(LastingJournal(str(file)))


class LastingJournal(JournalFileBackend):
    """The same lines in the same file as Optuna's backend, which may read and write it at the same time.

    After a full disk or a power cut the file may end in half a line; Optuna's next append would join it and
    make the file unreadable for good (measured on Optuna 5.0). Here the end is mended before each append,
    under the lock; and an append that fails takes back what it wrote.
    """

    def __init__(self, file_path: str) -> None:
        self._owned = OwnedLock(file_path)
        # What threads write together, by thread.
        self._held: dict[int, list[dict[str, Any]]] = {}
        super().__init__(file_path, lock_obj=self._owned)
        if _whole_size(self._file_path) != Path(self._file_path).stat().st_size:
            with _held(self._owned):
                _cut_torn_end(self._file_path)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add whole lines or none. Raises `OSError` when they cannot be written; the file is then as before."""
        held = self._held.get(threading.get_ident())
        if held is not None:
            held += logs
            return
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with _held(self._owned):
            _cut_torn_end(self._file_path)
            with Path(self._file_path).open("ab", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                try:
                    written = 0
                    while written < len(lines):
                        written += file.write(lines[written:])
                    if any(log["op_code"] in _WAITED_FOR for log in logs):
                        os.fsync(file.fileno())
                except BaseException:
                    file.truncate(size)
                    raise

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write what this thread writes inside with one append at the end: all of it, or nothing."""
        me = threading.get_ident()
        self._held[me] = []
        try:
            yield
        except BaseException:
            del self._held[me]
            raise
        self.append_logs(self._held.pop(me))


class OwnedLock(JournalFileOpenLock):
    """Optuna's lock file beside the journal, with the name of its holder in it.

    Optuna's own locks are respected, and respect this one. What a dead process has left is removed at once
    where this can be known: its holder ran on this machine since it was booted, in this process namespace,
    and is there no more. Any other lock is removed when it is older than thirty seconds.
    """

    def __init__(self, file_path: str) -> None:
        super().__init__(file_path)
        self._journal = file_path
        self._file = Path(f"{file_path}.lock")

    def acquire(self) -> bool:
        """Wait for the lock and take it."""
        draft = Path(f"{self._file}.{uuid.uuid4()}")
        wait = 0.001
        try:
            while True:
                # Named before it is linked, so that no lock is ever without its holder's name. Written anew each
                # time for the file system's own time of day.
                draft.write_text(json.dumps(this_process()))
                try:
                    self._take(draft)
                except FileExistsError:
                    self._remove_if_left(draft.stat().st_mtime)
                else:
                    return True
                time.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
        finally:
            draft.unlink(missing_ok=True)

    def release(self) -> None:
        """Give it back."""
        # Another's, if this process slept through the thirty seconds.
        if _holder(self._file) == this_process():
            self._file.unlink(missing_ok=True)

    def _take(self, draft: Path) -> None:
        try:
            os.link(draft, self._file)
        except FileExistsError:
            raise
        except OSError:
            # A file system without hard links. Between these two the lock has no name in it: it counts as another's.
            with self._file.open("x") as file:
                file.write(draft.read_text())

    def _remove_if_left(self, now: float) -> None:
        with contextlib.suppress(FileNotFoundError), _one_at_a_time(self._journal):
            # Among those who can tell; looked at again, since another may have removed it and a third locked anew.
            old = now - self._file.lstat().st_mtime > _GRACE_SECONDS
            if old or is_dead(_holder(self._file)):
                self._file.unlink()


@contextmanager
def _held(lock: OwnedLock) -> Iterator[None]:
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _one_at_a_time(path: str) -> Iterator[None]:
    """Shut out the other processes of this machine inside; the kernel lets go for one that dies."""
    with Path(path).open("rb") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _holder(lock: Path) -> dict[str, Any] | None:
    try:
        holder = None if lock.is_symlink() else json.loads(lock.read_text())
    except (OSError, ValueError):
        return None
    return holder if isinstance(holder, dict) else None


def _whole_size(path: str) -> int:
    """Count the bytes up to the end of the last whole line: one that ends, and is the JSON of an operation."""
    with Path(path).open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            begin = _line_begin(file, end)
            file.seek(begin)
            if _is_operation(file.read(end - begin)):
                return end
            end = begin
    return 0


def _line_begin(file: Any, end: int) -> int:
    """Find where the line begins whose last byte is before `end`."""
    at = end - 1
    while at > 0:
        block = min(_BLOCK, at)
        file.seek(at - block)
        newline = file.read(block).rfind(b"\n")
        if newline >= 0:
            return int(at - block + newline + 1)
        at -= block
    return 0


def _is_operation(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and "op_code" in json.loads(line)
    except (ValueError, TypeError):
        return False


def _cut_torn_end(path: str) -> None:
    size = _whole_size(path)
    if size != Path(path).stat().st_size:
        os.truncate(path, size)
