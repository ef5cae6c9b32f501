"""Beside the callbacks and loggers people use, the run is the hand-written one with the same company."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    DeviceStatsMonitor,
    EarlyStopping,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    OnExceptionCheckpoint,
    RichProgressBar,
    StochasticWeightAveraging,
    Timer,
    TQDMProgressBar,
    WeightAveraging,
)
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from optselect import AutoOptimizer, ConfigurationError
from tests.support.comparison import (
    Scenario,
    differences,
    fitting,
    left_behind,
    lived,
    searched,
    trainer_in,
)
from tests.support.kinds import Data
from tests.support.modules import (
    CLASSES,
    FEATURES,
    Classifier,
    WithOptimizer,
    auto,
    by_hand,
    equal_states,
    fit,
    loaders,
    made,
    rows,
)


class WithRate(Classifier):
    """Has the attribute that a learning rate finder sets."""

    def __init__(self) -> None:
        super().__init__()
        self.lr = 0.1


class WithBackbone(Classifier):
    """A backbone and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
        self.net = nn.Sequential(self.backbone, nn.Linear(16, CLASSES))


class WithRowsOfItsOwn(Classifier):
    """Makes its own loaders, as a batch size finder demands."""

    batch_size = 8

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(rows(), batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> Any:
        return loaders()[1]


def finetuning() -> list[L.Callback]:
    # The rate of the backbone is given, for otherwise it is read off the optimizer's first group.
    return [BackboneFinetuning(unfreeze_backbone_at_epoch=1, backbone_initial_lr=1e-4)]


COMPANY: dict[str, tuple[Scenario, type[L.LightningModule]]] = {
    "ModelCheckpoint": (
        fitting(
            lambda: [
                ModelCheckpoint(monitor="val_loss", save_last=True, save_top_k=2),
                ModelCheckpoint(every_n_train_steps=5, save_top_k=-1, filename="{step}"),
            ],
            enable_checkpointing=True,
        ),
        Classifier,
    ),
    "EarlyStopping": (
        fitting(lambda: [EarlyStopping("val_loss", patience=1, min_delta=10.0)], max_epochs=4),
        Classifier,
    ),
    "EarlyStopping on the training loss": (
        fitting(lambda: [EarlyStopping("train_loss", patience=1, check_on_train_epoch_end=True)], max_epochs=3),
        Classifier,
    ),
    "LearningRateMonitor with all flags": (
        fitting(lambda: [LearningRateMonitor("step", log_momentum=True, log_weight_decay=True)], logger=CSVLogger),
        Classifier,
    ),
    "LearningRateFinder": (
        fitting(lambda: [LearningRateFinder(num_training_steps=20, update_attr=False)]),
        Classifier,
    ),
    "LearningRateFinder that sets the rate": (
        fitting(lambda: [LearningRateFinder(num_training_steps=20, update_attr=True)]),
        WithRate,
    ),
    "GradientAccumulationScheduler": (
        fitting(lambda: [GradientAccumulationScheduler({0: 1, 1: 2})]),
        Classifier,
    ),
    "StochasticWeightAveraging": (
        fitting(
            lambda: [StochasticWeightAveraging(swa_lrs=1e-2, swa_epoch_start=1, annealing_epochs=1)],
            max_epochs=3,
        ),
        Classifier,
    ),
    "WeightAveraging": (
        fitting(lambda: [WeightAveraging()]),
        Classifier,
    ),
    "EMAWeightAveraging": (
        fitting(
            lambda: [EMAWeightAveraging(decay=0.9), ModelCheckpoint(save_last=True)],
            enable_checkpointing=True,
        ),
        Classifier,
    ),
    "BackboneFinetuning": (fitting(finetuning, max_epochs=3), WithBackbone),
    "RichProgressBar": (fitting(lambda: [RichProgressBar()], enable_progress_bar=True), Classifier),
    "TQDMProgressBar": (fitting(lambda: [TQDMProgressBar()], enable_progress_bar=True), Classifier),
    "CSVLogger": (fitting(logger=CSVLogger), Classifier),
    "DeviceStatsMonitor": (
        fitting(lambda: [DeviceStatsMonitor(cpu_stats=False)], logger=CSVLogger),
        Classifier,
    ),
    "OnExceptionCheckpoint": (
        fitting(lambda: [OnExceptionCheckpoint(".")], enable_checkpointing=True),
        Classifier,
    ),
    "Timer": (fitting(lambda: [Timer(duration={"hours": 1})]), Classifier),
    "its own optimizer and ModelCheckpoint": (
        fitting(lambda: [ModelCheckpoint(monitor="val_loss")], enable_checkpointing=True),
        WithOptimizer,
    ),
}

# Lightning's own remarks on this company.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Swapping scheduler:UserWarning",
    "ignore:.*was called without a model:UserWarning",
    "ignore:.*there is no last checkpoint available:UserWarning",
)


@pytest.mark.parametrize("name", COMPANY)
def test_in_company_the_run_is_the_hand_written_one(name: str, tmp_path: Path) -> None:
    scenario, module_type = COMPANY[name]

    different = differences(scenario, tmp_path, module_type)

    assert different == []


