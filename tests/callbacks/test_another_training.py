"""A search that was interrupted goes on for the same training, and for no other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from optselect import AutoOptimizer, Budget
from tests.support.cases import case
from tests.support.modules import TRAINER
from tests.support.small import vectors

BUDGET = Budget(steps=40)


class Interrupted(L.Callback):
    """Ends the fit when the search is over: its study is not used up."""

    def on_train_start(self, *_: Any) -> None:
        raise RuntimeError("killed")


class Net(L.LightningModule):
    def __init__(self, lr: float = 1e-2, dropout: float = 0.1, smoothing: float = 0.0, note: str = "") -> None:
        super().__init__()
        self.save_hyperparameters("note")
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 8), nn.Dropout(dropout), nn.Tanh(), nn.Linear(8, 3))
        self.lr, self.smoothing = lr, smoothing

    def loss(self, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1], label_smoothing=self.smoothing)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class Scheduled(Net):
    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 3)]


def told(folder: Path, caplog: pytest.LogCaptureFixture, kind: type[Net] = Net, **changed: Any) -> str:
    """What the log says of the study when a training is begun in `folder`, with `changed` arguments."""
    data = changed.pop("data", vectors(96))
    validation = changed.pop("validation", vectors(48))
    names = ("gradient_clip_val", "accumulate_grad_batches", "precision", "limit_val_batches", "max_epochs")
    options = {"max_epochs": 2, **{name: changed.pop(name) for name in names if name in changed}}
    auto = AutoOptimizer(budget=BUDGET, report=False, candidates=["user", "sgd"])
    trainer = L.Trainer(
        **TRAINER,
        default_root_dir=folder,
        callbacks=[auto, Interrupted()],
        **options,
    )
    caplog.clear()
    torch.manual_seed(0)
    with caplog.at_level(logging.INFO, logger="optselect"), pytest.raises(RuntimeError, match="killed"):
        trainer.fit(kind(**changed), DataLoader(data, 16, shuffle=True), DataLoader(validation, 16))
    lines = [message for message in caplog.messages if "stud" in message]
    assert len(lines) <= 1
    return lines[0] if lines else ""


def mended(dataset: TensorDataset) -> TensorDataset:
    inputs, labels = dataset.tensors
    return TensorDataset(inputs, labels.where(torch.arange(len(labels)) % 10 != 3, (labels + 1) % 3))


CHANGES: Mapping[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "its own rate": (lambda: {"lr": 3.0}, "own optimizer"),
    "its own scheduler": (lambda: {"kind": Scheduled}, "own optimizer"),
    "dropout": (lambda: {"dropout": 0.5}, "model"),
    "the loss": (lambda: {"smoothing": 0.3}, "gradients"),
    "hyperparameters": (lambda: {"note": "second"}, "hyperparameters"),
    "labels mended in the training data": (lambda: {"data": mended(vectors(96))}, "training data"),
    "labels mended in the validation data": (lambda: {"validation": mended(vectors(48))}, "validation data"),
    "another fold": (
        lambda: {"validation": torch.utils.data.Subset(vectors(96), range(48, 96))},
        "validation data",
    ),
    "clipping": (lambda: {"gradient_clip_val": 0.1}, "trainer"),
    "accumulation": (lambda: {"accumulate_grad_batches": 2}, "trainer"),
    "precision": (lambda: {"precision": "64-true"}, "trainer"),
    "fewer validation batches": (lambda: {"limit_val_batches": 2}, "trainer"),
    "a longer training": (lambda: {"max_epochs": 3}, "length"),
}


def test_an_unchanged_training_goes_on_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = told(tmp_path, caplog)

    again = told(tmp_path, caplog)

    assert first == ""
    assert "the search goes on with the" in again


def test_a_changed_training_meets_no_old_trial_and_is_told_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, (name, (changed, what)) in enumerate(CHANGES.items()):
        with case(name):
            folder = tmp_path / str(number)
            told(folder, caplog)

            said = told(folder, caplog, **changed())

            assert "is not continued" in said
            assert what in said


def test_a_fit_that_searches_nothing_says_nothing_of_a_search(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    auto = AutoOptimizer(budget=0, report=False)
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[auto],
    )

    with caplog.at_level(logging.INFO, logger="optselect"):
        trainer.fit(Net(), DataLoader(vectors(48), 16), DataLoader(vectors(48), 16))

    ours = [record.getMessage() for record in caplog.records if record.name == "optselect"]
    assert [message for message in ours if "written" not in message] == []
