"""Where a study is kept: its storage, the file behind it, and what goes wrong there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from optselect.errors import StorageError
from optselect.study.journal import journal_storage
from optselect.words import without_passwords

Storage = str | os.PathLike[str] | BaseStorage | None
"""A path (an Optuna journal file), an Optuna URL, a storage object, or None for memory."""


def storage_of(storage: Storage) -> BaseStorage:
    """Open the storage that `storage` names."""
    if storage is None:
        return optuna.storages.InMemoryStorage()
    if not isinstance(storage, str | os.PathLike):
        return storage
    if "://" not in str(storage):
        return journal_storage(storage)
    # Only here: it takes half a second to import, and a journal does without.
    from optselect.study.database import database_storage  # noqa: PLC0415  # as the line above says

    # With Optuna's cache of ended trials, which a database alone has not.
    return optuna.storages.get_storage(database_storage(str(storage)))


def backend_of(storage: BaseStorage) -> Any:
    """Return what a storage keeps its records in: a journal's file, the database behind a cache, or itself."""
    return getattr(storage, "_backend", storage)


@contextmanager
def together(storage: BaseStorage) -> Iterator[None]:
    """Write what is written inside as one, all of it or nothing, where the storage can do so: those opened here."""
    write = getattr(backend_of(storage), "together", nullcontext)
    with write():
        yield


def place_of(storage: Storage) -> str:
    """Say where it is, without passwords."""
    if storage is None:
        return "memory"
    return without_passwords(str(storage)) if isinstance(storage, str | os.PathLike) else type(storage).__name__


def file_of(backend: Any) -> str | None:
    """Return the file that a journal or an SQLite database is kept in; None for any other storage."""
    if isinstance(backend, JournalFileBackend):
        return backend._file_path  # noqa: SLF001  # it has no public name
    if isinstance(backend, RDBStorage) and backend.engine.url.get_backend_name() == "sqlite":
        database = backend.engine.url.database
        return None if database in (None, "", ":memory:") else database
    return None


class TrialEndedError(StorageError):
    """The trial that was to be written to has ended: another worker has given its job back, or closed the search."""


def take_waiting(storage: BaseStorage, trial_id: int) -> bool:
    """Set a waiting trial running, and tell whether it was this call that did: of several, one."""
    # A journal takes a trial that this process has set running before for one that it sets running now.
    owned = getattr(getattr(storage, "_replay_result", None), "_worker_id_to_owned_trial_id", None)
    if owned is not None:
        for worker in [worker for worker, trial in owned.items() if trial == trial_id]:
            owned.pop(worker, None)
    database = backend_of(storage)
    if isinstance(database, RDBStorage):
        from optselect.study.database import take_row  # noqa: PLC0415  # as in `storage_of`

        return take_row(database, trial_id)
    return storage.set_trial_state_values(trial_id, TrialState.RUNNING)


@contextmanager
def storage_errors(study: optuna.Study, where: str) -> Iterator[None]:
    """Raise whatever a storage raises as a `StorageError` that keeps passwords to itself."""
    try:
        yield
    except UpdateFinishedTrialError as error:
        raise TrialEndedError(f"{error} The study {study.study_name!r} in {where} holds what was stored.") from error
    except Exception as error:
        root = causes_of(error)[-1]
        # The first line: databases add the statement and its parameters.
        why = without_passwords((str(root).splitlines() or [""])[0])
        raise StorageError(
            f"the study {study.study_name!r} in {where} can no longer be read or written ({type(root).__name__}: "
            f"{why}); what was stored is still there. Mend the cause and start the same line again: the search goes on"
        ) from error


def causes_of(error: BaseException | None) -> list[BaseException]:
    """Return `error`, what it was raised from, and so on."""
    causes: list[BaseException] = []
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__
    return causes
