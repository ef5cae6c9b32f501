"""Checkpoints that a command is given, and those that it leaves."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from optselect.errors import ResumeError
from optselect.plan.stored import read_checkpoint
from optselect.recipes.cli.input_errors import unreadable

if TYPE_CHECKING:
    import lightning.pytorch as pl

# What Trainer.fit takes for ckpt_path besides a path.
_CHECKPOINT_WORDS = frozenset({"last", "best", "hpc", "registry"})


def checked_checkpoint(given: str | None) -> str | None:
    """Return `given`, looked at before anything is set up."""
    if given is None or given in _CHECKPOINT_WORDS or "://" in given or Path(given).is_dir():
        return given
    try:
        Path(given).open("rb").close()
    except OSError as error:
        raise ResumeError(f"the checkpoint {given} cannot be read ({error.strerror}); pass a .ckpt file") from error
    if not zipfile.is_zipfile(given):
        raise ResumeError(f"{given} is not a checkpoint; pass a .ckpt file that Lightning wrote")
    try:
        # Before 2.6 Lightning itself would unpickle whatever is in it.
        read_checkpoint(given)
    # torch raises what the file leads it to: RuntimeError, UnpicklingError, EOFError, ...
    except Exception as error:
        raise unreadable(given, error) from error
    return given


def last_checkpoint(trainer: pl.Trainer) -> Path | None:
    """Find the checkpoint that the fit wrote last; None: there is none."""
    files = [
        Path(path)
        for callback in trainer.checkpoint_callbacks
        for path in (getattr(callback, "last_model_path", ""), getattr(callback, "best_model_path", ""))
        if path and Path(path).exists()
    ]
    return max(files, key=lambda file: file.stat().st_mtime, default=None)
