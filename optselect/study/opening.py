"""Opening the study of a training: the unfinished one, or a new one; never that of another training."""

from __future__ import annotations

import functools
import itertools
import logging
import os
import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import optuna

from optselect.configuration.goal import Mode
from optselect.errors import StorageError
from optselect.study.artifacts import Artifacts
from optselect.study.backend import together
from optselect.study.identity import Identity
from optselect.study.reading import without_collecting
from optselect.study.storage import Storage, place_of, storage_of
from optselect.study.study import BIRTHMARK, USED, TrialStudy
from optselect.study.trouble import causes_of, trouble_of
from optselect.words import without_passwords

_TRAINING = "optselect:training"
# What studies were known by before `Identity`: a digest that says nothing of code, loss or settings.
_EARLIER = "optselect:identity"
# Processes that begin at the same time on an empty database meet while it gets its tables.
_ATTEMPTS, _PAUSE_SECONDS = 12, 0.05
# Between two looks for a study that another is about to make.
_LOOK_SECONDS = 0.2

T = TypeVar("T")

_log = logging.getLogger("optselect")


def open_study(
    *,
    storage: Storage,
    name: str,
    mode: Mode,
    facts: Mapping[str, Any],
    identity: Identity | None = None,
    exact_name: bool = False,
    artifacts: Artifacts = None,
) -> TrialStudy:
    """Open the unfinished study called `name`, or a new one.

    `storage` is a path (an Optuna journal file), an Optuna URL, a storage object, or None for memory; `artifacts` is
    where what belongs to the study is kept. A study whose training has ended, or that is of another training than
    `identity` says, is not continued: the next free `name-2`, `name-3`, … is taken, unless `exact_name`. Raises
    `StorageError` when the storage cannot be opened, when what is in it cannot be read, and when the study of that
    exact name is of another training.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    identity = identity or Identity()
    try:
        study, others = _created(storage, name, mode, facts=facts, identity=identity, exact_name=exact_name)
    except StorageError:
        raise
    except Exception as error:
        raise _refused(storage, error) from error
    opened = TrialStudy(study, place_of(storage), artifacts)
    known = study.user_attrs
    stored = _identity_of(study.study_name, known)
    differences = ["what it was kept by"] if stored is None and _EARLIER in known else []
    differences = differences or (stored.differences(identity) if stored is not None else [])
    if differences:
        raise StorageError(
            f"the study {study.study_name!r} is of another training ({_listed(differences)} differ), so its trials say "
            "nothing about this one; pass another study_name"
        )
    _say(opened, others, identity)
    return opened


def find_study(
    *, storage: Storage, name: str, identity: Identity, exact_name: bool, artifacts: Artifacts, seconds: float = 0.0
) -> TrialStudy | None:
    """Find the study that `open_study` would go on with, waiting for it for so many `seconds`; None: there is none.

    `identity` need not say all. Raises `StorageError` when the storage cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    opened, ends = None, time.monotonic() + seconds
    try:
        while True:
            # What is not there is not made, either.
            if opened is None and _is_there(storage):
                opened = _once_made(functools.partial(storage_of, storage))
            studies = {} if opened is None else {each.study_name: each.user_attrs for each in opened.get_all_studies()}
            wanted = name if exact_name else _unused(name, studies, identity)
            # Last of what is kept of a study that is begun: then the rest is there, too.
            if opened is not None and BIRTHMARK in studies.get(wanted, {}):
                study = optuna.load_study(study_name=wanted, storage=opened)
                found = TrialStudy(study, place_of(storage), artifacts)
                return found if is_of(found, identity) else None
            if time.monotonic() >= ends:
                return None
            time.sleep(_LOOK_SECONDS)
    except StorageError:
        raise
    except Exception as error:
        raise _refused(storage, error) from error


def is_of(study: TrialStudy, identity: Identity) -> bool:
    """Tell whether a study is of the training that `identity` says."""
    stored = _identity_of(study.study.study_name, study.study.user_attrs)
    return stored is None or not stored.differences(identity)


def _is_there(storage: Storage) -> bool:
    """Tell whether a storage that is a file is there; of a server, and of an object, that is taken for granted."""
    if storage is None or not isinstance(storage, str | os.PathLike):
        return storage is not None
    file = str(storage).removeprefix("sqlite:///").partition("?")[0]
    return "://" in file or Path(file).is_file()


