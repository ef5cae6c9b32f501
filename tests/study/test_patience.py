"""A storage that is away for a while costs the time until it is back, and nothing else."""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from optselect.configuration import Configuration
from optselect.errors import StorageError
from optselect.study.opening import open_study
from optselect.study.patience import PatientStorage
from optselect.study.storage import storage_of
from optselect.study.study import TrialStudy
from optselect.study.trouble import will_pass
from tests.support.postgres import Cluster
from tests.support.proxies import proxy_over

SGD = Configuration(optimizer="sgd", hyperparameters={"lr": 0.1})


class OperationalError(Exception):
    """As drivers and SQLAlchemy call it."""


class Shaky(InMemoryStorage):
    """Fails as often as it is told to, before or after it has done what it was asked."""

    def __init__(self, *errors: Exception, after: bool = False) -> None:
        super().__init__()
        self.errors = list(errors)
        self.after = after

    def set_trial_user_attr(self, *args: Any, **options: Any) -> None:
        if self.after:
            super().set_trial_user_attr(*args, **options)
        if self.errors:
            raise self.errors.pop()
        super().set_trial_user_attr(*args, **options)


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was slept, on a clock that goes on by that alone."""
    slept: list[float] = []
    monkeypatch.setattr("optselect.study.patience.time.sleep", slept.append)
    monkeypatch.setattr("optselect.study.patience.time.monotonic", lambda: sum(slept))
    return slept


def running(storage: optuna.storages.BaseStorage) -> tuple[int, int]:
    study = storage.create_new_study([StudyDirection.MINIMIZE], "study")
    return study, storage.create_new_trial(study, create_trial(state=TrialState.RUNNING))


@pytest.mark.parametrize("after", [False, True])
def test_what_fails_by_the_storage_alone_is_done_again_until_it_is_done(after: bool, naps: list[float]) -> None:
    storage = PatientStorage(Shaky(*[OperationalError("server closed the connection")] * 4, after=after))
    study, trial = running(storage)

    storage.set_trial_user_attr(trial, "one", 1)

    assert storage.get_all_trials(study)[0].user_attrs == {"one": 1}
    assert len(naps) == 4
    assert naps[0] < naps[-1] < 1


def test_the_log_says_once_that_it_is_away_and_once_that_it_is_back(
    naps: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    storage = PatientStorage(Shaky(*[OperationalError("password=s3cret gone")] * 4))
    _, trial = running(storage)

    with caplog.at_level(logging.WARNING, logger="optselect"):
        storage.set_trial_user_attr(trial, "one", 1)

    away, back = [message for message in caplog.messages if "storage is" in message]
    assert "is away (OperationalError); it is waited for, 300 s at most" in away
    assert "is back after" in back
    assert "s3cret" not in caplog.text


def test_patience_has_an_end(naps: list[float]) -> None:
    storage = PatientStorage(Shaky(*[OperationalError("gone")] * 1_000), seconds=60.0)
    _, trial = running(storage)

    with pytest.raises(OperationalError, match="gone"):
        storage.set_trial_user_attr(trial, "one", 1)

    assert sum(naps) == pytest.approx(60.0)


LASTING = [
    OperationalError("FATAL: password authentication failed"),
    OperationalError("could not extend file: No space left on device"),
    OSError("No space left on device"),
    KeyError("no such trial"),
    optuna.exceptions.UpdateFinishedTrialError("it has ended"),
]


@pytest.mark.parametrize("error", LASTING, ids=str)
def test_what_does_not_pass_is_not_waited_for(error: Exception, naps: list[float]) -> None:
    storage = PatientStorage(Shaky(error))
    _, trial = running(storage)

    with pytest.raises(type(error)):
        storage.set_trial_user_attr(trial, "one", 1)

    assert naps == []


def test_what_is_written_together_is_written_again_as_a_whole(naps: list[float]) -> None:
    storage = PatientStorage(Shaky(OperationalError("gone")))
    study, trial = running(storage)

    with storage.together():
        storage.set_trial_intermediate_value(trial, 1, 0.5)
        storage.set_trial_user_attr(trial, "one", 1)
        inside = storage.get_all_trials(study)[0].intermediate_values
    (after,) = storage.get_all_trials(study)

    assert inside == {}
    assert (after.user_attrs, after.intermediate_values, len(naps)) == ({"one": 1}, {1: 0.5}, 1)


def test_of_what_an_error_breaks_off_nothing_is_written() -> None:
    storage = PatientStorage(InMemoryStorage())
    study, trial = running(storage)

    with pytest.raises(ZeroDivisionError), storage.together():  # noqa: PT012  # in the midst of it
        storage.set_trial_user_attr(trial, "one", 1)
        raise ZeroDivisionError

    assert storage.get_all_trials(study)[0].user_attrs == {}
    assert storage.held() is None


def test_a_lock_that_another_holds_passes_and_a_broken_sqlite_file_does_not() -> None:
    import sqlite3  # noqa: PLC0415  # for its errors alone

    assert will_pass(sqlite3.OperationalError("database is locked"))
    assert not will_pass(sqlite3.OperationalError("no such table: trials"))
    assert not will_pass(sqlite3.DatabaseError("file is not a database"))


def test_a_storage_of_its_own_methods_is_one_of_optunas(tmp_path: Path) -> None:
    storage = storage_of(f"sqlite:///{tmp_path}/study.db")

    study = optuna.create_study(storage=storage, study_name="study")
    study.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0), n_trials=3)

    assert optuna.load_study(study_name="study", storage=storage).best_value == study.best_value
    assert pickle.loads(pickle.dumps(storage)).get_all_studies()[0].study_name == "study"  # noqa: S301  # our own


def test_a_study_that_is_there_is_an_answer(tmp_path: Path, naps: list[float]) -> None:
    where = f"sqlite:///{tmp_path}/study.db"
    running(storage_of(where))

    with pytest.raises(optuna.exceptions.DuplicatedStudyError):
        running(storage_of(where))

    assert naps == []


# --- on a real server -----------------------------------------------------------------------


@pytest.fixture
def stopped(postgres: Cluster) -> Iterator[Cluster]:
    """The server, to be stopped; afterwards it runs, whatever a test has done to it."""
    try:
        yield postgres
    finally:
        postgres.stop()
        postgres.start()


def opened(url: str) -> TrialStudy:
    return open_study(storage=url, name="study", mode="min", facts={})


def reporting(study: TrialStudy, number: int) -> threading.Thread:
    """What reports, to be started."""
    said = {"until": 10, "reached": 10, "value": 0.9, "cost": 1.0}
    return threading.Thread(target=study.report, args=(number,), kwargs=said)


@pytest.mark.parametrize("at_once", [False, True], ids=["stopped", "cut off"])
@pytest.mark.parametrize("through", ["itself", "a proxy"])
def test_a_server_that_is_stopped_and_started_again_is_waited_for(
    through: str, at_once: bool, stopped: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    url = stopped.database()
    with proxy_over(url) as proxy:
        study = opened(url if through == "itself" else proxy)
        number = study.begin(SGD, 0, ["sgd"])
        stopped.stop(at_once=at_once)
        thread = reporting(study, number)
        with caplog.at_level(logging.WARNING, logger="optselect"):
            thread.start()
            while "is away" not in caplog.text:
                thread.join(0.01)

            stopped.start()
            thread.join()

        assert study.trials()[0].values == {10: 0.9}


def test_a_proxy_that_is_stopped_and_started_again_is_waited_for(
    postgres: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    url = postgres.database()
    with proxy_over(url) as proxy:
        study = opened(proxy)
        number = study.begin(SGD, 0, ["sgd"])
    thread = reporting(study, number)
    with caplog.at_level(logging.WARNING, logger="optselect"):
        thread.start()
        while "is away" not in caplog.text:
            thread.join(0.01)

        with proxy_over(url, port=int(proxy.rpartition(":")[2])):
            thread.join()

    assert opened(url).trials()[0].values == {10: 0.9}


def test_where_no_proxy_answers_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optselect.study.storage._PROXY_SECONDS", 0.1)

    with pytest.raises(StorageError, match=r"in grpc://127\.0\.0\.1:1: no server answers there; start it"):
        opened("grpc://127.0.0.1:1")
