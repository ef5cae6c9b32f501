"""What trials are judged by, where nobody says it, and where what was said cannot be."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from optselect import Budget
from optselect.callbacks.monitoring import HELD_BACK, RETURNED
from optselect.errors import MetricNotLoggedError
from tests.support.modules import Classifier, auto, fit, in_trial, loaders, made, rows


class Logs(Classifier):
    """Logs its loss and accuracy under names of its own."""

    loss_name = "valid_loss"

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("fit_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        scores = self.net(batch[0])
        self.log(self.loss_name, F.cross_entropy(scores, batch[1]), on_step=True, on_epoch=True)
        self.log("valid_accuracy", (scores.argmax(1) == batch[1]).float().mean())


class LogsAccuracyAlone(Logs):
    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("valid_accuracy", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())


class LogsTwoLosses(Logs):
    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self.log_dict({"loss_of_a": 1.0, "loss_of_b": 2.0})


class Returns(Classifier):
    """Logs nothing."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self.net(batch[0]), batch[1])


class ReturnsDict(Returns):
    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        return {"val_loss": super().validation_step(batch, batch_idx), "scores": self.net(batch[0])}


class ReturnsNoLoss(Returns):
    """As Lightning's own demonstration does."""

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        return {"x": torch.log(self.net(batch[0]).exp())}


class Evaluator(L.Callback):
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.log("val_knn", 0.5)


def judged(module: type[L.LightningModule], tmp_path: Path, *callbacks: Any, **settings: Any) -> tuple[str, str]:
    """The name and the mode that the plan of a search has."""
    callback = auto(tmp_path, **settings)
    checkpoints = any(isinstance(each, ModelCheckpoint) for each in callbacks)
    fit(made(module), callback, *callbacks, enable_checkpointing=checkpoints, default_root_dir=tmp_path)
    assert callback.plan is not None
    assert any(trial.value is not None for trial in callback.plan.trials)
    return callback.plan.monitor, callback.plan.mode


WATCHED: dict[str, tuple[type[L.LightningModule], Any, tuple[str, str]]] = {
    "a checkpoint": (Logs, lambda: [ModelCheckpoint(monitor="valid_loss")], ("valid_loss", "min")),
    "its mode": (Logs, lambda: [ModelCheckpoint(monitor="valid_accuracy", mode="max")], ("valid_accuracy", "max")),
    "early stopping": (Logs, lambda: [EarlyStopping("valid_accuracy", mode="max")], ("valid_accuracy", "max")),
    "a checkpoint goes before early stopping": (
        Logs,
        lambda: [EarlyStopping("valid_loss"), ModelCheckpoint(monitor="valid_accuracy", mode="max")],
        ("valid_accuracy", "max"),
    ),
    "also where there is a val_loss": (
        Classifier,
        lambda: [ModelCheckpoint(monitor="val_loss"), ModelCheckpoint(monitor="step", mode="max")],
        ("val_loss", "min"),
    ),
    "not what training alone logs": (Logs, lambda: [ModelCheckpoint(monitor="fit_loss")], ("valid_loss", "min")),
    "not what a callback logs": (
        Logs,
        lambda: [Evaluator(), ModelCheckpoint(monitor="val_knn", mode="max")],
        ("valid_loss", "min"),
    ),
    "what training logs, where validation gives nothing": (
        type("TrainingAlone", (Logs,), {"validation_step": Returns.validation_step}),
        lambda: [ModelCheckpoint(monitor="fit_loss_epoch")],
        ("fit_loss_epoch", "min"),
    ),
}


@pytest.mark.parametrize("module, callbacks, expected", WATCHED.values(), ids=WATCHED)
def test_trials_are_judged_by_what_the_training_goes_by(
    module: type[L.LightningModule], callbacks: Any, expected: tuple[str, str], tmp_path: Path
) -> None:
    assert judged(module, tmp_path, *callbacks()) == expected


def test_what_is_asked_for_goes_before_what_is_watched(tmp_path: Path) -> None:
    watched = ModelCheckpoint(monitor="valid_accuracy", mode="max")

    assert judged(Logs, tmp_path, watched, monitor="valid_loss") == ("valid_loss", "min")


FOUND = {
    "the one loss of the validation": (Logs, "valid_loss"),
    "a loss that is returned": (Returns, RETURNED),
    "a loss that is returned among others": (ReturnsDict, RETURNED),
    "the training loss": (ReturnsNoLoss, HELD_BACK),
}


@pytest.mark.parametrize("module, name", FOUND.values(), ids=FOUND)
def test_where_nothing_is_asked_for_or_watched_trials_are_judged_by_the_loss_that_there_is(
    module: type[L.LightningModule], name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="optselect"):
        assert judged(module, tmp_path) == (name, "min")

    assert len([line for line in caplog.messages if "are judged by" in line and name in line and "\n" not in line]) == 1


@pytest.mark.parametrize("module", [LogsAccuracyAlone, LogsTwoLosses])
def test_which_value_counts_is_not_guessed(module: type[L.LightningModule], tmp_path: Path) -> None:
    with pytest.raises(MetricNotLoggedError, match=r"no monitor was given, and 'val_loss' was never logged"):
        fit(made(module), auto(tmp_path))


def test_a_value_that_a_callback_logs_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(MetricNotLoggedError, match=r"the callback Evaluator logs it, and callbacks do not run in tri"):
        fit(made(Classifier), auto(tmp_path, monitor="val_knn"), Evaluator())


def test_a_value_of_the_training_step_that_is_asked_for_is_judged_on_batches_that_no_trial_trains_on(
    tmp_path: Path,
) -> None:
    trained: list[float] = []

    class Watching(Logs):
        def on_before_optimizer_step(self, optimizer: Any) -> None:
            if in_trial(self) and optimizer.param_groups[0]["lr"]:
                trained.append(self.first)

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            self.first = float(batch[0][0, 0])

    held_back = {float(rows()[8 * index][0][0]) for index in range(8)}
    data = DataLoader(rows(), batch_size=8), loaders()[1]
    callback = auto(tmp_path, monitor="fit_loss", budget=Budget(steps=20, trials=2))

    fit(made(Watching), callback, data=data)

    assert callback.plan is not None
    assert callback.plan.monitor == "fit_loss"
    assert trained[0] not in held_back
