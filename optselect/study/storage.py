"""Where a study is kept: its storage, and what goes wrong there."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage
from optuna.trial import TrialState

from optselect.errors import StorageError
from optselect.study.backend import backend_of
from optselect.study.journal import journal_storage
from optselect.study.patience import PatientStorage
from optselect.study.trouble import causes_of
from optselect.words import without_passwords

Storage = str | os.PathLike[str] | BaseStorage | None
"""A path (an Optuna journal file), an Optuna URL, `grpc://host:port`, a storage object, or None for memory."""

# Optuna's own default port, and as long as a server takes to start.
_PROXY, _PROXY_PORT, _PROXY_SECONDS = "grpc://", 13000, 10.0


def storage_of(storage: Storage) -> BaseStorage:
    """Open the storage that `storage` names."""
    if storage is None:
        return optuna.storages.InMemoryStorage()
    if not isinstance(storage, str | os.PathLike):
        return storage
    if "://" not in str(storage):
        return journal_storage(storage)
    if str(storage).startswith(_PROXY):
        return PatientStorage(_proxy(str(storage)))
    # Only here: it takes half a second to import, and a journal does without.
    from optselect.study.database import database_storage  # noqa: PLC0415  # as the line above says

    # With Optuna's cache of ended trials, which a database alone has not.
    return PatientStorage(optuna.storages.get_storage(database_storage(str(storage))))


def _proxy(url: str) -> BaseStorage:
    """Open the proxy at `grpc://host:port`. Raises `ConnectionError` where there is none."""
    where = urlsplit(url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        proxy = GrpcStorageProxy(host=where.hostname or "localhost", port=where.port or _PROXY_PORT)
    proxy.wait_server_ready(_PROXY_SECONDS)
    return proxy


def place_of(storage: Storage) -> str:
    """Say where it is, without passwords."""
    if storage is None:
        return "memory"
    return without_passwords(str(storage)) if isinstance(storage, str | os.PathLike) else type(storage).__name__


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
        # Only here: it takes half a second to import, and a journal does without.
        from optselect.study.database import take_row  # noqa: PLC0415  # as the line above says

        take = functools.partial(take_row, database, trial_id)
        return bool(storage.patiently(take) if isinstance(storage, PatientStorage) else take())
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
