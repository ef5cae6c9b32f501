"""Optuna's tables, read and written quicker than by Optuna: to anybody else they are the same."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import event

from optselect.configuration import Configuration
from optselect.study.backend import backend_of, together
from optselect.study.database import LastingDatabase, database_storage
from optselect.study.journal import LastingJournal, journal_storage
from optselect.study.opening import open_study
from optselect.study.storage import storage_of

SGD = Configuration(optimizer="sgd", hyperparameters={"lr": 0.1})
KINDS = {
    "name": CategoricalDistribution(("a", "b")),
    "rate": FloatDistribution(1e-8, 1e3, log=True),
    "count": IntDistribution(1, 9),
}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db"


def templates() -> Iterator[FrozenTrial]:
    """Trials of every state, with every kind of part."""
    full: dict[str, Any] = {
        "params": {"name": "b", "rate": 1e-3, "count": 4},
        "distributions": KINDS,
        "user_attrs": {"list": [1, 2.5, None], "words": "ä"},
        "system_attrs": {"theirs": {"a": True}},
        "intermediate_values": {10: 0.5, 2: float("nan"), 30: float("inf"), 40: -float("inf"), 50: 0.1 + 0.2},
    }
    for state in TrialState:
        yield create_trial(state=state, value=1.25 if state == TrialState.COMPLETE else None, **full)
    yield create_trial(state=TrialState.RUNNING)
    yield create_trial(state=TrialState.COMPLETE, value=float("inf"))
    yield create_trial(state=TrialState.PRUNED, value=0.1, intermediate_values={1: 0.1})


def filled(storage: optuna.storages.BaseStorage) -> int:
    study = storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], "study")
    for template in templates():
        storage.create_new_trial(study, template)
    return study


def told(trials: list[FrozenTrial]) -> list[str]:
    # NaN is not equal to itself, and the order of what is kept by name says nothing.
    parts = ("params", "user_attrs", "system_attrs", "intermediate_values", "distributions")
    return [
        repr([trial.number, trial._trial_id, trial.state, trial.values, trial.datetime_start, trial.datetime_complete])
        + repr([sorted(getattr(trial, part).items(), key=lambda each: each[0]) for part in parts])
        for trial in trials
    ]


def test_trials_are_read_as_optuna_reads_them(url: str) -> None:
    study = filled(RDBStorage(url))

    ours, optunas = database_storage(url), RDBStorage(url)

    assert told(ours.get_all_trials(study)) == told(optunas.get_all_trials(study))
    assert told([ours.get_trial(number) for number in range(1, 9)]) == told(optunas.get_all_trials(study))


@pytest.mark.parametrize("states", [[TrialState.RUNNING], [TrialState.COMPLETE, TrialState.PRUNED], []])
@pytest.mark.parametrize("known, after", [(set(), -1), ({1, 3, 8}, 4), (set(), 4), ({5}, 4), (set(), 8)])
def test_of_them_those_that_optuna_would_give(states: list[TrialState], known: set[int], after: int, url: str) -> None:
    study = filled(RDBStorage(url))
    ours, optunas = database_storage(url), RDBStorage(url)

    for chosen in (states, None):
        asked: Any = (study, chosen, known, after)

        assert told(ours._get_trials(*asked)) == told(optunas._get_trials(*asked))


def test_trials_are_written_as_optuna_writes_them(tmp_path: Path) -> None:
    ours, optunas = (f"sqlite:///{tmp_path}/{name}.db" for name in ("ours", "optunas"))
    moment = copy.copy(next(templates()))
    times = (moment.datetime_start, moment.datetime_complete)

    found = []
    for url, storage in ((ours, database_storage(ours)), (optunas, RDBStorage(optunas))):
        trials = RDBStorage(url).get_all_trials(filled(storage))
        for trial in trials:
            trial.datetime_start, trial.datetime_complete = times
        found.append(told(trials))

    assert found[0] == found[1]


def test_a_trial_or_a_study_that_is_not_there_is_the_error_that_optuna_raises(url: str) -> None:
    storage = database_storage(url)

    for asked in (lambda: storage.get_trial(1), lambda: storage.get_all_trials(1)):
        with pytest.raises(KeyError, match="does not exist"):
            asked()


def test_a_storage_that_went_through_pickle_writes_together_too(url: str) -> None:
    storage = pickle.loads(pickle.dumps(database_storage(url)))  # noqa: S301  # our own

    study = filled(storage)
    with storage.together():
        storage.set_trial_user_attr(6, "one", 1)

    assert storage.get_all_trials(study)[5].user_attrs == {"one": 1}


# --- together -------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "journal"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> optuna.storages.BaseStorage:
    return storage_of(f"sqlite:///{tmp_path}/study.db" if request.param == "sqlite" else tmp_path / "study.journal")


def running(storage: optuna.storages.BaseStorage) -> tuple[int, int]:
    study = storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], "study")
    return study, storage.create_new_trial(study, create_trial(state=TrialState.RUNNING))


def test_what_is_written_together_is_there_as_a_whole_or_not_at_all(storage: optuna.storages.BaseStorage) -> None:
    study, trial = running(storage)

    with pytest.raises(ZeroDivisionError), together(storage):  # noqa: PT012  # in the midst of it
        storage.set_trial_user_attr(trial, "one", 1)
        storage.set_trial_intermediate_value(trial, 1, 0.5)
        raise ZeroDivisionError
    (before,) = storage.get_all_trials(study)
    with together(storage):
        storage.set_trial_user_attr(trial, "one", 1)
        storage.set_trial_intermediate_value(trial, 1, 0.5)
    (after,) = storage.get_all_trials(study)

    assert (before.user_attrs, before.intermediate_values) == ({}, {})
    assert (after.user_attrs, after.intermediate_values) == ({"one": 1}, {1: 0.5})


def test_another_thread_that_writes_meanwhile_waits_for_nobody(tmp_path: Path) -> None:
    storage = storage_of(tmp_path / "study.journal")
    study, trial = running(storage)
    with together(storage):
        storage.set_trial_user_attr(trial, "one", 1)

        thread = threading.Thread(target=storage.set_trial_user_attr, args=(trial, "two", 2))
        thread.start()
        thread.join()

        assert storage.get_all_trials(study)[0].user_attrs == {"two": 2}
    assert storage.get_all_trials(study)[0].user_attrs == {"one": 1, "two": 2}


def test_a_row_that_another_has_written_first_is_an_error_and_nothing_of_the_rest_stays(url: str) -> None:
    storage = database_storage(url)
    study, trial = running(storage)
    twice = sqlalchemy.text("INSERT INTO study_user_attributes VALUES (1, :study, 'name', '1')")

    def overtaken(session: Any, *_: Any) -> None:
        # Stands for another process that writes between the look and the write.
        if session.new:
            session.connection().execute(twice, {"study": study})

    event.listen(storage.scoped_session.session_factory, "before_flush", overtaken)
    with pytest.raises(sqlalchemy.exc.IntegrityError), storage.together():  # noqa: PT012  # it comes with the block's end
        storage.set_study_user_attr(study, "name", 2)
        storage.set_trial_user_attr(trial, "one", 1)

    assert storage.get_all_trials(study)[0].user_attrs == {}
    assert storage.get_study_user_attrs(study) == {}


def test_what_is_written_again_of_a_trial_is_written_over(url: str) -> None:
    storage = database_storage(url)
    study, trial = running(storage)

    for value in (0.25, float("inf"), 0.5):
        storage.set_trial_intermediate_value(trial, 1, value)
        storage.set_trial_user_attr(trial, "one", value)

    assert told(storage.get_all_trials(study)) == told(RDBStorage(url).get_all_trials(study))
    assert storage.get_all_trials(study)[0].intermediate_values == {1: 0.5}


def test_of_several_who_set_a_waiting_trial_running_one_does(url: str) -> None:
    storages = [database_storage(url) for _ in range(2)]
    study = storages[0].create_new_study([optuna.study.StudyDirection.MINIMIZE], "study")
    trial = storages[0].create_new_trial(study, create_trial(state=TrialState.WAITING))

    assert [storage.set_trial_state_values(trial, TrialState.RUNNING) for storage in storages] == [True, False]


def test_a_trial_that_another_has_run_meanwhile_is_read_anew(url: str) -> None:
    ours, others = (storage_of(url) for _ in range(2))
    study = ours.create_new_study([optuna.study.StudyDirection.MINIMIZE], "study")
    trial = ours.create_new_trial(study, create_trial(state=TrialState.RUNNING))
    ours.set_trial_state_values(trial, TrialState.WAITING)

    for step in range(3):
        assert list(ours.get_all_trials(study)[0].intermediate_values) == list(range(step))
        assert others.set_trial_state_values(trial, TrialState.RUNNING)
        others.set_trial_intermediate_value(trial, step, 0.5)
        others.set_trial_state_values(trial, TrialState.WAITING)


def test_a_report_is_one_transaction_of_a_database(url: str) -> None:
    study = open_study(storage=url, name="study", mode="min", facts={})
    number = study.begin(SGD, 0, ["sgd"])
    commits: list[Any] = []
    database: LastingDatabase = backend_of(study._storage)
    event.listen(database.engine, "commit", commits.append)
    written: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *asked: written.append(asked[2]))

    study.report(number, until=10, reached=10, value=0.9, cost=12.5)

    changes = [statement for statement in written if statement.startswith(("INSERT", "UPDATE"))]
    assert (len(changes), len(commits)) == (2, 1)


def test_a_report_is_one_append_to_a_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = open_study(storage=tmp_path / "study.journal", name="study", mode="min", facts={})
    number = study.begin(SGD, 0, ["sgd"])
    held: list[int] = []
    append = LastingJournal.append_logs

    def counted(self: LastingJournal, logs: list[dict[str, Any]]) -> None:
        held.append(len(logs) if threading.get_ident() not in self._held else 0)
        append(self, logs)

    monkeypatch.setattr(LastingJournal, "append_logs", counted)
    study.report(number, until=10, reached=10, value=0.9, cost=12.5)

    assert [count for count in held if count] == [2]


def test_a_report_to_a_trial_that_another_has_ended_is_an_error(storage: optuna.storages.BaseStorage) -> None:
    study = open_study(storage=storage, name="study", mode="min", facts={})
    number = study.begin(SGD, 0, ["sgd"])
    study.finish(number, "failed")

    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError) as refused:
        study._storage.set_trial_user_attr(study._storage.get_all_trials(study._id)[0]._trial_id, "one", 1)
    with pytest.raises(Exception, match="already finished") as caught:
        study.report(number, until=10, reached=10, value=0.9, cost=12.5)

    assert type(caught.value).__name__ == "TrialEndedError"
    assert isinstance(caught.value.__cause__, type(refused.value))


# --- SQLite ---------------------------------------------------------------------------------


def test_sqlite_writes_ahead_and_waits_for_the_disk_with_what_is_written_together(url: str) -> None:
    storage = database_storage(url)

    def setting(name: str) -> Any:
        return storage.scoped_session().connection().exec_driver_sql(f"PRAGMA {name}").scalar()

    full, normal = 2, 1
    alone = setting("journal_mode"), setting("synchronous")
    storage.scoped_session().close()
    with storage.together():
        inside = setting("synchronous")
    after = setting("synchronous")

    assert (alone, inside, after) == (("wal", normal), full, normal)


def test_where_there_is_no_log_to_write_ahead_sqlite_waits_for_the_disk_always() -> None:
    # As on a file system without shared memory, a database in memory has none.
    storage = database_storage("sqlite:///:memory:")

    connection = storage.scoped_session().connection()

    assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "memory"
    assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_an_sqlite_file_that_optuna_made_is_gone_on_with(url: str) -> None:
    study = filled(RDBStorage(url))

    storage = database_storage(url)

    assert len(storage.get_all_trials(study)) == 8


def test_the_study_of_a_journal_is_read_as_that_of_a_database(tmp_path: Path, url: str) -> None:
    journal, database = journal_storage(tmp_path / "study.journal"), database_storage(url)

    found = [[trial.params for trial in each.get_all_trials(filled(each))] for each in (journal, database)]

    assert found[0] == found[1]
