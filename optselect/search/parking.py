"""Trials put aside, on disk or in a store: after a kill, and on another machine, they go on where they stood."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, Protocol

import torch

from optselect.configuration import Trial
from optselect.study.artifacts import ArtifactStore, bucket_of
from optselect.study.study import TrialStudy

_log = logging.getLogger("optselect")

STORED_BYTES = 2 * 2**30
# Of what is free: the training itself has checkpoints to write.
_MOST_OF_FREE = 0.25
# Below this nothing is put aside: the study itself, which must not be lost, lies on the same disk.
_LEAST_FREE = 64 * 2**20


class States(Protocol):
    """Where trials are put aside.

    A convenience, never a condition: what cannot be written or read is left out, and its trial starts over.
    """

    def save(self, trial: str, reached: int, stored: dict[str, Any], *, about_bytes: int) -> None:
        """Keep `stored` as what `trial` is after `reached` micro-batches, in place of what was kept before."""
        ...

    def load(self, trial: str) -> tuple[int, dict[str, Any]] | None:
        """Return how far `trial` was when it was kept, and its state; None when it was not, or by another torch."""
        ...

    def clear(self) -> None:
        """Remove all of it: the search has ended."""
        ...


class RungStates:
    """Files of builtins and tensors in `folder`, one for each trial, up to `limit_bytes`."""

    def __init__(self, folder: Path, *, limit_bytes: int = STORED_BYTES) -> None:
        self.folder = folder
        self._limit = limit_bytes
        self._told = False

    def save(self, trial: str, reached: int, stored: dict[str, Any], *, about_bytes: int) -> None:
        """Keep `stored` as what `trial` is after `reached` micro-batches, in place of what was kept before."""
        file = self._file(trial)
        part = file.with_suffix(".part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
            if free < _LEAST_FREE or about_bytes > min(self._left(file), _MOST_OF_FREE * free):
                self._tell("there is no room for it")
                return
            with part.open("wb") as opened:
                torch.save(_written(reached, stored), opened)
            part.replace(file)
        except (OSError, RuntimeError) as error:
            self._tell(str(error))
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def load(self, trial: str) -> tuple[int, dict[str, Any]] | None:
        """Return how far `trial` was when it was kept, and its state; None when it was not, or by another torch."""
        return _read(self._file(trial))

    def clear(self) -> None:
        """Remove all of it: the search has ended."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()  # the last study's folder

    def _file(self, trial: str) -> Path:
        return self.folder / f"{trial}.pt"

    def _left(self, replaced: Path) -> int:
        files = (file for file in self.folder.iterdir() if file != replaced)
        return self._limit - sum(file.stat().st_size for file in files)

    def _tell(self, why: str) -> None:
        if not self._told:
            _log.info("a trial put aside is not kept on disk (%s): after a kill it would start over", why)
        self._told = True


class SharedStates:
    """The same in `store`, which workers on other machines reach, too; its names begin with `prefix`.

    `trials` names those that may have a state there.
    """

    def __init__(self, store: ArtifactStore, prefix: str, trials: Callable[[], Iterable[str]]) -> None:
        self._store, self._prefix, self._trials = store, prefix, trials
        self._told = False

    def save(self, trial: str, reached: int, stored: dict[str, Any], *, about_bytes: int) -> None:
        """Keep `stored` as what `trial` is after `reached` micro-batches, in place of what was kept before."""
        try:
            with tempfile.TemporaryFile() as file:
                torch.save(_written(reached, stored), file)
                file.seek(0)
                self._store.write(self._name(trial), file)
        except Exception as error:  # noqa: BLE001  # whatever a store may raise: the trial would start over
            if not self._told:
                _log.warning(
                    "a trial put aside of about %d bytes is not kept among the artifacts (%s): elsewhere, and after "
                    "a kill, it would start over",
                    about_bytes,
                    type(error).__name__,
                )
            self._told = True

    def load(self, trial: str) -> tuple[int, dict[str, Any]] | None:
        """Return how far `trial` was when it was kept, and its state; None when it was not, or by another torch."""
        with tempfile.TemporaryFile() as file:
            try:
                with contextlib.closing(self._store.open_reader(self._name(trial))) as reader:
                    shutil.copyfileobj(reader, file)
            except Exception:  # noqa: BLE001  # there is none, or it cannot be had
                return None
            file.seek(0)
            return _read(file)

    def clear(self) -> None:
        """Remove all of it: the search has ended."""
        for trial in self._trials():
            with contextlib.suppress(Exception):
                self._store.remove(self._name(trial))

    def _name(self, trial: str) -> str:
        return f"{self._prefix}{trial}.pt"


def _written(reached: int, stored: dict[str, Any]) -> dict[str, Any]:
    return {"reached": reached, "torch": str(torch.__version__), "stored": stored}


def _read(file: Path | IO[bytes]) -> tuple[int, dict[str, Any]] | None:
    """Read what `_written` gave, of the same torch."""
    try:
        kept = torch.load(file, weights_only=True)
        return (kept["reached"], kept["stored"]) if kept["torch"] == torch.__version__ else None
    except Exception:  # noqa: BLE001  # a broken file may fail in any way, and means the same as none
        return None


def states_of(study: TrialStudy) -> States | None:
    """Make room for trials of `study` put aside: among its artifacts, or beside its file; None where it has neither."""
    bucket = bucket_of(study.artifacts)
    if bucket is not None:
        store, prefix = bucket
        begun = f"{prefix}optselect-{study.birthmark[:12]}-"
        return SharedStates(store, begun, lambda: [trial_name(*_key(trial)) for trial in study.trials()])
    if isinstance(study.artifacts, str | os.PathLike):
        # Of other studies' storages nothing is known here: what they have left is theirs to clear.
        return RungStates(states_folder(Path(study.artifacts) / "optselect", *_known_by(study)))
    if study.file is None:
        return None
    folder = states_folder(study.file, *_known_by(study))
    clear_strays(folder, study.birthmarks())
    return RungStates(folder)


def trial_name(key: str, seed: int) -> str:
    """Name a trial by its configuration's key and its seed."""
    return f"{key}-{seed}"


def _key(trial: Trial) -> tuple[str, int]:
    return trial.configuration.key, trial.seed


def _known_by(study: TrialStudy) -> tuple[str, str]:
    return study.study.study_name, study.birthmark


def states_folder(storage_file: str | os.PathLike[str], study_name: str, birthmark: str) -> Path:
    """Return the folder of the states of a study that is kept in `storage_file`."""
    readable = re.sub(r"[^\w.-]", "_", study_name)[:80]
    return Path(f"{os.fspath(storage_file)}.states") / f"{readable}-{birthmark[:12]}"


def clear_strays(folder: Path, birthmarks: set[str]) -> None:
    """Remove what lies beside `folder` of studies that are no more; `birthmarks` are those of the others."""
    known = {birthmark[:12] for birthmark in birthmarks}
    for other in folder.parent.iterdir() if folder.parent.is_dir() else ():
        if other.is_dir() and other.name.rpartition("-")[2] not in known:
            shutil.rmtree(other, ignore_errors=True)
