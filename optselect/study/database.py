"""Optuna's database storage, made quick: one transaction for what belongs together, and rows read as rows."""

from __future__ import annotations

import copy
import json
import weakref
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from optselect.study.rows import (
    INSERT,
    JUDGED,
    LISTED,
    NUMBER,
    ONE_STUDY,
    PARAM,
    ROWS,
    ROWS_LISTED,
    SYSTEM,
    TRIAL,
    USER,
    VALUE,
    Part,
    local,
    read_trials,
    require_open,
    set_state,
    stored_judged,
    utc,
    write_row,
)

# SQLite's own five seconds are few where several processes write.
_SQLITE_WAIT_SECONDS = 60
# Of libpq: seconds to connect, seconds until an idle link is looked at, milliseconds until a silent one is given up.
# By itself it waits a quarter of an hour and more where a cable was pulled.
_LINK = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_WAIT, _WRITES_AHEAD = "PRAGMA synchronous={}", "writes ahead"


def database_storage(url: str) -> LastingDatabase:
    """Open the database at `url`, with Optuna's tables in it."""
    if url.startswith("sqlite"):
        return LastingDatabase(
            url,
            {
                "connect_args": {"timeout": _SQLITE_WAIT_SECONDS},
                "pool_events": [(_write_ahead, "connect"), (_without_waiting, "checkout")],
            },
        )
    # A connection that was cut meanwhile, as by a server that was started anew, is noticed before it is used.
    url = _with_driver(url)
    return LastingDatabase(url, {"pool_pre_ping": True, "connect_args": _link_options(url)})


def take_row(database: RDBStorage, trial_id: int) -> bool:
    """Set a waiting trial running in one statement, and tell whether it was this one that did.

    Optuna reads the state first and writes then; between the two, SQLite lets another do the same.
    """
    with database.engine.begin() as connection:
        return set_state(connection, trial_id, TrialState.RUNNING)


