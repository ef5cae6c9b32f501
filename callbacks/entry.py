"""What a checkpoint says, looked through before a fit goes on from it: somebody else may have written it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from optselect.errors import ResumeError
from optselect.workload.rng import RngState, rng_isolated, set_rng_state

# So many thaws, steps or processes no training has.
_MOST = 2**53


@dataclass(frozen=True)
class Entry:
    """A part of the checkpoint at `path`, called `what` in errors. Raises `ResumeError` for one that is no mapping."""

    path: str
    what: str
    data: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.data, Mapping):
            raise ResumeError(
                f"{self.what} {self.path} is a {type(self.data).__name__}, where a mapping belongs; pass a checkpoint "
                "that was not edited"
            )

    def get(self, name: str, holds: Callable[[Any], bool], expected: str, *, needed: bool = False) -> Any:
        """Return what stands under `name` (None: nothing). Raises `ResumeError` unless it `holds`."""
        value = self.data.get(name)
        if value is None:
            if needed:
                raise self.refused(name, "missing", expected)
            return None
        try:
            good = holds(value)
        # Whatever a made-up state leads torch and NumPy to.
        except Exception as error:
            raise self.refused(name, f"not to be used ({type(error).__name__}: {error})", expected) from error
        if not good:
            raise self.refused(name, f"{value!r:.60}", expected)
        return value

    def refused(self, name: str, came: str, expected: str) -> ResumeError:
        """Make the error for an entry that cannot be gone on with."""
        return ResumeError(
            f"{self.what} {self.path} cannot be gone on with: {name} is {came}, where {expected} belongs; pass a "
            "checkpoint that was not edited, or on_mismatch='search' to choose anew from its weights"
        )


def is_mapping(value: Any) -> bool:
    """Whether it is a mapping."""
    return isinstance(value, Mapping)


def is_count(value: Any) -> bool:
    """Whether it counts something."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST


def are_names(value: Any) -> bool:
    """Whether they are names, such as those of classes."""
    return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)


def are_implementations(value: Any) -> bool:
    """Whether they are classes of optimizers, as `implementations` writes them."""
    return isinstance(value, list | tuple) and all(
        isinstance(each, Mapping) and are_names([each.get(name) for name in ("class", "package", "version")])
        for each in value
    )


def are_states(value: Any) -> bool:
    """Whether they are state dicts of optimizers, as torch writes them."""
    return isinstance(value, list | tuple) and all(
        isinstance(state, Mapping)
        and isinstance(state.get("state"), Mapping)
        and isinstance(state.get("param_groups"), list)
        and all(isinstance(group, Mapping) and isinstance(group.get("params"), list) for group in state["param_groups"])
        for state in value
    )


def are_random_numbers(value: Any) -> bool:
    """Whether they are states that the generators take: tried, and put back."""
    if not isinstance(value, Mapping) or not isinstance(value.get("loaders", ()), list | tuple):
        return False
    others = value.get("others", ())
    if not isinstance(others, list | tuple) or not all(isinstance(other, Mapping) for other in others):
        return False
    for other in ({}, *others):
        state = RngState.from_dict({**value, **other})
        with rng_isolated():
            set_rng_state(state)
        if not all(each.dtype == torch.uint8 for each in state.cuda):
            return False
    return True
