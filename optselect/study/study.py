"""The trials of one search, in an ordinary Optuna study that survives a kill."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from optselect.configuration import Configuration
from optselect.configuration.goal import Mode
from optselect.configuration.schedule import ScheduleKind
from optselect.errors import StorageError
from optselect.space import Value
from optselect.study.journal import journal_storage
from optselect.words import without_passwords

State = Literal["running", "complete", "pruned", "failed"]

_CONFIGURATION, _SEED = "optselect:configuration", "optselect:seed"
# In words, for those who look at the study with other tools.
_CANDIDATE = "candidate"
# What belongs to the value at a micro-batch: one attribute for each, so that a kill between it and the value
# leaves something that nobody looks at.
_AT = "optselect:at {}"
_USED = "optselect:used"
_ENDED = "optselect:ended"
_IDENTITY = "optselect:identity"
_BIRTHMARK = "optselect:birthmark"
# Processes that begin at the same time on an empty database meet while it gets its tables.
_ATTEMPTS, _PAUSE_SECONDS = 12, 0.05
# SQLite's own five seconds are few where several processes write.
_SQLITE_WAIT_SECONDS = 60
# One fixed set of parameters for every trial, whatever its optimizer, so that samplers and
# optuna-dashboard see a single space.
_LR = FloatDistribution(1e-8, 1e3, log=True)
_STATES: Mapping[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One trial so far.

    values   what it was judged at, by micro-batches trained (a diverged one: the cap it was given)
    cost     micro-batches it has spent, validation included at a third
    reached  micro-batches of training behind it
    note     why it failed or diverged (empty: it did not)
    seconds  wall-clock time it has taken
    """

    number: int
    configuration: Configuration
    seed: int
    values: Mapping[int, float]
    cost: float
    reached: int
    state: State
    note: str = ""
    seconds: float = 0.0

    @property
    def diverged(self) -> bool:
        """Whether its last value is a cap, not a measurement."""
        return bool(self.note)


