"""Beside the callbacks and loggers people use, the run is the hand-written one with the same company."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
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
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from tests.callbacks.comparison import Scenario, differences, fitting
from tests.callbacks.modules import (
    CLASSES,
    FEATURES,
    Classifier,
    WithOptimizer,
    loaders,
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
        fitting(
            lambda: [EarlyStopping("train_loss", patience=1, check_on_train_epoch_end=True)], max_epochs=3
        ),
        Classifier,
    ),
    "LearningRateMonitor with all flags": (
        fitting(
            lambda: [LearningRateMonitor("step", log_momentum=True, log_weight_decay=True)], logger=CSVLogger
        ),
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

pytestmark = pytest.mark.filterwarnings(
    "ignore:You have overridden:UserWarning",
    "ignore:.*lr_scheduler.step.*before.*optimizer.step:UserWarning",
    "ignore:Swapping scheduler:UserWarning",
    "ignore:The .* callback:UserWarning",
    "ignore:Checkpoint directory:UserWarning",
)


@pytest.mark.parametrize("name", COMPANY)
def test_in_company_the_run_is_the_hand_written_one(name: str, tmp_path: Path) -> None:
    scenario, module_type = COMPANY[name]
    found = differences(scenario, tmp_path, module_type)
    assert found == []
