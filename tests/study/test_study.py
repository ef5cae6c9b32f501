"""Trials kept in an Optuna study."""

from __future__ import annotations

import gc
import json
import math
import sqlite3
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import event

from optselect.configuration import USER, Configuration, Evaluation, paired
from optselect.configuration.goal import Mode
from optselect.configuration.schedule import Schedule
from optselect.errors import StorageError
from optselect.study.batches import packed
from optselect.study.identity import Identity
from optselect.study.journal import journal_storage
from optselect.study.opening import open_study
from optselect.study.storage import storage_of
from optselect.study.study import TrialStudy
from tests.support.proxies import proxy_over

SGD = Configuration(optimizer="sgd", hyperparameters={"lr": 0.1}, schedule=Schedule(kind="cosine", warmup_steps=3))
ADAMW = Configuration(optimizer="adamw", hyperparameters={"lr": 1e-3, "weight_decay": 0.01})
OWN = Configuration(optimizer=USER)
NAMES = ["adamw", "sgd", "user"]
ONE = Identity(facts={"model": "one"})


def opened(storage: Any = None, name: str = "study", mode: Mode = "min", **options: Any) -> TrialStudy:
    return open_study(storage=storage, name=name, mode=mode, facts={"monitor": "val_loss"}, **options)


def filled(study: TrialStudy) -> TrialStudy:
    """Trials in every state a search leaves behind."""
    first = study.begin(SGD, 0, NAMES)
    study.report(first, until=10, reached=10, value=0.9, cost=12.5)
    study.report(first, until=20, reached=20, value=0.7, cost=11.0)
    study.finish(first, "complete", 0.7)
    second = study.begin(ADAMW, 1, NAMES)
    study.report(second, until=10, reached=4, value=2.3, cost=4.0, note="diverged after 4 micro-batches")
    study.finish(second, "pruned")
    third = study.begin(OWN, 0, NAMES)
    study.report(third, until=10, reached=1, value=2.3, cost=1.0, note="ZeroDivisionError()")
    study.finish(third, "failed")
    study.begin(ADAMW, 0, NAMES)
    return study


def test_a_trial_whose_value_is_not_a_number_counts_as_failed_where_it_was() -> None:
    study = opened()
    number = study.begin(SGD, 0, NAMES)
    study.report(number, until=10, reached=10, value=0.9, cost=12.5)
    study.report(number, until=20, reached=20, value=float("nan"), cost=11.0)

    (trial,) = study.trials()

    assert trial.diverged
    assert (dict(trial.values), trial.cap, trial.reached) == ({10: 0.9}, None, 20)
    assert "nan" in trial.note


STORAGES: dict[str, Callable[[Path], Any]] = {
    "memory": lambda path: None,
    "journal": lambda path: path / "deep" / "study.journal",
    "journal by name": lambda path: str(path / "study.journal"),
    "sqlite": lambda path: f"sqlite:///{path}/study.db",
    "object": lambda path: optuna.storages.InMemoryStorage(),
}
every_storage = pytest.mark.parametrize("storage", [*STORAGES, "postgres"], indirect=True)


@pytest.fixture
def storage(request: pytest.FixtureRequest) -> Iterator[Callable[[Path], Any]]:
    """Where a test keeps its study, given its folder."""
    if request.param in STORAGES:
        yield STORAGES[request.param]
        return
    url = request.getfixturevalue("postgres").database()
    with proxy_over(url) if "proxy" in request.param else nullcontext(url) as where:
        yield lambda path: where


