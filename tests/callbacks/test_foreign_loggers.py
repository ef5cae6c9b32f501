"""The plan in Weights & Biases, MLflow and TensorBoard, each with the real library and nothing but this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from optselect import AutoOptimizer, Budget
from optselect.report.trials import ranked
from tests.support.modules import Classifier, fit, made


def searched(folder: Path, logger: Any) -> AutoOptimizer:
    auto = AutoOptimizer(budget=Budget(trials=3), storage=folder / "study.journal", progress=False)
    fit(made(Classifier), auto, logger=logger, epochs=1, default_root_dir=folder)
    assert auto.chosen.trials
    return auto


def test_tensorboard_has_the_explanation_as_text(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)

    auto = searched(tmp_path, logger)

    (said,) = EventAccumulator(logger.log_dir).Reload().Tensors("optselect/plan/text_summary")
    assert said.tensor_proto.string_val[0].decode() == auto.chosen.explain(markdown=True)


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_mlflow_has_the_choice_the_trials_and_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    logger = MLFlowLogger(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", artifact_location=str(tmp_path / "kept"))

    auto = searched(tmp_path, logger)

    run = logger.experiment.get_run(logger.run_id)
    files = {file.path for file in logger.experiment.list_artifacts(logger.run_id, "optselect")}
    (table,) = (tmp_path / "kept").rglob("trials.json")
    assert run.data.params["optselect/optimizer"] == auto.chosen.optimizer
    assert files == {"optselect/plan.json", "optselect/report.html", "optselect/trials.json"}
    assert len(json.loads(table.read_text())["data"]) == len(auto.chosen.trials)


@pytest.mark.filterwarnings("ignore")  # wandb's own
def test_wandb_has_the_choice_the_trials_and_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    artifacts: list[str] = []
    told = wandb.sdk.wandb_run.Run.log_artifact

    def log_artifact(run: Any, file: Any, **named: Any) -> Any:
        if isinstance(file, Path):  # a table is one of its own
            artifacts.append(file.name)
        return told(run, file, **named)

    monkeypatch.setattr(wandb.sdk.wandb_run.Run, "log_artifact", log_artifact)

    auto = searched(tmp_path, logger)
    config = dict(logger.experiment.config)
    logger.experiment.finish()

    (table,) = tmp_path.rglob("*.table.json")
    assert config["optselect/optimizer"] == auto.chosen.optimizer
    assert artifacts == ["plan.json", "report.html"]
    assert [row[5] for row in json.loads(table.read_text())["data"]] == [each.value for each in ranked(auto.chosen)]