class LastingDatabase(RDBStorage):
    """The same rows in the same tables as Optuna's storage, which may read and write them at the same time.

    What is written `together` is one transaction. Trials are read and written without an object for each row: tens of
    thousands are read in a second or so, and a statement takes a tenth of a millisecond.
    """

    def __init__(self, url: str, engine_kwargs: dict[str, Any] | None = None) -> None:
        try:
            super().__init__(url, engine_kwargs)
        except BaseException:
            if hasattr(self, "engine"):
                self.engine.dispose()
            raise
        self._hold_sessions()

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self._hold_sessions()

    def _hold_sessions(self) -> None:
        # Or else its connections would be cut, not closed, when nobody looks at the storage any more.
        weakref.finalize(self, self.engine.dispose)
        # Optuna's methods take their sessions from here.
        self.scoped_session: Any = scoped_session(sessionmaker(bind=self.engine, class_=_HeldSession))
        # Trials that wait as they were read last; of a long search that is most of them.
        self._waiting: dict[int, FrozenTrial] = {}

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write what this thread writes inside in one transaction, at the end: all of it, or nothing.

        It waits for the disk, and so for all that was written before.
        """
        session: _HeldSession = self.scoped_session()
        session.held = True
        try:
            if self.engine.name == "sqlite":
                session.connection().exec_driver_sql(_WAIT.format("FULL"))
            yield
            session.held = False
            if session.clash is not None:
                raise session.clash
            session.commit()
        finally:
            session.held, session.clash = False, None
            session.close()  # which takes back what was not committed

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """Give the connection of a transaction of its own, or of the one that this thread writes together."""
        with self.scoped_session() as session:
            yield session.connection()
            session.commit()

    # --- one trial ----------------------------------------------------------------------------------

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return one trial. Raises `KeyError` where there is none of that id."""
        with self.scoped_session() as session:
            connection = session.connection()
            rows = connection.execute(ROWS_LISTED, {"listed": [trial_id]}).all()
            if not rows:
                raise KeyError(models.NOT_FOUND_MSG)
            return read_trials(connection, rows)[0]

    def get_trial_number_from_id(self, trial_id: int) -> int:
        """Return the number of a trial. Raises `KeyError` where there is none of that id."""
        with self.scoped_session() as session:
            number = session.connection().execute(NUMBER, {"trial": trial_id}).scalar()
        if number is None:
            raise KeyError(models.NOT_FOUND_MSG)
        return int(number)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute. Raises `KeyError` where there is no such trial, and Optuna's error for one that ended."""
        if self.engine.name not in INSERT:
            super().set_trial_user_attr(trial_id, key, value)
            return
        self._put(USER, trial_id, (key, json.dumps(value)))

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Set a value on the way. Raises as `set_trial_user_attr`."""
        if self.engine.name not in INSERT:
            super().set_trial_intermediate_value(trial_id, step, intermediate_value)
            return
        self._put(JUDGED, trial_id, (step, *stored_judged(intermediate_value)))

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Set the state in one statement, and tell whether it was this one that did: of several, one.

        Raises as `set_trial_user_attr`. Optuna reads the state first and writes then; between the two, SQLite lets
        another do the same.
        """
        if self.engine.name not in INSERT:
            return super().set_trial_state_values(trial_id, state, values)
        with self._transaction() as connection:
            for objective, value in enumerate(values or ()):
                write_row(connection, VALUE, trial_id, (objective, *models.TrialValueModel.value_to_stored_repr(value)))
            return set_state(connection, trial_id, state)

    def _put(self, part: Part, trial_id: int, row: Sequence[Any]) -> None:
        with self._transaction() as connection:
            require_open(connection, trial_id)
            write_row(connection, part, trial_id, row)

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        """Add a trial with all its parts, one statement for each kind; Optuna has two or three for each part."""
        if template_trial is None or template_trial.values is not None:
            return super()._create_new_trial(study_id, template_trial)
        made = copy.copy(template_trial)
        kinds = made.distributions
        parts: Mapping[Part, list[tuple[Any, ...]]] = {
            PARAM: [
                (name, kinds[name].to_internal_repr(value), distribution_to_json(kinds[name]))
                for name, value in made.params.items()
            ],
            USER: [(key, json.dumps(value)) for key, value in made.user_attrs.items()],
            SYSTEM: [(key, json.dumps(value)) for key, value in made.system_attrs.items()],
            JUDGED: [(step, *stored_judged(value)) for step, value in made.intermediate_values.items()],
        }
        times = {"datetime_start": utc(made.datetime_start), "datetime_complete": utc(made.datetime_complete)}
        with self._transaction() as connection:
            # Trials are counted to be numbered: one is made at a time.
            if connection.execute(ONE_STUDY, {"study": study_id}).first() is None:
                raise KeyError(models.NOT_FOUND_MSG)
            row = {"study_id": study_id, "state": made.state, **times}
            number = int(connection.execute(TRIAL.insert(), row).inserted_primary_key[0])  # type: ignore[index]  # one row
            before = (TRIAL.c.study_id == study_id) & (TRIAL.c.trial_id < number)
            made.number = connection.execute(
                sqlalchemy.select(sqlalchemy.func.count()).select_from(TRIAL).where(before)
            ).scalar_one()
            mine = TRIAL.c.trial_id == number
            connection.execute(TRIAL.update().where(mine).values(number=made.number))
            for part, rows in parts.items():
                if rows:
                    added = [dict(zip(part.names, (number, *each), strict=True)) for each in rows]
                    connection.execute(part.table.insert(), added)
        made._trial_id = number  # noqa: SLF001  # it has no public name
        return made

    # --- many trials --------------------------------------------------------------------------------

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        wanted = TRIAL.c.study_id == study_id
        known = {each for each in included_trial_ids if each <= trial_id_greater_than}
        if trial_id_greater_than >= 0:
            later = TRIAL.c.trial_id > trial_id_greater_than
            # A list of thousands is beyond what some databases take in one statement.
            among = TRIAL.c.trial_id >= min(known, default=0) if len(known) > LISTED else TRIAL.c.trial_id.in_(known)
            wanted &= (later | among) if known else later
        if states is not None:
            wanted &= TRIAL.c.state.in_([state for state in TrialState if state in states])
        with self.scoped_session() as session:
            connection = session.connection()
            rows = [
                row
                for row in connection.execute(ROWS.where(wanted)).all()
                if row.trial_id > trial_id_greater_than or row.trial_id in known
            ]
            if not rows and connection.execute(ONE_STUDY, {"study": study_id}).first() is None:
                raise KeyError(models.NOT_FOUND_MSG)
            waiting = {row.trial_id: self._waiting[row.trial_id] for row in rows if self._still_waits(row)}
            others = [row for row in rows if row.trial_id not in waiting]
            read = {trial._trial_id: trial for trial in read_trials(connection, others, wanted)}  # noqa: SLF001  # no other name
        trials = [waiting.get(row.trial_id) or read[row.trial_id] for row in rows]
        still = (trial for trial in trials if trial.state == TrialState.WAITING and trial.datetime_start is not None)
        self._waiting = {trial._trial_id: trial for trial in still}  # noqa: SLF001  # no other name
        return trials

    def _still_waits(self, row: Any) -> bool:
        """Tell whether a trial is as it was read: who sets one running, and writes to it then, sets its start anew."""
        known = self._waiting.get(row.trial_id)
        return known is not None and row.state == known.state and known.datetime_start == local(row.datetime_start)


class _HeldSession(Session):
    """A session whose commits wait, while it is held, for the one at the end."""

    held = False
    clash: IntegrityError | None = None

    def commit(self) -> None:
        if not self.held:
            super().commit()
            return
        try:
            self.flush()
        except IntegrityError as error:
            # Optuna passes over some of these, which would leave half of what belongs together.
            self.clash = error
            raise

    def close(self) -> None:
        if not self.held:
            super().close()


def _link_options(url: str) -> dict[str, int]:
    """Return what makes PostgreSQL's driver notice a cut link, as far as `url` does not say it otherwise."""
    given = sqlalchemy.make_url(url)
    known = given.get_backend_name() == "postgresql" and "psycopg" in given.get_driver_name()
    return {name: value for name, value in _LINK.items() if known and name not in given.query}


def _with_driver(url: str) -> str:
    """Name the driver that extra `postgres` brings, where none is named: SQLAlchemy before 2.1 takes another."""
    named, bare = "postgresql+psycopg://", "postgresql://"
    return named + url.removeprefix(bare) if url.startswith(bare) and find_spec("psycopg") else url


def _write_ahead(connection: Any, record: Any) -> None:
    """Switch a connection of SQLite to its write-ahead log, where the file system has what that takes.

    It waits for the disk once for a commit, not four times, and readers and a writer do not shut each other out.
    """
    record.info[_WRITES_AHEAD] = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0] == "wal"


def _without_waiting(connection: Any, record: Any, _: Any) -> None:
    """Let a connection go on before the disk has what it committed.

    A process that dies loses nothing of it, a machine that does only what is written again at once. Without the log
    the file itself would be at stake.
    """
    connection.execute(_WAIT.format("NORMAL" if record.info[_WRITES_AHEAD] else "FULL"))