@every_storage
def test_trials_say_what_was_reported(storage: Callable[[Path], Any], tmp_path: Path) -> None:
    first, second, third, fourth = filled(opened(storage(tmp_path))).trials()

    assert (first.configuration, first.seed, first.values, first.cost, first.reached) == (
        SGD,
        0,
        {10: 0.9, 20: 0.7},
        23.5,
        20,
    )
    assert (first.state, first.note, first.diverged) == ("complete", "", False)
    assert (second.configuration, second.seed, second.values, second.cap) == (ADAMW, 1, {}, (10, 2.3))
    assert second.reached == 4
    assert (second.state, second.note, second.diverged) == ("pruned", "diverged after 4 micro-batches", True)
    assert (third.configuration, third.state, third.note) == (OWN, "failed", "ZeroDivisionError()")
    assert (fourth.configuration, fourth.values, fourth.cost, fourth.state) == (ADAMW, {}, 0.0, "running")


@pytest.mark.parametrize("storage", ["journal", "sqlite", "postgres"], indirect=True)
def test_trials_survive_the_process(storage: Callable[[Path], Any], tmp_path: Path) -> None:
    before = filled(opened(storage(tmp_path))).trials()

    again = opened(storage(tmp_path))

    assert again.trials() == before
    again.report(3, until=10, reached=10, value=1.5, cost=10.0)
    assert opened(storage(tmp_path)).trials()[3].values == {10: 1.5}


@every_storage
def test_optuna_sees_ordinary_trials(storage: Callable[[Path], Any], tmp_path: Path) -> None:
    study = filled(opened(storage(tmp_path))).study

    assert [trial.state for trial in study.trials] == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
        TrialState.RUNNING,
    ]
    assert study.best_value == 0.7
    assert study.best_params == {"optimizer": "sgd", "schedule": "cosine", "lr": 0.1}
    assert study.direction.name == "MINIMIZE"
    assert len({frozenset(trial.distributions) for trial in study.trials}) == 1


def test_the_best_of_a_study_for_large_values_is_the_largest() -> None:
    study = opened(mode="max")
    for value, configuration in ((0.5, SGD), (0.8, ADAMW)):
        number = study.begin(configuration, 0, NAMES)
        study.report(number, until=5, reached=5, value=value, cost=5.0)
        study.finish(number, "complete", value)

    assert study.study.best_value == 0.8


def test_a_trial_taken_up_again_counts_once_with_its_earlier_values() -> None:
    study = opened()
    number = study.begin(SGD, 0, NAMES)
    study.report(number, until=10, reached=10, value=0.9, cost=10.0)
    study.finish(number, "complete", 0.9)
    other = study.begin(ADAMW, 0, NAMES)

    taken_up = study.begin(SGD, 0, NAMES, {10: 0.9})
    study.report(taken_up, until=20, reached=20, value=0.5, cost=10.0)

    found = [(e.number, e.values, e.reached) for e in study.trials()]
    assert found == [(taken_up, {10: 0.9, 20: 0.5}, 20), (other, {}, 0)]


PARTS = ((0.1, 8.0), (1.1, 8.0), (1.4, 2.0))
WHOLE = Evaluation(value=0.68888889, batches=PARTS)


@every_storage
def test_the_parts_of_a_value_come_back_alike_here_and_in_a_later_process(
    storage: Callable[[Path], Any], tmp_path: Path
) -> None:
    where = storage(tmp_path)
    study = opened(where)
    number = study.begin(SGD, 0, NAMES)
    study.report(number, until=10, reached=10, value=0.9, cost=1.0)
    study.report(number, until=20, reached=20, value=WHOLE.value, batches=PARTS, cost=1.0)
    study.keep_untrained(WHOLE)

    (here,), (later,) = study.trials(), opened(where).trials() if where is not None else study.trials()

    assert here.batches == later.batches
    assert list(here.batches) == [20]
    assert here.evaluation(10) == Evaluation(value=0.9)
    assert here.evaluation(20).value == WHOLE.value
    assert paired(here.evaluation(20), later.evaluation(20)) == (0.0, 0.0)
    assert [value for value, _ in here.batches[20]] == pytest.approx([value for value, _ in PARTS], rel=1e-7)
    assert [weight for _, weight in here.batches[20]] == [weight for _, weight in PARTS]
    assert study.untrained() == here.evaluation(20)


