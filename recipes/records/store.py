"""Records of trainings on disk: one JSON object a line, gzip, one file a source."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from optselect.errors import ConfigurationError

Record = dict[str, Any]
SIGNIFICANT_DIGITS = 5


def read(folder: Path, name: str) -> list[Record]:
    """Read the records of a source. Raises `ConfigurationError` where the file is missing or holds something else."""
    path = folder / f"{name}.jsonl.gz"
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"there are no records {str(path)!r}; `python -m optselect.recipes.records regenerate {name} CLONE "
            f"{folder}` makes them out of the public repository"
        ) from error
    except (OSError, EOFError, ValueError) as error:
        raise ConfigurationError(f"{str(path)!r} holds no gzipped lines of JSON: {error}") from error


def write(folder: Path, name: str, records: Iterable[Record]) -> int:
    """Write the records of a source, sorted, the same bytes each time; return how many."""
    lines = sorted(json.dumps(record, separators=(",", ":"), allow_nan=False) for record in records)
    folder.mkdir(parents=True, exist_ok=True)
    # A file name or a time in the header would make two equal records differ.
    with (folder / f"{name}.jsonl.gz").open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write("".join(f"{line}\n" for line in lines).encode())
    return len(lines)


def lines(folder: Path, name: str) -> set[str]:
    """Return the records of a source as text with sorted keys, to compare. Raises as `read` does."""
    return {json.dumps(record, sort_keys=True) for record in read(folder, name)}


def rounded(value: float | None) -> float | None:
    """Keep five digits of a measurement; None for what is missing or no finite number."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if value is not None and math.isfinite(value) else None
