"""A module finds in trials what it finds in a training, and judging it moves nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torchmetrics
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import Logger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from optselect import Budget
from optselect.callbacks.auto_optimizer import SearchFallbackWarning
from optselect.callbacks.lightning_names import LIGHTNING
from optselect.callbacks.muting import Nowhere, silent
from optselect.errors import MetricNotLoggedError
from tests.support.kinds import Collections, Slices, TakesDerivatives, Teacher, TeacherAlone
from tests.support.modules import BATCH, FEATURES, Classifier, auto, fit, in_trial, loaders, made, rows

# --- loggers --------------------------------------------------------------------------------------


class Rows(Logger):
    """A logger of the user's own, with methods that Lightning does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Any] = []

    @property
    def name(self) -> str:
        return "rows"

    @property
    def version(self) -> str:
        return "one"

    @property
    def experiment(self) -> Any:
        return self.rows

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.rows.append(metrics)

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        self.rows.append(params)

    def note(self, what: str) -> None:
        self.rows.append(what)


class WritesEverywhere(Classifier):
    """Finds its logger by class, and writes in all the ways there are."""

    seen: list[Any]

    def on_validation_epoch_end(self) -> None:
        logger: Any = self.logger
        if in_trial(self):
            assert isinstance(logger, Rows)
            assert (logger.name, logger.version) == ("rows", "one")
            logger.log_metrics({"own": 1.0})
            logger.experiment.add_image("picture", torch.zeros(1), global_step=self.global_step)
            logger.experiment.config["key"]["other"] = 1
            with logger.experiment.start_run() as run:
                run.log({"x": 1})
            logger.note("a trial")


def test_what_a_trial_writes_to_a_logger_goes_nowhere(tmp_path: Path) -> None:
    logger = Rows()

    fit(made(WritesEverywhere), auto(tmp_path), logger=logger, default_root_dir=tmp_path)

    assert not [row for row in logger.rows if row == "a trial" or "own" in row]


def test_the_folders_that_a_trial_finds_are_those_of_the_run(tmp_path: Path) -> None:
    found: set[Any] = set()

    class Plots(Classifier):
        def on_validation_epoch_end(self) -> None:
            logger: Any = self.logger
            (Path(logger.log_dir) / "pictures").mkdir(parents=True, exist_ok=True)
            found.add((logger.log_dir, self.trainer.log_dir, logger.save_dir, os.fspath(logger.root_dir)))

    fit(made(Plots), auto(tmp_path), logger=CSVLogger(tmp_path), default_root_dir=tmp_path)

    assert len(found) == 1
    assert [path.name for path in (tmp_path / "lightning_logs").iterdir()] == ["version_0"]


def test_a_silent_experiment_is_the_loggers_folder_to_those_who_ask_for_a_path(tmp_path: Path) -> None:
    experiment = silent(CSVLogger(tmp_path), LIGHTNING).experiment

    assert isinstance(experiment, Nowhere)
    assert os.path.join(experiment.dir, "x").startswith(str(tmp_path))  # noqa: PTH118  # as modules do
    assert list(experiment.anything.at_all(1)["key"]) == []