def test_a_trial_taken_up_again_keeps_the_parts_of_its_earlier_values() -> None:
    study = opened()

    study.begin(SGD, 0, NAMES, {10: WHOLE.value, 20: 0.5}, {10: PARTS})

    (trial,) = study.trials()
    assert [len(trial.evaluation(rung).batches) for rung in (10, 20)] == [3, 0]


def test_a_value_that_is_not_the_mean_of_its_parts_counts_without_them() -> None:
    study = opened()
    number = study.begin(SGD, 0, NAMES)

    study.report(number, until=10, reached=10, value=0.9, batches=PARTS, cost=1.0)

    (trial,) = study.trials()
    assert (trial.values, trial.batches) == ({10: 0.9}, {})


def test_a_report_with_parts_is_written_in_as_many_steps_as_one_without(tmp_path: Path) -> None:
    lines = []
    for batches in ((), PARTS):
        study = opened(tmp_path / f"{len(batches)}.journal")
        number = study.begin(SGD, 0, NAMES)
        study.report(number, until=10, reached=10, value=WHOLE.value, batches=batches, cost=1.0)
        lines.append(len((tmp_path / f"{len(batches)}.journal").read_text().splitlines()))

    assert lines[0] == lines[1]


@every_storage
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_untrained_model_that_is_judged_at_no_number_is_known_as_such(
    value: float, storage: Callable[[Path], Any], tmp_path: Path
) -> None:
    study = opened(storage(tmp_path))
    assert study.untrained() is None

    study.keep_untrained(Evaluation(value=value))

    known = study.untrained()
    assert known is not None
    assert math.isnan(known.value)


def test_trials_of_others_in_the_same_study_are_left_alone() -> None:
    study = opened()
    study.study.add_trial(optuna.trial.create_trial(value=1.0))

    assert study.trials() == []
    assert study.begin(SGD, 0, NAMES) == 1


# --- which study ----------------------------------------------------------------------------


def test_a_study_that_is_not_finished_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    filled(opened(path))

    assert len(opened(path).trials()) == 4


