"""Which packages make the choice, and in which version: a plan says so."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata

_PACKAGES = ("optselect", "torch", "lightning", "optuna")


def versions() -> Mapping[str, str]:
    """Return the versions of Python and of the packages that are installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {**found, "python": platform.python_version()}
