"""What is behind a storage: its file, its database or its journal, and what these can do beyond Optuna's methods."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from optuna.storages import BaseStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend


def backend_of(storage: BaseStorage) -> Any:
    """Return what a storage keeps its records in: a journal's file, the database behind a cache, or itself."""
    return getattr(storage, "_backend", storage)


@contextmanager
def together(storage: BaseStorage) -> Iterator[None]:
    """Write what is written inside as one, all of it or nothing, where the storage can do so: those opened here."""
    write = getattr(backend_of(storage), "together", nullcontext)
    with getattr(storage, "together", write)():
        yield


def file_of(backend: Any) -> str | None:
    """Return the file that a journal or an SQLite database is kept in; None for any other storage."""
    if isinstance(backend, JournalFileBackend):
        return backend._file_path  # noqa: SLF001  # it has no public name
    if isinstance(backend, RDBStorage) and backend.engine.url.get_backend_name() == "sqlite":
        database = backend.engine.url.database
        return None if database in (None, "", ":memory:") else database
    return None