def test_a_logger_that_the_module_keeps_itself_writes_nothing_either(tmp_path: Path) -> None:
    logger = Rows()

    class Keeps(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.own_logger = logger

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            if in_trial(self):
                self.own_logger.log_metrics({"own": 1.0})
            return super().training_step(batch, batch_idx)

    module = made(Keeps)
    fit(module, auto(tmp_path), logger=logger, default_root_dir=tmp_path)

    assert module.own_logger is logger
    assert not [row for row in logger.rows if "own" in row]


# --- metrics --------------------------------------------------------------------------------------


def values(module: type[L.LightningModule], tmp_path: Path, monitor: str, **settings: Any) -> list[float | None]:
    search = {"mode": "max", "candidates": ["adamw", "momentum"], "budget": Budget(steps=120), **settings}
    callback = auto(tmp_path / monitor, monitor=monitor, **search)
    (tmp_path / monitor).mkdir()
    fit(made(module), callback, data=(DataLoader(rows(), batch_size=BATCH, shuffle=True), None), epochs=4)
    assert callback.plan is not None
    return [trial.value for trial in callback.plan.trials]


class Measured(Classifier):
    """The accuracy of its training, as a number, an object, one of a collection, and at the end of an epoch."""

    validation_step = L.LightningModule.validation_step  # type: ignore[assignment]  # as if there were none

    def __init__(self) -> None:
        super().__init__()
        self.parts: Any = nn.ModuleList([self.accuracy(), self.accuracy()])
        self.collection: Any = torchmetrics.MetricCollection({"collected": self.accuracy(), "twin": self.accuracy()})

    @staticmethod
    def accuracy() -> torchmetrics.Metric:
        return torchmetrics.classification.MulticlassAccuracy(3, average="micro")

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        scores = self.net(batch[0])
        for part in self.parts:
            part.update(scores, batch[1])
        self.collection.update(scores, batch[1])
        self.log("number", (scores.argmax(1) == batch[1]).float().mean())
        self.log("object", self.parts[0], on_step=False, on_epoch=True)
        self.log_dict(dictionary=self.collection, on_step=False, on_epoch=True)
        return super().training_step(batch, batch_idx)

    def on_train_epoch_end(self) -> None:
        self.log("at_the_end", self.parts[1].compute())
        self.parts[1].reset()


@pytest.mark.parametrize("name", ["object", "collected", "twin", "at_the_end"])
def test_a_metric_in_any_place_judges_by_the_batches_held_back_alone(name: str, tmp_path: Path) -> None:
    assert values(Measured, tmp_path, name) == pytest.approx(values(Measured, tmp_path, "number"))


@pytest.mark.parametrize("reduce_fx, expected", [("max", 7.0), (torch.sum, 28.0), ("mean", 3.5)])
def test_a_logged_value_is_reduced_as_the_module_says(reduce_fx: Any, expected: float, tmp_path: Path) -> None:
    class Reduced(Measured):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            self.log("index", float(batch_idx), reduce_fx=reduce_fx, on_step=False, on_epoch=True)
            return super().training_step(batch, batch_idx)

    assert set(values(Reduced, tmp_path, "index")) == {expected}


def test_metrics_begin_anew_with_each_epoch(tmp_path: Path) -> None:
    most: list[float] = []

    class Watches(Collections):
        def on_train_batch_end(self, *_: Any) -> None:
            most.append(self.metrics["fit_"]["accuracy"].update_count)

    fit(made(Watches), auto(tmp_path, budget=Budget(steps=120)), epochs=4)

    assert max(most) == len(rows()) // BATCH


# --- derivatives ----------------------------------------------------------------------------------


def test_a_loss_that_takes_derivatives_is_judged_on_held_back_batches(tmp_path: Path) -> None:
    callback = auto(tmp_path)

    fit(made(TakesDerivatives), callback, data=(loaders()[0], None))

    assert callback.plan is not None
    assert all(trial.value is not None for trial in callback.plan.trials)


# --- judging moves nothing ------------------------------------------------------------------------


@pytest.mark.parametrize("module, validates", [(Teacher, True), (TeacherAlone, False)])
def test_a_trial_finds_of_its_state_what_its_own_batches_left(
    module: type[Teacher], validates: bool, tmp_path: Path
) -> None:
    ahead: list[int] = []

    class Watches(module):  # type: ignore[misc,valid-type]
        ended = 0

        def on_train_batch_end(self, *_: Any) -> None:
            self.ended += 1
            ahead.append(self.place - self.ended)

    data = loaders()[0], loaders()[1] if validates else None
    fit(made(Watches), auto(tmp_path, budget=Budget(steps=200)), data=data, epochs=4)

    assert set(ahead) == {0}


def test_the_hooks_before_a_batch_go_before_one_that_is_held_back(tmp_path: Path) -> None:
    class Prepares(TeacherAlone):
        def on_train_epoch_start(self) -> None:
            self.weight = 1.0 + self.current_epoch

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            self.shift = 0.1 * batch_idx

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step([batch[0] + self.shift, batch[1]], batch_idx) * self.weight

    callback = auto(tmp_path)

    fit(made(Prepares), callback, data=(loaders()[0], None))

    assert callback.plan is not None
    assert all(trial.value is not None for trial in callback.plan.trials)


# --- loaders --------------------------------------------------------------------------------------


def test_a_validation_stream_is_read_to_its_end_and_no_further(tmp_path: Path) -> None:
    counts: set[int] = set()

    class Counts(Classifier):
        def on_validation_epoch_start(self) -> None:
            self.count = 0

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.count += 1
            super().validation_step(batch, batch_idx)

        def on_validation_epoch_end(self) -> None:
            counts.add(self.count if in_trial(self) else 0)

    callback = auto(tmp_path)
    fit(made(Counts), callback, data=(loaders()[0], Slices()), limit_val_batches=64)

    # Two in the look at what it logs.
    assert counts - {0} == {2, len(rows()) // BATCH}


def test_the_trainers_validation_loaders_are_the_users_own(tmp_path: Path) -> None:
    found: list[Any] = []

    class Looks(Classifier):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            found.append(self.trainer.val_dataloaders)
            super().validation_step(batch, batch_idx)

    mine = {"a": DataLoader(rows(16), batch_size=8), "b": DataLoader(rows(8), batch_size=8)}
    fit(made(Looks), auto(tmp_path), data=(loaders()[0], mine))

    assert all(each["a"] is mine["a"] and each["b"] is mine["b"] for each in found)


@pytest.mark.parametrize("monitor", ["val_in", "val_out"])
def test_each_of_several_validation_loaders_may_be_judged_by(monitor: str, tmp_path: Path) -> None:
    class Named(Classifier):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            self.log(["val_in", "val_out"][dataloader_idx], batch[0].mean(), add_dataloader_idx=False)

    callback = auto(tmp_path, monitor=monitor)
    fit(made(Named), callback, data=(loaders()[0], [DataLoader(rows(16), 8), DataLoader(rows(48), 8)]))

    own = {"val_in": rows(16), "val_out": rows(48)}[monitor].tensors[0].mean()
    assert callback.plan is not None
    assert callback.plan.trials[0].value == pytest.approx(float(own), abs=1e-6)


class Nothing(Dataset[Any]):
    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: int) -> Any:
        raise IndexError


# Lightning's own remarks on empty loaders.
@pytest.mark.filterwarnings("ignore:Total length of", "ignore:.*num_workers")
def test_an_empty_training_loader_is_called_empty_whatever_the_budget(tmp_path: Path) -> None:
    few = DataLoader(rows(4), batch_size=BATCH, drop_last=True)

    with pytest.warns(SearchFallbackWarning, match="the training loader gives no batch"):
        fit(made(Classifier), auto(tmp_path, budget=2.0), data=(few, loaders()[1]))


@pytest.mark.filterwarnings("ignore:Total length of", "ignore:.*num_workers")
def test_an_empty_validation_loader_is_called_empty_where_its_value_is_asked_for(tmp_path: Path) -> None:
    none = DataLoader(Nothing(), batch_size=BATCH)

    with pytest.raises(MetricNotLoggedError, match="the validation loader gives no batch"):
        fit(made(Classifier), auto(tmp_path, monitor="val_loss"), data=(loaders()[0], none))


# Lightning steps the scheduler after a first batch that is None, and torch says that no optimizer has stepped before.
@pytest.mark.filterwarnings("ignore:train_dataloader yielded None", "ignore:Detected call of `lr_scheduler")
def test_batches_that_are_none_are_skipped_wherever_they_come(tmp_path: Path) -> None:
    def most(items: list[Any]) -> Any:
        return None if items[0][0][1] > 0 else torch.utils.data.default_collate(items)

    callback = auto(tmp_path)
    data = DataLoader(rows(), batch_size=BATCH, collate_fn=most)
    fit(made(TakesDerivatives), callback, data=(data, None), accumulate_grad_batches=2)

    assert callback.plan is not None
    assert callback.profile is not None
    assert callback.profile.data.features == FEATURES
    assert all(trial.value is not None for trial in callback.plan.trials)