def test_after_a_finished_study_the_next_name_is_begun(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"

    names = []
    for _ in range(3):
        study = opened(path)
        names.append((study.study.study_name, len(study.trials())))
        study.begin(SGD, 0, NAMES)
        study.mark_used()

    assert names == [("study", 0), ("study-2", 0), ("study-3", 0)]


def test_an_exact_name_is_continued_even_when_finished(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    filled(opened(path)).mark_used()

    study = opened(path, exact_name=True)

    assert (study.study.study_name, len(study.trials())) == ("study", 4)


def test_a_study_of_another_training_is_never_continued(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    filled(opened(path, identity=ONE))

    with pytest.raises(StorageError, match=r"'study' is of another training.*pass another study_name"):
        opened(path, identity=Identity(facts={"model": "two"}), exact_name=True)

    assert len(opened(path, identity=ONE).trials()) == 4


def test_facts_are_kept_as_they_were_at_the_beginning(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    open_study(storage=path, name="study", mode="min", facts={"profile": {"a": [1, 2]}})

    study = open_study(storage=path, name="study", mode="min", facts={"profile": {"a": [3]}, "more": 1})

    assert study.study.user_attrs["profile"] == {"a": [1, 2]}
    assert study.study.user_attrs["more"] == 1


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("name", ["study", ""])
def test_opening_a_study_leaves_the_garbage_collector_as_it_was(enabled: bool, name: str, tmp_path: Path) -> None:
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with suppress(StorageError):
            opened(tmp_path / name)

        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()


# --- files that broke -----------------------------------------------------------------------


@pytest.mark.parametrize("tail", [b'{"op_code":4,"wor', b"{", b'{"op_code":', b"\x00" * 100])
def test_a_torn_last_line_is_cut_off_and_the_study_goes_on(tail: bytes, tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    before = filled(opened(path)).trials()
    with path.open("ab") as file:
        file.write(tail)

    study = opened(path)

    assert study.trials() == before
    study.report(3, until=10, reached=10, value=1.0, cost=10.0)
    assert opened(path).trials()[3].values == {10: 1.0}


def test_every_place_a_journal_may_be_torn_at_leaves_a_readable_study(tmp_path: Path) -> None:
    whole = tmp_path / "whole.journal"
    filled(opened(whole))
    content = whole.read_bytes()
    path = tmp_path / "torn.journal"

    for cut in range(0, len(content), max(len(content) // 60, 1)):
        path.write_bytes(content[:cut])

        study = opened(path)
        study.begin(SGD, 7, NAMES)

        assert opened(path).trials()[-1].seed == 7
        path.unlink()


def test_an_empty_file_is_a_new_journal(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    path.touch()

    assert opened(path).trials() == []


@pytest.mark.parametrize(
    "content", [b"SQLite format 3\x00\x10\x00\nrest without a line end", b"a,b\n1,2", b"\x00\x01", b'{"version": 1}']
)
def test_a_file_that_is_no_journal_is_refused_and_left_as_it_is(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "precious.db"
    path.write_bytes(content)

    with pytest.raises(StorageError, match=r"precious\.db.*sqlite:///"):
        opened(path)

    assert path.read_bytes() == content


def test_a_broken_line_in_the_middle_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    filled(opened(path))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b'{"op_code":4,"wor' + lines[2], *lines[3:]]))

    with pytest.raises(StorageError, match=r"study\.journal"):
        opened(path)


# --- processes at the same time -------------------------------------------------------------


@pytest.mark.parametrize("storage", ["sqlite", "journal", "postgres", "a proxy over postgres"], indirect=True)
def test_eight_processes_that_begin_at_once_make_one_study(storage: Callable[[Path], Any], tmp_path: Path) -> None:
    # Forked, so that the imports are paid once.
    program = """
import os, sys, time
from optselect.study.opening import open_study
from optselect.study.storage import storage_of
moment = time.time() + 0.3
[os.fork() for _ in range(3)]  # eight processes
while time.time() < moment:
    pass
study = open_study(storage=sys.argv[1], name="study", mode="min", facts={"monitor": "val_loss"})
os.write(1, f"{study.study.study_name} {study.study.user_attrs['monitor']}\\n".encode())
while True:
    try:
        if os.wait()[1] != 0:
            os._exit(1)
    except ChildProcessError:
        break
"""
    where = str(storage(tmp_path))

    said = subprocess.run([sys.executable, "-c", program, where], capture_output=True, text=True, check=True).stdout

    assert said.split("\n") == ["study val_loss"] * 8 + [""]
    assert len(storage_of(where).get_all_studies()) == 1


# --- storages that break while they are used ------------------------------------------------


def steps_of(study: TrialStudy) -> list[Callable[[], Any]]:
    return [
        study.trials,
        lambda: study.begin(SGD, 5, NAMES),
        lambda: study.report(3, until=10, reached=10, value=1.0, cost=1.0),
        lambda: study.finish(3, "failed"),
        study.mark_used,
        lambda: study.put_aside(3),
        lambda: study.close((), {}),
        lambda: study.keep_untrained(Evaluation(value=1.0)),
        study.untrained,
    ]


@pytest.mark.parametrize("step", range(9))
def test_a_database_that_goes_away_is_a_named_error_without_passwords(step: int, tmp_path: Path) -> None:
    # No server is at hand: SQLite plays one, with what a server's driver may say.
    url = f"sqlite:///{tmp_path}/study.db"
    study = filled(opened(url))
    before = opened(url).trials()

    def gone(*_: Any, **__: Any) -> Any:
        raise sqlite3.OperationalError("cannot reach postgresql://me:s3cret@host/optuna\n[SQL: SELECT]")

    storage: Any = study.study._storage
    event.listen(storage._backend.engine, "do_connect", gone)
    storage._backend.engine.dispose()
    storage._backend.scoped_session.remove()

    with pytest.raises(
        StorageError, match=r"'study'.*postgresql://…@host/optuna.*still there.*same line again"
    ) as caught:
        steps_of(study)[step]()

    assert "s3cret" not in str(caught.value)
    assert "SELECT" not in str(caught.value)
    assert opened(url).trials() == before


@contextmanager
def no_more_room(path: Path) -> Iterator[None]:
    """The file cannot grow, as on a disk that is full."""
    resource = pytest.importorskip("resource", reason="Windows has no limit on the size of a file")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 7])
def test_a_full_disk_is_a_named_error_and_loses_nothing_that_was_stored(step: int, tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study = filled(opened(path))
    before = study.trials()

    with no_more_room(path), pytest.raises(StorageError, match=r"study\.journal can no longer.*File too large"):
        steps_of(study)[step]()

    assert study.trials() == opened(path).trials() == before
    steps_of(study)[step]()


def test_a_full_disk_under_sqlite_is_a_named_error_and_loses_nothing_that_was_stored(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    study = filled(opened(url))
    before = study.trials()
    storage: Any = study.study._storage
    # SQLite takes no page more than it has, as on a disk that is full.
    event.listen(
        storage._backend.engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count=1")
    )
    storage._backend.engine.dispose()
    storage._backend.scoped_session.remove()

    with pytest.raises(StorageError, match=r"study\.db can no longer.*disk is full.*same line again"):
        deque((study.begin(SGD, seed, NAMES) for seed in range(2, 200)), maxlen=0)

    stored = opened(url).trials()
    assert stored[: len(before)] == before
    assert study.trials() == stored
    assert opened(url).begin(SGD, 300, NAMES) == len(stored)


# --- storages that cannot be opened ---------------------------------------------------------


def unwritable(path: Path) -> list[Any]:
    (path / "file").write_text("")
    (path / "folder").mkdir()
    return [path / "file" / "study.journal", path / "folder", "/proc/none/study.journal", ""]


def test_a_path_that_cannot_be_written_is_a_named_error(tmp_path: Path) -> None:
    for storage in unwritable(tmp_path):
        with pytest.raises(StorageError, match="check the path or the URL"):
            opened(storage)


SECRETS = [
    "postgresql://me:s3cret@host/optuna",
    "postgresql+nothing://me:s3cret@host:5432/optuna",
    "mysql://me:s3cr@et@host/optuna".replace("s3cr@et", "s3cret@more"),
    "postgresql://host/optuna?user=me&password=s3cret",
    "nonsense://me:s3cret@host",
    "://me:s3cret@host",
    "sqlite:////proc/none/s.db?key=s3cret",
]


@pytest.mark.parametrize("url", SECRETS)
def test_a_password_is_in_no_part_of_the_error(url: str) -> None:
    with pytest.raises(StorageError) as caught:
        opened(url)

    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value)).replace(f'"{url}"', "")


def test_the_place_of_a_storage_is_still_told() -> None:
    with pytest.raises(StorageError, match=r"postgresql\+nothing://…@host:5432/optuna"):
        opened("postgresql+nothing://me:s3cret@host:5432/optuna")


def test_a_path_with_an_at_sign_is_told_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file@home").write_text("")

    with pytest.raises(StorageError, match="file@home/study"):
        opened(tmp_path / "file@home" / "study")


def test_the_storage_of_a_path_is_optunas_own_journal(tmp_path: Path) -> None:
    filled(opened(tmp_path / "study.journal"))

    lines = (tmp_path / "study.journal").read_text().splitlines()
    assert all("op_code" in json.loads(line) for line in lines)
    study = optuna.load_study(study_name="study", storage=journal_storage(tmp_path / "study.journal"))
    assert len(study.trials) == 4


def test_the_users_own_optimizer_is_laid_out_by_the_factor_on_its_rate() -> None:
    study = opened()

    for configuration in (OWN, OWN.at_rate(0.1), OWN.at_rate(10.0)):
        study.begin(configuration, 0, NAMES)

    assert [trial.params["lr"] for trial in study.study.get_trials()] == [1.0, 0.1, 10.0]


# --- what somebody else has written ---------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_trial_judged_at_no_number_counts_as_failed_and_the_log_says_so_once(
    value: float, caplog: pytest.LogCaptureFixture
) -> None:
    study = opened()
    number = study.begin(SGD, 0, NAMES)
    study.report(number, until=10, reached=10, value=value, cost=1.0)

    (trial,), (again,), _ = [study.trials() for _ in range(3)]

    assert trial == again
    assert (trial.diverged, dict(trial.values), trial.cap) == (True, {}, None)
    assert len([message for message in caplog.messages if "counts as failed" in message]) == 1


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("optselect:configuration", "no JSON"),
        ("optselect:configuration", "[1]"),
        ("optselect:configuration", 5),
        ("optselect:configuration", '{"optimizer": "sgd", "hyperparameters": {}, "schedule": {"kind": "whim"}}'),
        ("optselect:seed", "one"),
        ("optselect:seed", None),
        ("optselect:at 10", 5),
        ("optselect:at 10", {}),
        ("optselect:at 10", {"cost": float("nan"), "reached": 10, "note": ""}),
        ("optselect:at 10", {"cost": -1.0, "reached": 10, "note": ""}),
        ("optselect:at 10", {"cost": 1.0, "reached": "ten", "note": ""}),
        ("optselect:at 10", {"cost": 1.0, "reached": 10, "note": 5}),
        ("optselect:at 10", {"cost": 1.0, "reached": 10, "note": "", "pace": "fast"}),
        ("optselect:at 10", {"cost": 1.0, "reached": 10, "note": "", "pace": -1.0}),
        ("optselect:at 10", {"cost": 1.0, "reached": 10, "note": "", "pace": float("inf")}),
        ("optselect:at 10", {"cost": 1.0, "reached": 10, "note": "", "pace": None}),
        ("optselect:at 10", {"cost": 1.0, "reached": 10, "note": "", "batches": 5}),
        ("optselect:at 10", {"cost": 1.0, "reached": 10, "note": "", "batches": "none"}),
        ("optselect:at 10", {"cost": 1.0, "reached": 10, "note": "", "batches": packed(((math.nan, 1.0),))}),
    ],
)
def test_a_trial_that_was_edited_is_a_named_error(name: str, wrong: Any) -> None:
    study = opened()
    number = study.begin(SGD, 0, NAMES)
    study.report(number, until=10, reached=10, value=1.0, cost=1.0)
    study._storage.set_trial_user_attr(study._trial_id(number), name, wrong)

    for _ in range(2):  # not only the first time that it is seen
        with pytest.raises(StorageError, match="trial 0 of the study 'study' in memory is not as optselect wrote it"):
            study.trials()


@pytest.mark.parametrize("wrong", ["fast", float("nan"), -1.0, None, [1]])
def test_what_a_study_remembers_is_a_number(wrong: Any) -> None:
    study = opened()
    study.study.set_user_attr("pace", wrong)

    with pytest.raises(StorageError, match="as pace"):
        study.remember("pace", 1.0)


@pytest.mark.parametrize(
    "wrong",
    [
        "low",
        5,
        {},
        {"value": 1.0},
        {"value": "low", "batches": ""},
        {"value": True, "batches": ""},
        {"value": 10**400, "batches": ""},
        {"value": float("nan"), "batches": ""},
        {"value": 1.0, "batches": 5},
        {"value": 1.0, "batches": "none"},
    ],
)
def test_what_a_study_knows_of_the_untrained_model_is_as_it_was_written(wrong: Any) -> None:
    study = opened()
    study.study.set_user_attr("optselect:untrained", wrong)

    with pytest.raises(StorageError, match=r"'study' in memory remembers .* of the untrained model"):
        study.untrained()
