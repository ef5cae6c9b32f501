"""Optuna's database storage, made quick: one transaction for what belongs together, and rows read as rows."""

from __future__ import annotations

import copy
import functools
import json
import weakref
from collections import defaultdict
from collections.abc import Container, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

import sqlalchemy
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

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
    waits = (_TRIAL.c.trial_id == trial_id) & (_TRIAL.c.state == TrialState.WAITING)
    runs = {"state": TrialState.RUNNING, "datetime_start": datetime.now(UTC).replace(tzinfo=None)}
    with database.engine.begin() as connection:
        return connection.execute(sqlalchemy.update(_TRIAL).where(waits).values(runs)).rowcount == 1


class LastingDatabase(RDBStorage):
    """The same rows in the same tables as Optuna's storage, which may read and write them at the same time.

    What is written `together` is one transaction. Trials are read without an object for each row, tens of thousands in
    a second or two.
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

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return one trial. Raises `KeyError` where there is none of that id."""
        with self.scoped_session() as session:
            found = _trials(session, _TRIAL.c.trial_id == trial_id)
        if not found:
            raise KeyError(models.NOT_FOUND_MSG)
        return found[0]

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        known = {each for each in included_trial_ids if each <= trial_id_greater_than}
        wanted = _TRIAL.c.study_id == study_id
        if trial_id_greater_than >= 0:
            later = _TRIAL.c.trial_id > trial_id_greater_than
            wanted &= (later | _TRIAL.c.trial_id.in_(known)) if known else later
        if states is not None:
            wanted &= _TRIAL.c.state.in_([state for state in TrialState if state in states])
        with self.scoped_session() as session:
            models.StudyModel.find_or_raise_by_id(study_id, session)
            return _trials(session, wanted)

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Session
    ) -> models.TrialModel:
        """Add a trial with all its parts, one statement for each kind; Optuna has two or three for each part."""
        if template_trial is None or template_trial.values is not None:
            return super()._get_prepared_new_trial(study_id, template_trial, session)
        bare = copy.copy(template_trial)
        bare.params, bare.intermediate_values, bare.user_attrs, bare.system_attrs = {}, {}, {}, {}
        trial = super()._get_prepared_new_trial(study_id, bare, session)
        stored = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
        kinds = template_trial.distributions
        parts: dict[Any, list[tuple[Any, ...]]] = {
            _PARAM: [
                (name, kinds[name].to_internal_repr(value), distribution_to_json(kinds[name]))
                for name, value in template_trial.params.items()
            ],
            _USER: [(key, json.dumps(value)) for key, value in template_trial.user_attrs.items()],
            _SYSTEM: [(key, json.dumps(value)) for key, value in template_trial.system_attrs.items()],
            _JUDGED: [(step, *stored(value)) for step, value in template_trial.intermediate_values.items()],
        }
        for (table, *columns), rows in parts.items():
            if rows:
                names = ["trial_id", *(column.name for column in columns)]
                added = [dict(zip(names, (trial.trial_id, *row), strict=True)) for row in rows]
                session.connection().execute(table.insert(), added)
        return trial


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


# Tables, not what is mapped to them: that has an object for each row, and takes ten times as long.
_TRIAL = models.TrialModel.__table__


def _part(model: Any, *columns: str) -> tuple[Any, ...]:
    return (model.__table__, *(model.__table__.c[column] for column in columns))


_VALUE = _part(models.TrialValueModel, "value", "value_type")
_JUDGED = _part(models.TrialIntermediateValueModel, "step", "intermediate_value", "intermediate_value_type")
_PARAM = _part(models.TrialParamModel, "param_name", "param_value", "distribution_json")
_USER = _part(models.TrialUserAttributeModel, "key", "value_json")
_SYSTEM = _part(models.TrialSystemAttributeModel, "key", "value_json")


def _trials(session: Session, wanted: Any) -> list[FrozenTrial]:
    """Read the trials that are `wanted`.

    In this order another process may write meanwhile: a trial that has ended has all its parts, and what is kept of a
    value is there where the value is.
    """
    connection = session.connection()
    columns = [_TRIAL.c[name] for name in ("trial_id", "number", "state", "datetime_start", "datetime_complete")]
    rows = connection.execute(sqlalchemy.select(*columns).where(wanted).order_by(columns[0])).all()

    def parts(table: Any, *columns: Any) -> dict[int, list[Any]]:
        of: dict[int, list[Any]] = defaultdict(list)
        chosen = sqlalchemy.select(table.c.trial_id, *columns).join(_TRIAL, _TRIAL.c.trial_id == table.c.trial_id)
        # In the order in which they were written, which is that of the objectives and of the parameters.
        for trial_id, *part in connection.execute(chosen.where(wanted).order_by(*table.primary_key)):
            of[trial_id].append(part)
        return of

    values, judged, params, user, system = (parts(*each) for each in (_VALUE, _JUDGED, _PARAM, _USER, _SYSTEM))
    value_of = models.TrialValueModel.stored_repr_to_value
    judged_of = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
    return [
        FrozenTrial(
            trial_id=trial_id,
            number=number,
            state=state,
            value=None,
            values=[value_of(*each) for each in values[trial_id]] or None,
            datetime_start=_local(started),
            datetime_complete=_local(completed),
            params={name: _distribution(kind).to_external_repr(value) for name, value, kind in params[trial_id]},
            distributions={name: _distribution(kind) for name, _, kind in params[trial_id]},
            user_attrs={key: json.loads(text) for key, text in user[trial_id]},
            system_attrs={key: json.loads(text) for key, text in system[trial_id]},
            intermediate_values={step: judged_of(*each) for step, *each in judged[trial_id]},
        )
        for trial_id, number, state, started, completed in rows
    ]


@functools.lru_cache(maxsize=256)
def _distribution(written: str) -> BaseDistribution:
    """Read a distribution, of which thousands of trials have the same few."""
    return json_to_distribution(written)


def _local(moment: datetime | None) -> datetime | None:
    """Return a time of a database, which is UTC without saying so, as Optuna's trials have it."""
    return None if moment is None else moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)


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
