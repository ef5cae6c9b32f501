"""What trials are judged by: the value that was asked for, or the one that the training itself goes by."""

from __future__ import annotations

import dis
import itertools
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

_LIGHTNING = ("lightning.", "pytorch_lightning.", "lightning_fabric.", "torch.")
_ELSEWHERE = ("training_", "on_train_", "test_", "on_test_", "predict_", "on_predict_")

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
    logs_at_times  whether its validation has a place where it would log
    """

    validation: frozenset[str] | None = None
    training: frozenset[str] = frozenset()
    returns: bool = False
    logs_at_times: bool = False


def judged_by(
    monitor: str | None, mode: Mode, watched: Iterable[tuple[str, Mode]], *, validates: bool, seen: Seen
) -> Judged:
    """Choose the value `monitor`, else the first of those `watched` that validation gives, else its loss.

    A module whose validation logs nothing is judged by what is watched in training, by the loss that its validation
    returns, or by that of training batches that are held back.
    """
    there = seen.validation or frozenset()
    if monitor is not None:
        only_trained = monitor not in there and among(monitor, seen.training) is not None
        return Judged(name=monitor, mode=mode, validated=validates and not only_trained)
    watched = list(watched)
    for name, its_mode in watched:
        if name in there or (validates and seen.validation is None):
            return Judged(name=name, mode=its_mode, validated=True)
    if USUAL in there:
        return Judged(name=USUAL, mode=mode, validated=True)
    if len(losses := _losses(there)) == 1:
        _log.info("trials are judged by %r, the one value of the validation that is called a loss", losses[0])
        return Judged(name=losses[0], mode="min", validated=True)
    for name, its_mode in watched:
        if not there and among(name, seen.training) is not None:
            return Judged(name=name, mode=its_mode, validated=False)
    if validates and (there or seen.validation is None or seen.logs_at_times):
        return Judged(name=USUAL, mode=mode, validated=True)
    words = RETURNED if seen.returns else HELD_BACK
    if validates:
        _log.info("the validation logs nothing; trials are judged by the %s", words)
    return Judged(name=words, mode="min", validated=seen.returns, logged=False)


def watched_by(callbacks: Iterable[Any]) -> list[tuple[str, Mode]]:
    """List what the training goes by already: ModelCheckpoints first, whose weights are kept, then EarlyStopping."""
    found = [
        (callback.monitor, callback.mode)
        for kind in ("ModelCheckpoint", "EarlyStopping")
        for callback in callbacks
        if is_named(callback, kind) and callback.monitor is not None
    ]
    return list(dict.fromkeys(found))


def among(name: str, logged: Collection[str]) -> str | None:
    """Find the name under which `name` was logged: Lightning adds `_step` and `_epoch` to what is logged as both."""
    known = (name, name.removesuffix("_epoch"), name.removesuffix("_step"))
    return next((each for each in known if each in logged), None)


def logs_in_validation(module: object) -> bool:
    """Tell whether any method of the module's own that is not of training alone calls `self.log`."""
    names = {name for kind in type(module).__mro__ for name in vars(kind) if not name.startswith(_ELSEWHERE)}
    return any(_calls_log(method) for name in names for method in _called(type(module), name))


def _called(kind: type, name: str) -> Iterator[types.FunctionType]:
    """Yield the user's own method of that name, and those that it calls by `super`."""
    for each in kind.__mro__:
        member = vars(each).get(name)
        if isinstance(member, types.FunctionType) and not each.__module__.startswith(_LIGHTNING):
            yield member
            if "super" not in member.__code__.co_names:
                return


def _calls_log(method: types.FunctionType) -> bool:
    itself = method.__code__.co_varnames[:1]
    return any(
        one.argval in itself and other.argval in ("log", "log_dict")
        for one, other in itertools.pairwise(dis.get_instructions(method))
    )


def without_loader(name: str) -> str:
    """Return the name that the module gave, which Lightning lengthens for each of several loaders."""
    return name.partition("/dataloader_idx_")[0]


def logged_by_callbacks(name: str, callbacks: Iterable[Any]) -> str:
    """Say who may log `name`, where the module does not, as a sentence; empty where nobody comes into question."""
    own = [each for each in callbacks if not type(each).__module__.startswith(_LIGHTNING)]
    own = [each for each in own if not is_named(each, "AutoOptimizer")]
    if saying := [type(each).__name__ for each in own if name in set(_words_of(each))]:
        who = " and ".join(saying)
        return f"; the callback {who} logs it, and callbacks do not run in trials: log it in the module instead"
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
