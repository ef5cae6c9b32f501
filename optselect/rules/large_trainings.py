"""What others' long trainings say, as numbers with their intervals and sources.

`python -m optselect.recipes.records facts FOLDER` derives them from public records and writes the file beside this
module; nobody edits it. A rule that takes a constant from here names the fact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

FILE = "large_trainings.json"


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A number derived from recorded trainings.

    says      what it is
    value     the number
    interval  95 %, by a bootstrap over what belongs together; None where single trainings were compared
    of        how many trainings, pairs or pools it was made of
    source    one of `sources()`
    """

    says: str
    value: float
    interval: tuple[float, float] | None
    of: int
    source: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where recorded trainings come from: repository, branch and commit, licence, and the paper."""

    repository: str
    revision: str
    licence: str
    cites: str


@cache
def facts() -> Mapping[str, Fact]:
    """Return all facts by name, such as "steplaw.rate.batch"."""
    return MappingProxyType(
        {
            name: Fact(**given | {"interval": given["interval"] and tuple(given["interval"])})
            for name, given in _file()["facts"].items()
        }
    )


@cache
def sources() -> Mapping[str, Source]:
    """Return where they come from, by the first part of their names."""
    return MappingProxyType({name: Source(**given) for name, given in _file()["sources"].items()})


def _file() -> dict[str, dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, dict[str, Any]]] = json.loads(
        resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8")
    )
    return found
