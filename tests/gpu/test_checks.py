"""The checks of `make gpu-check`, on the CPU: the same functions, and that they can fail."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from optselect.workload.borrowed_model import BorrowedModel
from optselect.workload.shelf import Shelf
from optselect.workload.training import Training
from tests.gpu import check, checks
from tests.gpu.checks import CHECKS, Differs, Place

pytestmark = [
    # A step that a scaler leaves out is none that a scheduler sees, in the hand-written training neither.
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning"),
    # torch's own: switched on by deterministic="warn".
    pytest.mark.filterwarnings("ignore:.*does not have a deterministic implementation:UserWarning"),
]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(device="cpu", folder=tmp_path)


@pytest.mark.parametrize("name", CHECKS)
def test_what_is_checked_on_a_device_holds_on_the_cpu(name: str, place: Place) -> None:
    assert CHECKS[name](place) != ""


def test_a_trace_is_found(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    restore = BorrowedModel.restore

    def leaves_a_trace(self: BorrowedModel) -> None:
        restore(self)
        next(iter(self.model.buffers())).add_(1.0)

    monkeypatch.setattr(BorrowedModel, "restore", leaves_a_trace)

    with pytest.raises(Differs, match="differs in weights and buffers"):
        checks.no_trace(place)


def test_a_state_that_is_not_put_back_is_found(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def loses_a_state(self: Training, model: BorrowedModel, stored: dict[str, object]) -> None:
        del stored["optimizers"]
        model.restore_stored(stored["model"])  # type: ignore[arg-type]  # as it was stored

    monkeypatch.setattr(Training, "restore", loses_a_state)

    with pytest.raises(Differs, match="otherwise when it was read from a file"):
        checks.put_aside(place)


def test_what_is_not_copied_into_host_memory_is_found(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shelf, "keep", lambda _, tensors: list(tensors))

    with pytest.raises(Differs, match="that were borrowed come back otherwise"):
        checks.kept_in_host_memory(place)


def test_each_check_is_a_line_and_one_that_fails_is_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    def differs(_: Place) -> str:
        raise Differs("the weights")

    def breaks(_: Place) -> str:
        raise ZeroDivisionError

    statuses = [check.run("cpu", {"good": lambda _: "seen"}), check.run("cpu", {"bad": differs, "broken": breaks})]

    assert statuses == [0, 1]
    lines = capsys.readouterr().out.splitlines()
    assert [line[:13] for line in lines if line.startswith(("ok", "WRONG"))] == [
        "ok     good (",
        "WRONG  bad (0",
        "WRONG  broken",
    ]
    assert lines[-1] == "0 of 2 hold on cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so_and_ends_otherwise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["check"])

    status = check.main()

    assert (status, capsys.readouterr().out) == (3, "no CUDA device: nothing was checked\n")
