"""Trials put aside where other machines reach them go on there as if nothing had been between."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from optuna.artifacts import FileSystemArtifactStore
from torch import nn

from optselect import AutoOptimizer, Budget, TorchWorkload
from optselect.configuration import Configuration
from optselect.configuration.schedule import Schedule
from optselect.errors import ConfigurationError, MissingExtraError
from optselect.pipeline import make_selection
from optselect.search.outcome import Outcome
from optselect.search.parking import SharedStates, states_of
from optselect.search.progress import Silent
from optselect.search.runner import TrialRunner
from optselect.settings import Settings
from optselect.study.artifacts import Artifacts
from optselect.study.opening import open_study
from optselect.study.study import TrialStudy
from tests.support.bucket import bucket_server
from tests.support.searches import Meter
from tests.support.small import Net, loader, vectors

CHOSEN = Configuration(
    optimizer="adamw", hyperparameters={"lr": 0.01}, schedule=Schedule(kind="cosine", warmup_steps=5)
)


class InMemory:
    """A store as a third party might write it."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    def open_reader(self, artifact_id: str) -> BinaryIO:
        return io.BytesIO(self.held[artifact_id])

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        self.held[artifact_id] = content_body.read()

    def remove(self, artifact_id: str) -> None:
        del self.held[artifact_id]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """What is in a bucket that boto3 takes for S3."""
    pytest.importorskip("boto3", reason="an extra: pip install 'optselect[s3]'")
    with bucket_server() as (address, held):
        settings = {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "me",
            "AWS_SECRET_ACCESS_KEY": "mine",
            "AWS_DEFAULT_REGION": "here",
            # The tests' bucket takes bodies as they are.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        yield held


@pytest.fixture(params=["a folder", "Optuna's folder", "a bucket", "a third party's"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> Artifacts:
    if request.param == "a bucket":
        request.getfixturevalue("bucket")
        return "s3://bucket/some/where"
    (tmp_path / "artifacts").mkdir()
    folder = tmp_path / "artifacts"
    if request.param == "a folder":
        return str(folder)
    return FileSystemArtifactStore(folder) if request.param == "Optuna's folder" else InMemory()


def study_in(artifacts: Artifacts, storage: Any = None) -> TrialStudy:
    return open_study(storage=storage, name="study", mode="min", facts={}, artifacts=artifacts)


def outcomes(study: TrialStudy | None, *untils: int) -> list[Outcome]:
    """What a trial gives at each of `untils`, on a machine of its own as far as it can tell."""
    torch.manual_seed(0)
    workload = TorchWorkload(Net(), nn.CrossEntropyLoss(), loader(), loader(vectors(48)), steps=100)
    with workload.borrowed():
        runner = TrialRunner(workload, states=states_of(study) if study is not None else None)
        return [runner.run(CHOSEN, 0, until) for until in untils]


def test_a_trial_begun_on_one_machine_goes_on_on_another_bit_for_bit(artifacts: Artifacts) -> None:
    study = study_in(artifacts)
    outcomes(study, 15)
    (whole,) = outcomes(None, 40)

    (continued,) = outcomes(study, 40)

    assert continued.value == whole.value
    assert whole.cost - continued.cost == pytest.approx(15)


def test_without_a_place_that_both_reach_it_starts_over_at_its_cost() -> None:
    study = study_in(None)
    outcomes(study, 15)
    (whole,) = outcomes(None, 40)

    (again,) = outcomes(study, 40)

    assert again == whole


def test_the_newest_state_takes_the_place_of_the_one_before(artifacts: Artifacts) -> None:
    study = study_in(artifacts)
    outcomes(study, 5, 15, 30)

    (continued,) = outcomes(study, 40)

    assert continued.cost == pytest.approx(10 + outcomes(None, 40)[0].cost - 40)


class Killed(KeyboardInterrupt):
    """Stands for the end of a machine."""


def searched(storage: Any, loss: Meter, **settings: Any) -> Any:
    torch.manual_seed(0)
    workload = TorchWorkload(Net(), loss, loader(), loader(vectors(48)), steps=40)
    return make_selection(workload, Settings(budget=Budget(steps=160), storage=storage, **settings), progress=Silent())


def test_a_search_that_another_machine_ends_runs_no_rung_twice_and_leaves_nothing(
    postgres: Any, bucket: dict[str, bytes]
) -> None:
    alone = Meter()
    whole = searched(None, alone).plan
    url, artifacts = postgres.database(), "s3://bucket"
    first, second = Meter(raises={alone.training + alone.forward - 12: Killed()}), Meter()
    with pytest.raises(Killed):
        searched(url, first, artifacts=artifacts)
    kept = len(bucket)

    plan = searched(url, second, artifacts=artifacts).plan

    assert kept > 0
    assert plan.trials == whole.trials
    # The profile once more, and at most the rung that was lost.
    assert first.training + second.training < alone.training + 8 + 30
    assert bucket == {}


def test_a_store_that_fails_costs_a_line_and_a_trial_that_starts_over(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(InMemory):
        def write(self, artifact_id: str, content_body: BinaryIO) -> None:
            raise RuntimeError("s3cret")

    study = study_in(Broken())
    with caplog.at_level(logging.WARNING, logger="optselect"):
        outcomes(study, 5, 15)
    (line,) = [message for message in caplog.messages if "among the artifacts" in message]

    (again,) = outcomes(study, 40)

    assert "RuntimeError" in line
    assert "s3cret" not in line
    assert again == outcomes(None, 40)[0]


@pytest.mark.parametrize("content", [b"", b"no state", b"PK\x03\x04 torn"])
def test_a_broken_state_is_none(content: bytes) -> None:
    store = InMemory()
    store.held["study-trial.pt"] = content

    assert SharedStates(store, "study-", lambda: ["trial"]).load("trial") is None


def test_studies_that_share_a_place_keep_apart(tmp_path: Path) -> None:
    first, second = (study_in(str(tmp_path / "shared"), tmp_path / f"{name}.journal") for name in ("one", "two"))
    outcomes(first, 15)

    (whole,) = outcomes(second, 40)
    states = states_of(second)
    assert states is not None
    states.clear()
    (continued,) = outcomes(first, 40)

    assert whole.cost - continued.cost == pytest.approx(15)


@pytest.mark.parametrize("wrong", ["ftp://host/folder", "s3://", 5, object()])
def test_what_is_no_place_for_artifacts_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"artifacts is a folder"):
        AutoOptimizer(artifacts=wrong)


def test_a_bucket_without_boto3_is_refused_at_once_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise ImportError("boto3")

    monkeypatch.setattr("optuna.artifacts.Boto3ArtifactStore", missing)

    with pytest.raises(MissingExtraError, match=r"pip install 'optselect\[s3\]'"):
        AutoOptimizer(artifacts="s3://bucket")
