"""Opening the study of a training: the unfinished one, or a new one; never that of another training."""

from __future__ import annotations

import itertools
import os
import random
import time
import uuid
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.storages import BaseStorage

from optselect.configuration.goal import Mode
from optselect.errors import StorageError
from optselect.study.storage import Storage, causes_of, place_of, storage_of
from optselect.study.study import BIRTHMARK, USED, TrialStudy
from optselect.words import without_passwords

_IDENTITY = "optselect:identity"
# Processes that begin at the same time on an empty database meet while it gets its tables.
_ATTEMPTS, _PAUSE_SECONDS = 12, 0.05


def open_study(
    *,
    storage: Storage,
    name: str,
    mode: Mode,
    facts: Mapping[str, Any],
    identity: str = "",
    exact_name: bool = False,
) -> TrialStudy:
    """Open the unfinished study called `name`, or a new one.

    `storage` is a path (an Optuna journal file), an Optuna URL, a storage object, or None for memory.
    A study whose training has ended is not continued: the next free `name-2`, `name-3`, … is taken,
    unless `exact_name`. Raises `StorageError` when the storage cannot be opened, and when the study is of
    another training than `identity` says.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = _created(storage, name, mode, facts={**facts, _IDENTITY: identity}, exact_name=exact_name)
    except Exception as error:
        where = storage if isinstance(storage, str | os.PathLike) else type(storage).__name__
        told = isinstance(error, ImportError) or (isinstance(error, ValueError | OSError) and "://" not in str(where))
        # Optuna hides which driver is missing; its cause names it.
        why = f": {error.__cause__ or error}" if told else ""
        raise StorageError(
            f"the study cannot be opened in {without_passwords(str(where))} ({type(error).__name__}{why}); "
            "check the path or the URL and its permissions, or pass another storage="
        ) from error
    known = study.user_attrs
    if known.get(_IDENTITY, identity) != identity:
        raise StorageError(
            f"the study {study.study_name!r} is of another training (its model, data, length, candidates, rules or "
            "seed differ), so its trials say nothing about this one; pass another study_name"
        )
    return TrialStudy(study, place_of(storage))


def _created(
    storage: Storage,
    name: str,
    mode: Mode,
    *,
    facts: Mapping[str, Any],
    exact_name: bool,
) -> optuna.Study:
    for attempt in itertools.count(1):
        try:
            opened = storage_of(storage)
            study = optuna.create_study(
                storage=opened,
                study_name=name if exact_name else _unused(name, opened),
                direction="minimize" if mode == "min" else "maximize",
                load_if_exists=True,
            )
            known = study.user_attrs
            for key, value in {**facts, BIRTHMARK: uuid.uuid4().hex}.items():
                if key not in known:
                    study.set_user_attr(key, value)
        except Exception as error:
            if attempt == _ATTEMPTS or not _another_makes_it(error):
                raise
            time.sleep(random.uniform(1, 2) * attempt * _PAUSE_SECONDS)
        else:
            return study
    raise AssertionError("unreachable")


def _unused(name: str, storage: BaseStorage) -> str:
    """Return `name`, or the first of `name-2`, `name-3`, … whose training has not ended."""
    taken = {summary.study_name: summary for summary in optuna.get_all_study_summaries(storage)}
    names = itertools.chain([name], (f"{name}-{count}" for count in itertools.count(2)))
    return next(each for each in names if each not in taken or not taken[each].user_attrs.get(USED))


def _another_makes_it(error: BaseException) -> bool:
    """Tell whether another process was making the same tables or rows at that moment."""
    causes = causes_of(error)
    kinds = {type(cause).__name__ for cause in causes}
    words = " ".join(map(str, causes))
    return "IntegrityError" in kinds or any(what in words for what in ("already exists", "is locked", "no such table"))