class TrialStudy:
    """Trials kept in an Optuna study: intermediate values at micro-batches, configurations as user attributes."""

    def __init__(self, study: optuna.Study, where: str = "memory") -> None:
        self.study = study
        self._where = where
        # What has ended stays as it is: a study of thousands is read again before every job.
        self._ended: dict[int, Evaluation] = {}

    def evaluations(self) -> list[Evaluation]:
        """All trials of ours, in the order they were begun."""
        found = [self._read(trial) for trial in self._trials() if _CONFIGURATION in trial.user_attrs]
        # One that was taken up again in a new trial counts once, where it was begun.
        return list({(e.configuration.key, e.seed): e for e in found}.values())

    def _read(self, trial: FrozenTrial) -> Evaluation:
        known = self._ended.get(trial.number)
        if known is None:
            known = _evaluation(trial)
            if trial.state.is_finished():
                self._ended[trial.number] = known
        return known

    def _trials(self) -> list[FrozenTrial]:
        with _storage_errors(self.study, self._where):
            return self.study.get_trials(deepcopy=False)

    def begin(
        self,
        configuration: Configuration,
        seed: int,
        optimizers: Sequence[str],
        values: Mapping[int, float] | None = None,
    ) -> int:
        """A new running trial; returns its number. `values` are those of the trial that it takes up."""
        values = values or {}
        parameters: dict[str, Value] = {
            "optimizer": configuration.optimizer,
            "schedule": configuration.schedule.kind,
            "lr": 1.0 if configuration.rate is None else configuration.rate,
        }
        # Added as a whole, not enqueued and asked for: a kill in between would leave a waiting trial behind.
        trial = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=parameters,
            distributions={
                "optimizer": CategoricalDistribution(tuple(optimizers)),
                "schedule": CategoricalDistribution(get_args(ScheduleKind)),
                "lr": _LR,
            },
            intermediate_values=dict(values),
            user_attrs={
                _CANDIDATE: configuration.describe(),
                _CONFIGURATION: json.dumps(configuration.to_dict()),
                _SEED: seed,
                **{_AT.format(until): {"cost": 0.0, "reached": until, "note": ""} for until in values},
            },
        )
        with _storage_errors(self.study, self._where):
            self.study.add_trial(trial)
        return self._trials()[-1].number

    def report(
        self,
        number: int,
        *,
        until: int,
        reached: int,
        value: float,
        cost: float,
        note: str = "",
        seconds: float = 0.0,
    ) -> None:
        """The value a trial is judged at for micro-batch `until`, and what it has cost since the last report.

        `reached` is less than `until` for a trial that ended early; `note` says why.
        """
        trial = self._live(number)
        with _storage_errors(self.study, self._where):
            about = {"cost": cost, "reached": reached, "note": note, "seconds": round(seconds, 3)}
            trial.set_user_attr(_AT.format(until), about)
            # Last: a trial with a value at `until` is done with that rung.
            trial.report(value, until)

    def finish(self, number: int, state: State, value: float | None = None) -> None:
        """End a trial as complete (with its value), pruned or failed."""
        ends = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        with _storage_errors(self.study, self._where):
            self.study.tell(number, value if state == "complete" else None, state=ends[state])

    @property
    def file(self) -> str | None:
        """The file that it is kept in; None for a storage that is not a file here."""
        storage: Any = self.study._storage  # noqa: SLF001  # Optuna has no public way to a study's storage
        return _file_of(getattr(storage, "_backend", storage))

    def birthmarks(self) -> set[str]:
        """Those of all studies in its storage."""
        with _storage_errors(self.study, self._where):
            summaries = optuna.get_all_study_summaries(self.study._storage)  # noqa: SLF001  # as above
        return {str(summary.user_attrs.get(_BIRTHMARK)) for summary in summaries}

    @property
    def birthmark(self) -> str:
        """Made up with the study: what lies beside the storage under this name is of this study alone."""
        with _storage_errors(self.study, self._where):
            return str(self.study.user_attrs[_BIRTHMARK])

    def remember(self, name: str, value: float) -> float:
        """`value`, or what was remembered as `name` by an earlier process of the same search."""
        with _storage_errors(self.study, self._where):
            known = self.study.user_attrs
            if name not in known:
                self.study.set_user_attr(name, value)
            return float(known.get(name, value))

    def mark_used(self) -> None:
        """The training this search was for has ended: a later run of the same training searches anew."""
        with _storage_errors(self.study, self._where):
            self.study.set_user_attr(_USED, True)

    def mark_ended(self, limits: str) -> None:
        """The search has ended at these limits: with the same ones there is nothing more to run."""
        with _storage_errors(self.study, self._where):
            self.study.set_user_attr(_ENDED, limits)

    def ended_with(self, limits: str) -> bool:
        """Whether a search has ended at these limits."""
        with _storage_errors(self.study, self._where):
            return bool(self.study.user_attrs.get(_ENDED) == limits)

    def _live(self, number: int) -> optuna.Trial:
        return optuna.Trial(self.study, self._trials()[number]._trial_id)  # noqa: SLF001  # Optuna's own way to take up a trial by number goes by this id


