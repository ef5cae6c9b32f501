"""Trials put aside, on disk beside their study: after a kill they go on where they stood."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from optselect.study.study import TrialStudy

_log = logging.getLogger("optselect")

STORED_BYTES = 2 * 2**30
# Of what is free: the training itself has checkpoints to write.
_MOST_OF_FREE = 0.25
# Below this nothing is put aside: the study itself, which must not be lost, lies on the same disk.
_LEAST_FREE = 64 * 2**20


class RungStates:
    """Files of builtins and tensors in `folder`, one for each trial, up to `limit_bytes`.

    A convenience, never a condition: what cannot be written or read is left out, and its trial starts over.
    """

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
                torch.save({"reached": reached, "torch": str(torch.__version__), "stored": stored}, opened)
            part.replace(file)
        except (OSError, RuntimeError) as error:
            self._tell(str(error))
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def load(self, trial: str) -> tuple[int, dict[str, Any]] | None:
        """Return how far `trial` was when it was kept, and its state; None when it was not, or by another torch."""
        try:
            kept = torch.load(self._file(trial), weights_only=True)
            return (kept["reached"], kept["stored"]) if kept["torch"] == torch.__version__ else None
        except Exception:  # noqa: BLE001  # a broken file may fail in any way, and means the same as none
            return None

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


def states_beside(study: TrialStudy) -> RungStates | None:
    """Make room beside the storage of `study` for trials put aside; None for one that is not a file here."""
    if study.file is None:
        return None
    folder = states_folder(study.file, study.study.study_name, study.birthmark)
    clear_strays(folder, study.birthmarks())
    return RungStates(folder)


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