def test_tensorboard_is_told_the_same(tmp_path: Path) -> None:
    auto, _ = searched(fitting(logger=TensorBoardLogger), tmp_path)
    assert auto.plan is not None
    written = by_hand(Classifier, auto.plan)
    lived(fitting(logger=TensorBoardLogger), written, tmp_path / "written", [])

    ours, theirs = scalars(tmp_path / "searched"), scalars(tmp_path / "written")

    assert ours == theirs
    assert {"train_loss", "val_loss"} <= ours.keys()


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard would show, without the times and what belongs to hyperparameters."""
    (path,) = folder.rglob("events.out.tfevents*")
    events = EventAccumulator(str(path)).Reload()
    tags = set(events.Tags()["scalars"]) - {"hp_metric"}
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}


def test_a_learning_rate_monitor_shows_the_names_of_the_groups(tmp_path: Path) -> None:
    monitor = LearningRateMonitor(log_momentum=True, log_weight_decay=True)

    fit(made(Classifier), auto(tmp_path, candidates=["muon"], budget=0), monitor, logger=CSVLogger(tmp_path))

    shown = [name.partition("/")[2] for name in monitor.lrs]
    assert shown == ["muon/decay", "adamw/decay", "adamw/no_decay"]


@pytest.mark.parametrize("order", [0, 1])
def test_a_batch_size_finder_after_the_search_is_refused_before_the_search(order: int, tmp_path: Path) -> None:
    ours = auto(tmp_path)
    callbacks: list[L.Callback] = [BatchSizeFinder(max_trials=1)]
    callbacks.insert(order, ours)
    trainer = trainer_in(tmp_path, callbacks)

    with pytest.raises(ConfigurationError, match=r"Tuner\(trainer\)\.scale_batch_size"):
        trainer.fit(made(WithRowsOfItsOwn))

    assert ours.study is None


def test_an_exception_in_training_leaves_a_checkpoint_from_which_the_plan_continues(tmp_path: Path) -> None:
    class Breaks(L.Callback):
        def on_train_epoch_end(self, *args: Any) -> None:
            raise RuntimeError("broken on purpose")

    first, second = auto(tmp_path), auto(tmp_path)
    with pytest.raises(RuntimeError, match="broken on purpose"):
        fit(made(Classifier), first, Breaks(), OnExceptionCheckpoint(tmp_path), enable_checkpointing=True)

    fit(made(Classifier), second, ckpt_path=tmp_path / "on_exception.ckpt")

    assert second.plan == first.plan
    assert second.study is None


def test_an_exception_in_the_search_leaves_a_checkpoint_from_which_a_search_begins(tmp_path: Path) -> None:
    class Breaks(Classifier):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            raise RuntimeError("broken on purpose")

    with pytest.raises(RuntimeError, match="broken on purpose"):
        fit(made(Breaks), auto(tmp_path), OnExceptionCheckpoint(tmp_path), enable_checkpointing=True)
    callback = auto(tmp_path)

    fit(made(Classifier), callback, ckpt_path=tmp_path / "on_exception.ckpt")

    assert callback.plan is not None
    assert callback.study is not None


def test_a_module_may_bring_the_callback_itself(tmp_path: Path) -> None:
    callback = auto(tmp_path)

    class Brings(Classifier):
        def configure_callbacks(self) -> list[L.Callback]:
            return [callback]

    fit(made(Brings))

    assert callback.plan is not None


CONFIG = """
seed_everything: 3
trainer:
  accelerator: cpu
  max_epochs: 2
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  callbacks: {callbacks}
"""
AUTO = """
  - class_path: optselect.AutoOptimizer
    init_args:
      budget: {class_path: optselect.Budget, init_args: {steps: 40}}
      candidates: [adamw, momentum]
      report: false
"""
OPTIMIZER = "optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.05}}"


@pytest.mark.filterwarnings("ignore:.*`configure_optimizers` will be overridden:UserWarning")
@pytest.mark.parametrize("optimizer", ["", OPTIMIZER])
def test_a_command_line_run_is_the_hand_written_one(
    optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scenario(folder: Path, kind: type[L.LightningModule], callbacks: str, rest: str = "") -> LightningCLI:
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setattr("sys.argv", ["train.py"])
        monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
        (folder / "config.yaml").write_text(CONFIG.format(callbacks=callbacks) + rest)
        return LightningCLI(kind, Data, args=["fit", "--config", "config.yaml"], save_config_callback=None)

    ours = scenario(tmp_path / "searched", Classifier, AUTO, optimizer)
    trainer: Any = ours.trainer
    (auto,) = (callback for callback in trainer.callbacks if isinstance(callback, AutoOptimizer))
    assert auto.plan is not None
    assert ("user" in [trial.configuration.optimizer for trial in auto.plan.trials]) is bool(optimizer)
    keeps = auto.plan.optimizer == "user"
    written = by_hand(Classifier, auto.plan)
    theirs = scenario(tmp_path / "written", written, "[]", optimizer if keeps else "")

    one, other = (left_behind(cli.model, cli.trainer, tmp_path) for cli in (ours, theirs))

    assert [what for what in other if not equal_states(one[what], other[what])] == []
