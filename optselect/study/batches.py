"""The parts of a value as a study keeps them: pairs in single precision, in base 64, a few hundred characters."""

from __future__ import annotations

import base64
import math
import struct

from optselect.configuration.evaluation import Batches

_PAIR = struct.Struct("<2f")


def packed(batches: Batches) -> str:
    """Write `batches` as a string, which is empty where a number of theirs is beyond single precision."""
    try:
        return base64.b64encode(b"".join(_PAIR.pack(*pair) for pair in batches)).decode()
    except OverflowError:
        return ""


def unpacked(written: str) -> Batches:
    """Read what `packed` wrote. Raises `ValueError` for anything else."""
    if written == "":
        return ()
    try:
        batches: Batches = tuple(_PAIR.iter_unpack(base64.b64decode(written, validate=True)))
    except (ValueError, struct.error, TypeError) as error:
        raise ValueError(f"its batches are {written!r}") from error
    if not all(math.isfinite(value) and 0 <= weight < math.inf for value, weight in batches):
        raise ValueError(f"its batches are {batches}")
    return batches
