"""Which code an optimizer is: the same name may be another class, or another version of it, in a later process."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from optselect.optim.composite import ROUTE, CompositeOptimizer
from optselect.optim.thawing import JOINED

# Entries of a group that are not its class's: schedulers and first steps add them, and plans name groups.
_ADDED_LATER = {"initial_lr", "step", "name", ROUTE, JOINED}

Implementation = Mapping[str, str]
"""An optimizer's class, the package it comes from and that package's version ("": not of an installed package)."""


def implementations(optimizers: Iterable[Optimizer]) -> list[dict[str, str]]:
    """Describe the implementation of each optimizer, and of each child of a composite one, as builtins."""
    parts: list[Optimizer] = []
    for optimizer in optimizers:
        parts += optimizer.children.values() if isinstance(optimizer, CompositeOptimizer) else [optimizer]
    return [_implementation(type(part)) for part in parts]


def other_classes(then: Sequence[Implementation], now: Sequence[Implementation]) -> str:
    """Say which classes are others than they were ("": none)."""
    same = [_named(each) for each in then] == [_named(each) for each in now]
    return "" if same else f"{_listed(then)} then, {_listed(now)} now"


def other_versions(then: Sequence[Implementation], now: Sequence[Implementation]) -> str:
    """Say which classes are the same but of another version of their package ("": none)."""
    others = [
        f"{_named(old)} of {old['package']} {old['version']} then, {new['version']} now"
        for old, new in zip(then, now, strict=True)
        if old["version"] != new["version"]
    ]
    return "; ".join(dict.fromkeys(others))


def other_groups(state: Mapping[str, Any], optimizer: Optimizer) -> str:
    """Say how the groups in a state dict are not those of `optimizer` ("": they are)."""
    then, now = ([len(group["params"]) for group in groups] for groups in (state["param_groups"], _groups(optimizer)))
    return "" if then == now else f"groups of {_numbers(then)} parameters then, of {_numbers(now)} now"


def other_settings(state: Mapping[str, Any], optimizer: Optimizer) -> str:
    """Say why a state dict of the same groups is of another class ("": it may be of this one).

    Torch looks at nothing but the groups' sizes: it loads AdamW's state into Adam without a word.
    """
    for then, now in zip(state["param_groups"], _groups(optimizer), strict=True):
        if strange := (then.keys() ^ now.keys()) - _ADDED_LATER:
            return f"{', '.join(sorted(strange))} in its groups {'now' if strange <= now.keys() else 'then'} only"
        for name, value in now.items():
            if isinstance(value, bool) and then.get(name, value) != value:
                return f"{name}={then[name]} then, {value} now"
    return ""


def _implementation(kind: type) -> dict[str, str]:
    package = kind.__module__.partition(".")[0]
    version = _version(package)
    # A script's own class is in `__main__` today and in a module tomorrow.
    return {"class": kind.__qualname__, "package": package if version else "", "version": version}


@functools.cache
def _version(package: str) -> str:
    """Leave out what names a build: the same release for another device is the same code."""
    try:
        return importlib.metadata.version(package).partition("+")[0]
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return ""


def _named(implementation: Implementation) -> str:
    package, kind = implementation["package"], implementation["class"]
    return f"{package}'s {kind}" if package else kind


def _listed(several: Sequence[Implementation]) -> str:
    return " and ".join(map(_named, several)) or "no optimizer"


def _groups(optimizer: Optimizer) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = optimizer.state_dict()["param_groups"]
    return groups


def _numbers(numbers: Sequence[int]) -> str:
    return " + ".join(map(str, numbers))