def studies_in(storage: str) -> list[TrialStudy]:
    """Open the studies of ours that are in `storage`, a path or an URL, to look at them.

    Raises `StorageError` where there is none, and when the storage cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not _is_there(storage):
        raise StorageError(
            f"there is no storage {place_of(storage)}; pass the path or the URL that the search was given"
        )
    try:
        opened = storage_of(storage)
        names = [each.study_name for each in opened.get_all_studies() if BIRTHMARK in each.user_attrs]
        found = [TrialStudy(optuna.load_study(study_name=name, storage=opened), place_of(storage)) for name in names]
    except StorageError:
        raise
    except Exception as error:
        raise _refused(storage, error) from error
    if not found:
        raise StorageError(f"there is no search in {place_of(storage)}; pass the one that the search was given")
    return found


def _refused(storage: Storage, error: Exception) -> StorageError:
    """Say why a storage cannot be opened."""
    trouble = trouble_of(error)
    if trouble is not None:
        return StorageError(f"the study cannot be opened in {place_of(storage)}: {trouble.what}; {trouble.remedy}")
    where = storage if isinstance(storage, str | os.PathLike) else type(storage).__name__
    told = isinstance(error, ImportError) or (isinstance(error, ValueError | OSError) and "://" not in str(where))
    # Optuna hides which driver is missing; its cause names it.
    why = f": {error.__cause__ or error}" if told else ""
    return StorageError(
        f"the study cannot be opened in {place_of(storage)} ({type(error).__name__}{without_passwords(why)}); "
        "check the path or the URL and its permissions, or pass another storage="
    )


def says_that_it_goes_on(study: TrialStudy) -> bool:
    """One line on the trials that are there already; False: there are none."""
    if begun := len(study.trials()):
        name, where = study.study.study_name, study.place
        _log.info("the search goes on with the %d trials of study %s in %s: the same training", begun, name, where)
    return bool(begun)


def _say(study: TrialStudy, others: Mapping[str, Mapping[str, Any]], identity: Identity) -> None:
    """One line on whether an earlier study is continued, and why not."""
    if says_that_it_goes_on(study):
        return
    name, where = study.study.study_name, study.place
    reasons = []
    for other, known in others.items():
        if other == name or (stored := _identity_of(other, known)) is None:
            continue
        differences = stored.differences(identity)
        reasons.append((len(differences), other, differences))
    if not reasons:
        return
    _, nearest, differences = min(reasons)
    why = f"its {_listed(differences)} differ" if differences else "its training has ended, or its limits are others"
    _log.info("a new study %s is begun in %s; %s there is not continued: %s", name, where, nearest, why)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _identity_of(name: str, known: Mapping[str, Any]) -> Identity | None:
    """Read what a study is known by (None: nothing is said)."""
    if _TRAINING not in known:
        return None
    try:
        return Identity.from_dict(known[_TRAINING])
    except ValueError as error:
        raise StorageError(
            f"the study {name!r} does not say which training it is of ({error}), so it may have been edited; pass "
            "another study_name or storage="
        ) from error


def _created(
    storage: Storage,
    name: str,
    mode: Mode,
    *,
    facts: Mapping[str, Any],
    identity: Identity,
    exact_name: bool,
) -> tuple[optuna.Study, dict[str, Mapping[str, Any]]]:
    """Return the study, and what is known of all that were in the storage before."""

    def create() -> tuple[optuna.Study, dict[str, Mapping[str, Any]]]:
        opened = storage_of(storage)
        # Not their summaries, for which Optuna would read every trial of every study.
        others: dict[str, Mapping[str, Any]] = {each.study_name: each.user_attrs for each in opened.get_all_studies()}
        study = optuna.create_study(
            storage=opened,
            study_name=name if exact_name else _unused(name, others, identity),
            direction="minimize" if mode == "min" else "maximize",
            load_if_exists=True,
        )
        known = study.user_attrs
        # One of an earlier version has no such record, and gets none.
        record = {} if _EARLIER in known else {_TRAINING: identity.to_dict()}
        with together(opened):
            for key, value in {**facts, **record, BIRTHMARK: uuid.uuid4().hex}.items():
                if key not in known:
                    study.set_user_attr(key, value)
        return study, others

    return _once_made(create)


@without_collecting()
def _once_made(work: Callable[[], T]) -> T:
    """Return what `work` gives, once nobody else is making the same tables or rows."""
    for attempt in itertools.count(1):
        try:
            return work()
        except StorageError:
            raise
        except Exception as error:
            if attempt == _ATTEMPTS or not _another_makes_it(error):
                raise
            time.sleep(random.uniform(1, 2) * attempt * _PAUSE_SECONDS)
    raise AssertionError("unreachable")


def _unused(name: str, others: Mapping[str, Mapping[str, Any]], identity: Identity) -> str:
    """Return `name`, or the first of `name-2`, `name-3`, … whose training has not ended."""

    def is_ours(each: str) -> bool:
        known = others[each]
        stored = _identity_of(each, known)
        return not known.get(USED) and _EARLIER not in known and not (stored and stored.differences(identity))

    names = itertools.chain([name], (f"{name}-{count}" for count in itertools.count(2)))
    return next(each for each in names if each not in others or is_ours(each))


def _another_makes_it(error: BaseException) -> bool:
    """Tell whether another process was making the same tables or rows at that moment."""
    causes = causes_of(error)
    kinds = {type(cause).__name__ for cause in causes}
    words = " ".join(map(str, causes))
    return "IntegrityError" in kinds or any(what in words for what in ("already exists", "is locked", "no such table"))
