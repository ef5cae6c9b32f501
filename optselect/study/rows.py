"""The rows of Optuna's tables, read and written without an object for each."""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

LISTED = 500
"""So many trials are asked for by their ids; more by a range."""

INSERT: Mapping[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
"""Where a row can be written over another of its key in one statement; elsewhere Optuna's own methods write."""

_LIST: sqlalchemy.BindParameter[Any] = sqlalchemy.bindparam("listed", expanding=True)


@dataclass(frozen=True)
class Part:
    """A table of what belongs to a trial, and its columns, the first of which tells those of a trial apart."""

    table: Any
    columns: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all columns that a row is written with."""
        return ("trial_id", *self.columns)

    @functools.cached_property
    def rows(self) -> Any:
        """The statement that reads rows in the order in which they were written: objectives, parameters have one."""
        columns = (self.table.c[name] for name in self.names)
        return sqlalchemy.select(*columns).order_by(*self.table.primary_key)

    @functools.cached_property
    def listed(self) -> Any:
        """The same for trials whose ids are `listed`."""
        return self.rows.where(self.table.c.trial_id.in_(_LIST))


# Tables, not what is mapped to them: that has an object for each row, and takes ten times as long.
TRIAL, STUDY = models.TrialModel.__table__, models.StudyModel.__table__
VALUE = Part(models.TrialValueModel.__table__, ("objective", "value", "value_type"))
JUDGED = Part(models.TrialIntermediateValueModel.__table__, ("step", "intermediate_value", "intermediate_value_type"))
PARAM = Part(models.TrialParamModel.__table__, ("param_name", "param_value", "distribution_json"))
USER = Part(models.TrialUserAttributeModel.__table__, ("key", "value_json"))
SYSTEM = Part(models.TrialSystemAttributeModel.__table__, ("key", "value_json"))

stored_judged = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
ROWS = sqlalchemy.select(
    *(TRIAL.c[name] for name in ("trial_id", "number", "state", "datetime_start", "datetime_complete"))
).order_by(TRIAL.c.trial_id)
ROWS_LISTED = ROWS.where(TRIAL.c.trial_id.in_(_LIST))
_THIS = TRIAL.c.trial_id == sqlalchemy.bindparam("trial")
NUMBER, _STATE = sqlalchemy.select(TRIAL.c.number).where(_THIS), sqlalchemy.select(TRIAL.c.state).where(_THIS)
ONE_STUDY = (
    sqlalchemy.select(STUDY.c.study_id).where(STUDY.c.study_id == sqlalchemy.bindparam("study")).with_for_update()
)


def require_open(connection: Connection, trial_id: int) -> None:
    """Raise `KeyError` where there is no such trial, and `UpdateFinishedTrialError` for one that has ended."""
    state = connection.execute(_STATE, {"trial": trial_id}).scalar()
    if state is None:
        raise KeyError(models.NOT_FOUND_MSG)
    if state.is_finished():
        raise UpdateFinishedTrialError(f"Trial with id {trial_id} has already finished and can not be updated.")


def set_state(connection: Connection, trial_id: int, state: TrialState) -> bool:
    """Set the state of a trial that has not ended, or to run of one that waits, and tell whether that was done."""
    from_states = [TrialState.WAITING] if state == TrialState.RUNNING else [TrialState.WAITING, TrialState.RUNNING]
    wanted = (TRIAL.c.trial_id == trial_id) & TRIAL.c.state.in_(from_states)
    values: dict[str, Any] = {"state": state}
    if state == TrialState.RUNNING or state.is_finished():
        name = "datetime_start" if state == TrialState.RUNNING else "datetime_complete"
        values[name] = datetime.now(UTC).replace(tzinfo=None)
    if connection.execute(TRIAL.update().where(wanted).values(values)).rowcount == 1:
        return True
    require_open(connection, trial_id)
    return False


def write_row(connection: Connection, part: Part, trial_id: int, row: Sequence[Any]) -> None:
    """Write one row of what belongs to a trial, over the one of the same name where there is one."""
    told = dict(zip(part.names, (trial_id, *row), strict=True))
    connection.execute(_upsert(connection.dialect.name, part), told)


@functools.cache
def _upsert(dialect: str, part: Part) -> Any:
    """Make the statement that writes a row over the one of the same key, where there is one."""
    rows = INSERT[dialect](part.table)
    key, told = part.names[:2], part.names[2:]
    return rows.on_conflict_do_update(index_elements=key, set_={name: rows.excluded[name] for name in told})


def read_trials(connection: Connection, rows: Sequence[Any], wanted: Any = None) -> list[FrozenTrial]:
    """Read the trials of `rows`, which are among those that are `wanted`.

    In this order another process may write meanwhile: a trial that has ended has all its parts, and what is kept of a
    value is there where the value is.
    """
    listed = [row.trial_id for row in rows]
    if not listed:
        return []

    def parts(part: Part) -> dict[int, list[Any]]:
        of: dict[int, list[Any]] = defaultdict(list)
        if wanted is None or len(listed) <= LISTED:
            found = connection.execute(part.listed, {"listed": listed})
        else:
            joined = part.rows.join(TRIAL, TRIAL.c.trial_id == part.table.c.trial_id)
            found = connection.execute(joined.where(wanted))
        for row in found.all():
            of[row[0]].append(row)
        return of

    values, judged, params, user, system = map(parts, (VALUE, JUDGED, PARAM, USER, SYSTEM))
    value_of = models.TrialValueModel.stored_repr_to_value
    judged_of = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
    return [
        FrozenTrial(
            trial_id=trial_id,
            number=number,
            state=state,
            value=None,
            values=[value_of(value, kind) for _, _, value, kind in values[trial_id]] or None,
            datetime_start=local(started),
            datetime_complete=local(completed),
            params={name: _distribution(kind).to_external_repr(value) for _, name, value, kind in params[trial_id]},
            distributions={name: _distribution(kind) for _, name, _, kind in params[trial_id]},
            user_attrs={key: _decoded(text)[0] for _, key, text in user[trial_id]},
            system_attrs={key: _decoded(text)[0] for _, key, text in system[trial_id]},
            intermediate_values={step: judged_of(value, kind) for _, step, value, kind in judged[trial_id]},
        )
        for trial_id, number, state, started, completed in rows
    ]


# What `json.loads` does for a text without blanks around it, in a third of the time.
_decoded = json.JSONDecoder().raw_decode


@functools.lru_cache(maxsize=256)
def _distribution(written: str) -> BaseDistribution:
    """Read a distribution, of which thousands of trials have the same few."""
    return json_to_distribution(written)


def utc(moment: datetime | None) -> datetime | None:
    """Return a time of Optuna's trials as its database has it."""
    return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None)


def local(moment: datetime | None) -> datetime | None:
    """Return a time of a database, which is UTC without saying so, as Optuna's trials have it."""
    return (
        None
        if moment is None
        else moment + _offset(moment.replace(minute=moment.minute // 15 * 15, second=0, microsecond=0))
    )


@functools.lru_cache(maxsize=256)
def _offset(since: datetime) -> timedelta:
    """Return by how much clocks here are ahead of UTC, which no place changes within a quarter of an hour."""
    return since.replace(tzinfo=UTC).astimezone().utcoffset() or timedelta()