def open_study(
    *,
    storage: str | os.PathLike[str] | BaseStorage | None,
    name: str,
    mode: Mode,
    facts: Mapping[str, Any],
    identity: str = "",
    exact_name: bool = False,
) -> TrialStudy:
    """The unfinished study called `name`, or a new one.

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
    return TrialStudy(study, _place(storage))


def _created(
    storage: str | os.PathLike[str] | BaseStorage | None,
    name: str,
    mode: Mode,
    *,
    facts: Mapping[str, Any],
    exact_name: bool,
) -> optuna.Study:
    for attempt in itertools.count(1):
        try:
            opened = _storage(storage)
            study = optuna.create_study(
                storage=opened,
                study_name=name if exact_name else _unused(name, opened),
                direction="minimize" if mode == "min" else "maximize",
                load_if_exists=True,
            )
            known = study.user_attrs
            for key, value in {**facts, _BIRTHMARK: uuid.uuid4().hex}.items():
                if key not in known:
                    study.set_user_attr(key, value)
        except Exception as error:
            if attempt == _ATTEMPTS or not _is_meeting(error):
                raise
            time.sleep(random.uniform(1, 2) * attempt * _PAUSE_SECONDS)
        else:
            return study
    raise AssertionError("unreachable")


def _unused(name: str, storage: BaseStorage) -> str:
    """`name`, or the first of `name-2`, `name-3`, … whose training has not ended."""
    taken = {summary.study_name: summary for summary in optuna.get_all_study_summaries(storage)}
    names = itertools.chain([name], (f"{name}-{count}" for count in itertools.count(2)))
    return next(each for each in names if each not in taken or not taken[each].user_attrs.get(_USED))


def _is_meeting(error: BaseException) -> bool:
    """Whether another process was making the same tables or rows at that moment."""
    causes = _causes(error)
    kinds = {type(cause).__name__ for cause in causes}
    words = " ".join(map(str, causes))
    return "IntegrityError" in kinds or any(what in words for what in ("already exists", "is locked", "no such table"))


def _causes(error: BaseException | None) -> list[BaseException]:
    causes: list[BaseException] = []
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__
    return causes


@contextmanager
def _storage_errors(study: optuna.Study, where: str) -> Iterator[None]:
    """Whatever a storage raises comes out as a `StorageError` that keeps passwords to itself."""
    try:
        yield
    except Exception as error:
        root = _causes(error)[-1]
        # The first line: databases add the statement and its parameters.
        why = without_passwords((str(root).splitlines() or [""])[0])
        raise StorageError(
            f"the study {study.study_name!r} in {where} can no longer be read or written ({type(root).__name__}: "
            f"{why}); what was stored is still there. Mend the cause and start the same line again: the search goes on"
        ) from error


def _place(storage: str | os.PathLike[str] | BaseStorage | None) -> str:
    if storage is None:
        return "memory"
    return without_passwords(str(storage)) if isinstance(storage, str | os.PathLike) else type(storage).__name__


def _storage(storage: str | os.PathLike[str] | BaseStorage | None) -> BaseStorage:
    if storage is None:
        return optuna.storages.InMemoryStorage()
    if not isinstance(storage, str | os.PathLike):
        return storage
    if "://" not in str(storage):
        return journal_storage(storage)
    is_file = str(storage).startswith("sqlite")
    return RDBStorage(
        str(storage), engine_kwargs={"connect_args": {"timeout": _SQLITE_WAIT_SECONDS}} if is_file else None
    )


def _file_of(backend: Any) -> str | None:
    """The file that a journal or an SQLite database is kept in."""
    if isinstance(backend, JournalFileBackend):
        return backend._file_path  # noqa: SLF001  # it has no public name
    if isinstance(backend, RDBStorage) and backend.engine.url.get_backend_name() == "sqlite":
        database = backend.engine.url.database
        return None if database in (None, "", ":memory:") else database
    return None


def _evaluation(trial: FrozenTrial) -> Evaluation:
    attributes = trial.user_attrs
    values = {step: value for step, value in sorted(trial.intermediate_values.items()) if math.isfinite(value)}
    reports = [attributes[_AT.format(step)] for step in values]
    return Evaluation(
        number=trial.number,
        configuration=Configuration.from_dict(json.loads(attributes[_CONFIGURATION])),
        seed=attributes[_SEED],
        values=values,
        cost=sum(report["cost"] for report in reports),
        reached=reports[-1]["reached"] if reports else 0,
        state=_STATES[trial.state],
        note=reports[-1]["note"] if reports else "",
        seconds=sum(report.get("seconds", 0.0) for report in reports),
    )
