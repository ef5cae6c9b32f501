"""What trials are judged by: the value that was asked for, or the one that the training itself goes by."""

from __future__ import annotations

import logging
import types
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from optselect.callbacks.other_callbacks import is_named
from optselect.configuration.goal import Mode

USUAL = "val_loss"
HELD_BACK = "training loss on held-back batches"
RETURNED = "loss returned by validation_step"

_log = logging.getLogger("optselect")


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What trials are judged by.

    name       the name it is logged by, or what it is in words
    mode       whether it should be small or large
    validated  whether the validation gives it, and not training batches held back
    logged     whether the module logs it; else a step returns it
    """

    name: str
    mode: Mode
    validated: bool
    logged: bool = True


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a first look at the untrained module found.

    validation  names that its validation logs (None: there is none, or it could not be looked at)
    training    names that its training step logs, where somebody asked for something else than the former
    returns     whether its validation step returns a loss
    """

    validation: frozenset[str] | None = None
    training: frozenset[str] = frozenset()
    returns: bool = False


def judged_by(
    monitor: str | None, mode: Mode, watched: Iterable[tuple[str, Mode]], *, validates: bool, seen: Seen
) -> Judged:
    """The value `monitor`, else the first of those `watched` that trials can have, else the validation's loss.

    A validation that logs nothing is judged by the loss that it returns, else by training batches that are held back.
    """
    there = seen.validation or frozenset()
    if monitor is not None:
        only_trained = monitor not in there and among(monitor, seen.training) is not None
        return Judged(name=monitor, mode=mode, validated=validates and not only_trained)
    for name, its_mode in watched:
        if name in there or (validates and seen.validation is None):
            return Judged(name=name, mode=its_mode, validated=True)
        if among(name, seen.training) is not None:
            return Judged(name=name, mode=its_mode, validated=False)
        _log.info("%r is watched, but no step of the module logs it; trials are judged by something else", name)
    if not validates:
        return Judged(name=HELD_BACK, mode="min", validated=False, logged=False)
    if USUAL not in there and len(losses := _losses(there)) == 1:
        _log.info("trials are judged by %r, the one value of the validation that is called a loss", losses[0])
        return Judged(name=losses[0], mode="min", validated=True)
    if seen.validation is not None and not there:
        # It logs nothing at all.
        words = RETURNED if seen.returns else HELD_BACK
        _log.info("the validation logs nothing; trials are judged by the %s", words)
        return Judged(name=words, mode="min", validated=seen.returns, logged=False)
    return Judged(name=USUAL, mode=mode, validated=True)


def watched_by(callbacks: Iterable[Any]) -> list[tuple[str, Mode]]:
    """What the training goes by already: ModelCheckpoints first, whose weights are kept, then EarlyStopping."""
    found = []
    for kind in ("ModelCheckpoint", "EarlyStopping"):
        for callback in callbacks:
            if is_named(callback, kind) and callback.monitor is not None:
                found.append((callback.monitor, callback.mode))
    return list(dict.fromkeys(found))


def among(name: str, logged: Collection[str]) -> str | None:
    """The name under which `name` was logged: Lightning adds `_step` and `_epoch` to what is logged as both."""
    return next((each for each in (name, name.removesuffix("_epoch"), name.removesuffix("_step")) if each in logged), None)


def without_loader(name: str) -> str:
    """The name that the module gave, which Lightning lengthens for each of several loaders."""
    return name.partition("/dataloader_idx_")[0]


def logged_by_callbacks(name: str, callbacks: Iterable[Any]) -> str:
    """Who may log `name`, where the module does not, as a sentence; empty where nobody comes into question."""
    own = [each for each in callbacks if not type(each).__module__.startswith(("lightning.", "pytorch_lightning."))]
    own = [each for each in own if not is_named(each, "AutoOptimizer")]
    if saying := [type(each).__name__ for each in own if name in set(_words_of(each))]:
        return f"; {' and '.join(saying)} logs it, a callback, and callbacks do not run in trials: log it in the module"
    return "; what a callback logs does not count, since callbacks do not run in trials" if own else ""


def _losses(names: Iterable[str]) -> list[str]:
    plain = {without_loader(name) for name in names}
    # Lightning keeps what is logged by step and by epoch under both names.
    called = {name for name in plain if "loss" in name.lower() and name.removesuffix("_epoch") not in plain - {name}}
    return sorted(called)


def _words_of(callback: Any) -> Iterator[str]:
    """Words in a callback's attributes and methods."""
    yield from (value for value in vars(callback).values() if isinstance(value, str))
    for kind in type(callback).__mro__:
        for member in vars(kind).values():
            if isinstance(member, types.FunctionType):
                yield from (constant for constant in member.__code__.co_consts if isinstance(constant, str))
