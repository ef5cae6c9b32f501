"""Files that are whole or absent, never half written."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` in one move, with the folders above it.

    A link stays one: what it points to is written. A file that is there keeps its mode. What is no file (a device, a
    pipe) is written to as it is.
    """
    # Only the last part: the folders above it may be links that lead elsewhere tomorrow.
    target = Path(os.path.realpath(path)) if Path(path).is_symlink() else Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    before = target.stat() if target.exists() else None
    if before is not None and not stat.S_ISREG(before.st_mode) and not stat.S_ISDIR(before.st_mode):
        target.write_text(text, encoding="utf-8")
        return
    # A name of its own, which is not too long where the file's own is not.
    partial = target.with_name(f".{target.name[:100]}.{os.getpid()}.partial")
    try:
        # From the first moment on nobody reads it who could not read the file before.
        partial.touch(mode=0o666 if before is None else 0o600)
        partial.write_text(text, encoding="utf-8")
        if before is not None:
            partial.chmod(stat.S_IMODE(before.st_mode))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
