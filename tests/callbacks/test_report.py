"""The report beside the plan, and the choice among a logger's hyperparameters."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from optselect import OptimizerPlan
from optselect.callbacks import outputs
from optselect.callbacks.auto_optimizer import SearchFallbackWarning
from optselect.configuration import Configuration
from optselect.configuration.schedule import Schedule
from optselect.plan import ModelFingerprint
from optselect.report import is_page_of, logged_facts
from tests.support.modules import Classifier, auto, fit, made

RULES_ALONE: dict[str, Any] = {"budget": 0, "candidates": ["adamw"], "report": True}


class WithSettings(Classifier):
    """A module that logs hyperparameters of its own."""

    def __init__(self, width: int = 7) -> None:
        super().__init__()
        self.save_hyperparameters()


# --- the file -------------------------------------------------------------------------------------


def test_the_report_stands_beside_the_plan_and_shows_it(tmp_path: Path) -> None:
    ours = auto(tmp_path, **RULES_ALONE)

    fit(made(Classifier), ours, logger=CSVLogger(tmp_path), epochs=1)

    assert ours.plan is not None
    assert ours.plan_path is not None
    assert ours.report_path == ours.plan_path.with_name("report.html")
    assert is_page_of(ours.plan, ours.report_path)


def test_without_a_logger_both_are_in_the_default_folder(tmp_path: Path) -> None:
    fit(made(Classifier), auto(tmp_path, **RULES_ALONE), default_root_dir=tmp_path, epochs=1)

    assert {"plan.json", "report.html"} <= {file.name for file in tmp_path.iterdir()}


def test_a_report_goes_wherever_a_plan_can_be_written(tmp_path: Path) -> None:
    folder = f"memory://{tmp_path.name}"

    fit(made(Classifier), auto(tmp_path, **RULES_ALONE), default_root_dir=folder, epochs=1)

    page = get_filesystem(folder).cat_file(f"/{tmp_path.name}/report.html").decode()
    assert page.startswith("<!doctype html>")


def test_a_report_nobody_wants_is_not_written(tmp_path: Path) -> None:
    ours = auto(tmp_path, **{**RULES_ALONE, "report": False})

    fit(made(Classifier), ours, default_root_dir=tmp_path, epochs=1)

    assert ours.report_path is None
    assert not (tmp_path / "report.html").exists()


def test_a_resumed_run_leaves_the_report_as_it_is(tmp_path: Path) -> None:
    first = fit(made(Classifier), auto(tmp_path, **RULES_ALONE), default_root_dir=tmp_path, epochs=1)
    first.save_checkpoint(tmp_path / "end.ckpt")
    report = tmp_path / "report.html"
    # What somebody added to it is still there afterwards, so it was not written again.
    report.write_text(report.read_text("utf-8") + "<!-- seen -->\n", encoding="utf-8")

    fit(
        made(Classifier),
        auto(tmp_path, report=True),
        default_root_dir=tmp_path,
        epochs=1,
        ckpt_path=tmp_path / "end.ckpt",
    )

    assert report.read_text("utf-8").endswith("<!-- seen -->\n")


def test_another_plan_in_the_same_folder_has_its_own_report(tmp_path: Path) -> None:
    fit(made(Classifier), auto(tmp_path, **RULES_ALONE), default_root_dir=tmp_path, epochs=1)
    ours = auto(tmp_path, **{**RULES_ALONE, "candidates": ["momentum"]})

    fit(made(Classifier), ours, default_root_dir=tmp_path, epochs=1)

    assert ours.plan is not None
    assert is_page_of(ours.plan, tmp_path / "report.html")


def test_a_report_that_cannot_be_written_ends_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "report.html").mkdir()
    ours = auto(tmp_path, **RULES_ALONE)

    trainer = fit(made(Classifier), ours, default_root_dir=tmp_path, epochs=1)

    assert trainer.state.finished
    assert ours.report_path is None
    assert "no report is written" in caplog.text


def test_a_page_that_fails_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("in a plot")

    monkeypatch.setattr(outputs, "write_report", broken)

    trainer = fit(made(Classifier), auto(tmp_path, **RULES_ALONE), default_root_dir=tmp_path, epochs=1)

    assert trainer.state.finished
    assert "ZeroDivisionError: in a plot" in caplog.text


def test_without_matplotlib_the_log_says_how_to_get_plots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outputs, "can_draw", lambda: False)
    caplog.set_level(logging.INFO, logger="optselect")

    fit(made(Classifier), auto(tmp_path, **RULES_ALONE), default_root_dir=tmp_path, epochs=1)

    assert "without plots, for which: pip install 'optselect[report]'" in caplog.text


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = auto(tmp_path, **RULES_ALONE)
    trainer = fit(made(Classifier), ours, default_root_dir=tmp_path / "first", epochs=1)
    monkeypatch.setattr(type(trainer), "is_global_zero", False)

    fit(made(Classifier), auto(tmp_path, **RULES_ALONE), default_root_dir=tmp_path / "second", epochs=1)

    assert (tmp_path / "first" / "report.html").exists()
    assert not (tmp_path / "second" / "report.html").exists()


def test_a_storage_url_is_in_none_of_the_files(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/hunter2.db"

    fit(
        made(Classifier),
        auto(tmp_path, storage=url, report=True, candidates=["adamw"]),
        logger=CSVLogger(tmp_path),
        epochs=1,
    ).save_checkpoint(tmp_path / "end.ckpt")

    files = [file for file in tmp_path.rglob("*") if file.is_file() and not file.name.startswith("hunter2.db")]
    assert {"report.html", "plan.json", "hparams.yaml", "end.ckpt"} <= {file.name for file in files}
    assert [file.name for file in files if b"hunter2" in file.read_bytes() or b"sqlite" in file.read_bytes()] == []


class Recording(DummyLogger):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[dict[str, Any]] = []

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.told.append(params)


# --- hyperparameters ------------------------------------------------------------------------------


def test_the_choice_is_among_the_hyperparameters_of_every_logger(tmp_path: Path) -> None:
    ours = auto(tmp_path, candidates=["adamw", "momentum"])
    loggers = [CSVLogger(tmp_path, name="one"), CSVLogger(tmp_path, name="two")]

    fit(made(WithSettings), ours, logger=loggers, epochs=1)

    told = [yaml.safe_load(Path(logger.log_dir, "hparams.yaml").read_text("utf-8")) for logger in loggers]
    assert ours.plan is not None
    assert told == [{"width": 7, **logged_facts(ours.plan)}] * 2
    assert {"optselect/optimizer", "optselect/lr", "optselect/search_steps"} <= told[0].keys()


def test_tensorboard_shows_the_choice_beside_the_modules_own(tmp_path: Path) -> None:
    ours = auto(tmp_path, **{**RULES_ALONE, "report": False})
    logger = TensorBoardLogger(tmp_path)

    fit(made(WithSettings), ours, logger=logger, epochs=1)

    events = EventAccumulator(logger.log_dir).Reload()
    shown = plugin_data_pb2.HParamsPluginData.FromString(
        events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    ).session_start_info.hparams
    assert shown["width"].number_value == 7
    assert shown["optselect/optimizer"].string_value == "adamw"


def test_a_logger_that_refuses_them_ends_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Refusing(DummyLogger):
        def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("no connection")

    patient = CSVLogger(tmp_path)

    trainer = fit(
        made(Classifier),
        auto(tmp_path, **RULES_ALONE),
        logger=[Refusing(), patient],
        epochs=1,
        default_root_dir=tmp_path,
    )

    assert trainer.state.finished
    assert "Refusing takes no hyperparameters (RuntimeError: no connection)" in caplog.text
    assert "optselect/optimizer" in Path(patient.log_dir, "hparams.yaml").read_text("utf-8")


def test_facts_are_flat_and_plain_and_leave_out_what_is_not_known() -> None:
    plan = OptimizerPlan(
        configuration=Configuration(
            optimizer="adamw", hyperparameters={"lr": 0.1, "weight_decay": 0.0}, schedule=Schedule(kind="cosine")
        ),
        model_fingerprint=ModelFingerprint.of(torch.nn.Linear(2, 2)),
        lead=0.25,
        search_steps=90,
    )

    assert logged_facts(plan) == {
        "optselect/optimizer": "adamw",
        "optselect/lr": 0.1,
        "optselect/weight_decay": 0.0,
        "optselect/lead": 0.25,
        "optselect/trials": 0,
        "optselect/search_steps": 90,
    }


def test_a_run_that_falls_back_logs_no_choice(tmp_path: Path) -> None:
    class Two(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.parameters(), lr=0.1), torch.optim.SGD(self.parameters(), lr=0.1)]

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return None

    logger = Recording()

    with pytest.warns(SearchFallbackWarning, match="optimizers"):
        fit(made(Two), auto(tmp_path, report=True), logger=logger, epochs=1, default_root_dir=tmp_path)

    assert logger.told == []
    assert not (tmp_path / "report.html").exists()


def test_the_report_says_at_last_how_the_training_ended(tmp_path: Path) -> None:
    ours = auto(tmp_path, **RULES_ALONE)

    trainer = fit(made(Classifier), ours, epochs=2, default_root_dir=tmp_path)

    assert ours.report_path is not None
    page = ours.report_path.read_text("utf-8")
    assert f"ended after {trainer.global_step} optimizer steps, 2 epochs" in page
    assert "Classifier" in page
