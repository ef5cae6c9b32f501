"""What a trial is judged by comes with its parts where Lightning's value is the mean of batches, and else alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
import torchmetrics
from torch import Tensor, nn
from torch.utils.data import DataLoader

from optselect import LightningWorkload
from optselect.configuration import Evaluation
from tests.support.modules import BATCH, CLASSES, FEATURES, TRAINER, rows

SIZES = [8.0, 8.0, 8.0, 3.0]


class Judged(Exception):  # noqa: N818  # no error: it ends the fit before the training
    """The trial was judged."""


class Module(L.LightningModule):
    """Judges itself after a few steps, by its validation loss."""

    evaluation: Evaluation
    monitor: str | None = None

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(FEATURES, CLASSES)

    def loss(self, batch: Any) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch)

    def validation_step(self, batch: Any, *_: Any) -> Any:
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        workload = LightningWorkload(self.trainer, self, monitor=self.monitor)
        with workload.borrowed():
            workload.begin(lambda module: (torch.optim.SGD(module.parameters(), lr=0.1), None), 0)
            workload.train(3)
            with torch.no_grad():
                losses = [self.loss(batch).item() for batch in validation()]
            evaluations = [workload.validate() for _ in range(2)]
        raise Judged(*evaluations, losses)


def validation(count: int = 27) -> DataLoader[Any]:
    return DataLoader(rows(count), batch_size=BATCH)


def judged(module: type[Module], val: Any) -> tuple[Evaluation, list[float]]:
    """What it was judged at, and by hand the loss of each batch of `validation()`."""
    torch.manual_seed(0)
    trainer = L.Trainer(**TRAINER, max_epochs=2)
    with pytest.raises(Judged) as caught:
        trainer.fit(module(), DataLoader(rows(), batch_size=BATCH), val)
    one, again, losses = caught.value.args
    # Judging moves nothing; in words, as NaN equals nothing.
    assert repr(one) == repr(again)
    return one, losses


class ByStepAndEpoch(Module):
    monitor = "val_loss_epoch"

    def validation_step(self, batch: Any, *_: Any) -> Any:
        self.log("val_loss", self.loss(batch), on_step=True, on_epoch=True)


class AfterTheBatch(Module):
    def validation_step(self, batch: Any, *_: Any) -> Any:
        self.latest = self.loss(batch)

    def on_validation_batch_end(self, *_: Any) -> None:
        self.log("val_loss", self.latest)


class InPlace(Module):
    """Goes on with the tensor that it logged."""

    def validation_step(self, batch: Any, *_: Any) -> Any:
        loss = self.loss(batch)
        self.log("val_loss", loss)
        loss.zero_()


class InParts(Module):
    """Logs a batch in two calls, as a module does that goes through views."""

    def validation_step(self, batch: Any, *_: Any) -> Any:
        for rest in (0, 1):
            part = [each[rest::2] for each in batch]
            self.log("val_loss", self.loss(part), batch_size=len(part[0]))


PARTED = {
    "by default": Module,
    "by step and epoch": ByStepAndEpoch,
    "after the batch": AfterTheBatch,
    "a tensor that is used again": InPlace,
    "a batch in two calls": InParts,
}


@pytest.mark.parametrize("module", PARTED.values(), ids=PARTED)
def test_a_logged_mean_comes_with_the_value_and_the_size_of_each_batch(module: type[Module]) -> None:
    evaluation, losses = judged(module, validation())

    assert [weight for _, weight in evaluation.batches] == SIZES
    assert [value for value, _ in evaluation.batches] == pytest.approx(losses, rel=1e-6)
    assert evaluation.value == pytest.approx(sum(map(float.__mul__, losses, SIZES)) / sum(SIZES), rel=1e-6)


def test_an_interrupted_look_at_the_module_leaves_no_batch_behind() -> None:
    class Fails(Module):
        fails = True

        def validation_step(self, batch: Any, *at: Any) -> Any:
            super().validation_step(batch)
            if at[0] == 1 and Fails.fails:
                Fails.fails = False
                raise RuntimeError("it wants another beginning")

    evaluation, losses = judged(Fails, validation())

    assert [value for value, _ in evaluation.batches] == pytest.approx(losses, rel=1e-6)


def test_of_two_loaders_the_parts_are_those_of_the_one_that_the_value_is_of() -> None:
    evaluation, losses = judged(Module, [validation(), validation(11)])

    assert [weight for _, weight in evaluation.batches] == SIZES
    assert [value for value, _ in evaluation.batches] == pytest.approx(losses, rel=1e-6)


def test_the_loader_of_the_value_may_be_any() -> None:
    class BySecond(Module):
        monitor = "val_loss/dataloader_idx_1"

    evaluation, _ = judged(BySecond, [validation(), validation(11)])

    assert [weight for _, weight in evaluation.batches] == [8.0, 3.0]


class Returns(Module):
    def validation_step(self, batch: Any, *_: Any) -> Any:
        return self.loss(batch)


def test_a_loss_that_is_returned_comes_with_its_batches_which_weigh_the_same() -> None:
    evaluation, losses = judged(Returns, validation())

    assert [value for value, _ in evaluation.batches] == pytest.approx(losses, rel=1e-6)
    assert [weight for _, weight in evaluation.batches] == [1.0] * 4
    assert evaluation.value == pytest.approx(sum(losses) / 4)


class Trains(Module):
    """Has no validation."""

    validation_step = L.LightningModule.validation_step


class LogsTraining(Trains):
    monitor = "fit_loss"

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("fit_loss", loss)
        return loss


@pytest.mark.parametrize("module", [Trains, LogsTraining])
def test_batches_held_back_are_the_parts_of_their_mean(module: type[Module]) -> None:
    evaluation, _ = judged(module, None)

    assert [weight for _, weight in evaluation.batches] == [1.0] * 8


# --- alone ----------------------------------------------------------------------------------------


class OfObject(Module):
    def __init__(self) -> None:
        super().__init__()
        self.metric = torchmetrics.MeanMetric()

    def validation_step(self, batch: Any, *_: Any) -> Any:
        self.metric(self.loss(batch))
        self.log("val_loss", self.metric)


class AtTheEnd(Module):
    def validation_step(self, batch: Any, *_: Any) -> Any:
        self.latest = self.loss(batch)

    def on_validation_epoch_end(self) -> None:
        self.log("val_loss", self.latest)


class TheLargest(Module):
    def validation_step(self, batch: Any, *_: Any) -> Any:
        self.log("val_loss", self.loss(batch), reduce_fx="max")


class NoNumber(Module):
    def validation_step(self, batch: Any, *_: Any) -> Any:
        self.log("val_loss", self.loss(batch) * torch.nan)


class Replaced(Module):
    """Logs each batch, and at the end of the epoch another value under the same name."""

    def on_validation_epoch_end(self) -> None:
        self.log("val_loss", torch.tensor(5.0))


class TrainingAtTheEnd(Trains):
    monitor = "fit_loss"

    def on_train_epoch_end(self) -> None:
        self.log("fit_loss", torch.tensor(5.0))


class TheLargestOfTraining(Trains):
    monitor = "fit_loss"

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("fit_loss", loss, reduce_fx="max")
        return loss


ALONE = {
    "a metric object": (OfObject, True),
    "logged at the end of the epoch": (AtTheEnd, True),
    "another reduction": (TheLargest, True),
    "no number": (NoNumber, True),
    "another value in its place": (Replaced, True),
    "held back, at the end of the epoch": (TrainingAtTheEnd, False),
    "held back, another reduction": (TheLargestOfTraining, False),
}


@pytest.mark.parametrize("module, validates", ALONE.values(), ids=ALONE)
def test_a_value_that_is_no_mean_of_batches_comes_alone(module: type[Module], validates: bool) -> None:
    evaluation, _ = judged(module, validation() if validates else None)

    assert evaluation.batches == ()


# --- the other name -------------------------------------------------------------------------------


def test_the_parts_are_the_same_under_the_other_name_of_lightning() -> None:
    root = Path(__file__).parents[2]
    tests = ["-k", "a_logged_mean or two_loaders or alone"]

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "tests.support.other_name", __file__, *tests],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout
