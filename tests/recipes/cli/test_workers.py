"""`optselect tune --workers`, `worker` and `status`: one search, several processes, and who is at it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import yaml
from optuna.trial import TrialState

from optselect.configuration import Configuration
from optselect.errors import ConfigurationError
from optselect.plan import OptimizerPlan
from optselect.recipes.cli.workers import beside, workers_in
from optselect.study.claims import Claims
from optselect.study.journal import journal_storage
from optselect.study.opening import open_study
from tests.support.searches import plain
from tests.support.tiny import TINY, Run

SGD = Configuration(optimizer="sgd", hyperparameters={"lr": 0.1})
ADAMW = Configuration(optimizer="adamw", hyperparameters={"lr": 1e-3})
# Enough for arms, and for stages after them.
LONGER: dict[str, Any] = {
    **TINY,
    "trainer": {**TINY["trainer"], "max_epochs": 4},
    "auto": {**TINY["auto"], "budget": 3.0, "candidates": ["adamw", "nadam", "momentum"], "report": False},
}


@pytest.mark.parametrize(
    "arguments, left, count",
    [
        (["--config", "a.yaml"], ["--config", "a.yaml"], 1),
        (["--workers", "3", "--config", "a.yaml"], ["--config", "a.yaml"], 3),
        (["--config", "a.yaml", "--workers=2"], ["--config", "a.yaml"], 2),
    ],
)
def test_the_number_of_workers_is_taken_out_of_the_line(arguments: list[str], left: list[str], count: int) -> None:
    assert workers_in(arguments) == (left, count)


@pytest.mark.parametrize("wrong", ["0", "-1", "many", "", "257", "1.5"])
def test_what_is_no_number_of_workers_is_an_error_in_one_line(wrong: str, run: Run) -> None:
    with pytest.raises(ConfigurationError, match="--workers is a number of processes from 1 to 256"):
        workers_in(["--workers", wrong])

    done = run("tune", "--config", "tiny.yaml", "--workers", wrong)

    assert (done.status, len(done.err.splitlines())) == (2, 1)


def test_workers_in_the_config_are_told_to_stand_on_the_line(run: Run) -> None:
    Path("more.yaml").write_text(yaml.dump({**TINY, "workers": 2}))

    done = run("tune", "--config", "more.yaml")

    assert done.status == 2
    assert "pass --workers N on the command line" in done.err


def test_the_process_that_is_asked_gives_back_its_share(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()

    with pytest.raises(KeyboardInterrupt), beside(["--help"], 2):
        raise KeyboardInterrupt

    assert torch.get_num_threads() == threads
    assert [file.name for file in (tmp_path / "optselect_workers").iterdir()] == ["worker-1.log"]


def searched(folder: Path, workers: int) -> tuple[dict[str, Any], list[TrialState]]:
    """The plan of `workers` real processes, and the states of the trials that they left."""
    folder.mkdir()
    (folder / "longer.yaml").write_text(yaml.dump(LONGER))
    line = [sys.executable, "-m", "optselect.recipes.cli", "tune", "--config", "longer.yaml"]
    subprocess.run([*line, "--workers", str(workers)], cwd=folder, check=True, capture_output=True, timeout=900)
    (name,) = optuna.get_all_study_names(storage := journal_storage(folder / "optselect_study.journal"))
    states = [trial.state for trial in optuna.load_study(study_name=name, storage=storage).get_trials()]
    return plain(OptimizerPlan.load(folder / "plan.json")), states


@pytest.mark.slow
def test_real_processes_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # With other numbers of threads sums would come out otherwise.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one, _ = searched(tmp_path / "one", 1)

    for count in (2, 4):
        several, states = searched(tmp_path / str(count), count)

        assert several == one
        assert len(states) == len(one["trials"])
        assert set(states) <= {TrialState.COMPLETE, TrialState.PRUNED}


def test_a_worker_joins_the_search_that_a_line_has_begun(run: Run) -> None:
    run("tune", "--config", "tiny.yaml")
    plan = OptimizerPlan.load("plan.json")
    Path("plan.json").unlink()

    done = run("worker", "--config", "tiny.yaml", "--storage", "optselect_study.journal")

    assert done.status == 0
    assert "has ended" in done.out
    assert plan.optimizer in done.out
    assert not Path("plan.json").exists()


def test_a_worker_for_a_search_of_another_training_is_refused_in_one_line(run: Run) -> None:
    run("tune", "--config", "tiny.yaml")
    (name,) = optuna.get_all_study_names(journal_storage("optselect_study.journal"))

    done = run(
        "worker",
        "--config",
        "tiny.yaml",
        "--storage",
        "optselect_study.journal",
        "--study",
        name,
        "--seed_everything",
        "7",
    )

    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert "of another training" in done.err


def test_status_says_who_is_at_what_and_leaves_it_so(run: Run) -> None:
    study = open_study(
        storage="search.journal", name="mine", mode="min", facts={"monitor": "val_loss", "budget": {"steps": 100}}
    )
    workers = [Claims(study, worker={"machine": f"host{n} boot", "pid": n, "started": None}) for n in (1, 2, 3)]
    options: dict[str, Any] = {"stage": "arms", "optimizers": ["adamw", "sgd"], "known": None}
    first = workers[0].take(workers[0].look()[0], ADAMW, 0, until=10, turn=0, **options)
    assert first is not None
    study.report(first.number, until=10, reached=10, value=0.5, cost=11.0, seconds=3.0, turn=0, aside=True)
    lost = workers[1].take(workers[1].look()[0], SGD, 0, until=10, turn=1, **options)
    assert lost is not None
    study.give_back(lost.number)
    workers[2].take(workers[2].look()[0], SGD, 0, until=10, turn=1, **options)
    before = Path("search.journal").read_bytes()

    done = run("status", "--storage", "search.journal")

    lines = done.out.splitlines()
    assert lines[0] == "search mine in search.journal, judged by val_loss"
    assert lines[1].startswith("11 of 100 (11%) micro-batches spent on trials in 3 s; 1 trials judged, 0 of them")
    assert [line.split() for line in lines[3:]] == [
        ["host3:3", "at", "it", "arms", "sgd", "0.1", "0", "10"],
        ["host2:2", "lost", "arms", "sgd", "0.1", "0", "10"],
    ]
    assert Path("search.journal").read_bytes() == before


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--storage", "none.journal"], "there is no storage none.journal"),
        (["--storage", "sqlite:///none.db"], "there is no storage sqlite:///none.db"),
        (["--storage", "empty.journal"], "there is no search in empty.journal"),
        (["--storage", "postgresql://me:s3cret@127.0.0.1:9/none"], "postgresql://…@127.0.0.1:9/none"),
    ],
)
def test_status_of_what_is_not_there_is_one_line_without_passwords(arguments: list[str], said: str, run: Run) -> None:
    Path("empty.journal").touch()

    done = run("status", *arguments)

    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert said in done.err
    assert "s3cret" not in done.err + done.out
    assert not Path("none.db").exists()
