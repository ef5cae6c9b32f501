"""Every optimizer of the catalogue resumes exactly, and schedule-free ones are saved as they were judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint

from optselect import AutoOptimizer, catalogue
from optselect.schedules import Schedule, ScheduleKind
from tests.callbacks.modules import (
    Classifier,
    SparseClassifier,
    StopAfter,
    auto,
    equal_states,
    fit,
    loaders,
    made,
    rows,
    tokens,
)

NAMES = [name for name in catalogue.names() if catalogue.get(name).available]
MODES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "accumulate 2": {"accumulate_grad_batches": 2},
}
# Lightning refuses LBFGS with mixed precision; accumulated, its closure sees one batch of each sum and diverges.
_REFUSED = {("lbfgs", "bf16-mixed"), ("lbfgs", "accumulate 2")}


def kind_for(name: str) -> Any:
    return Classifier if catalogue.get(name).dense else SparseClassifier


def data_for(kind: Any) -> Any:
    return loaders(tokens) if kind is SparseClassifier else loaders()


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_and_resumed_run_equals_the_uninterrupted_one(name: str, mode: str, tmp_path: Path) -> None:
    if (name, mode) in _REFUSED:
        pytest.skip("no one can train like this by hand either")
    kind = kind_for(name)
    choice = {"candidates": [name], "budget": 0}

    whole = made(kind)
    uninterrupted = fit(
        whole, auto(tmp_path / "a", **choice), Saves(tmp_path), data=data_for(kind), epochs=3, **MODES[mode]
    )
    fit(
        made(kind),
        auto(tmp_path / "b", **choice),
        Saves(tmp_path / "half"),
        StopAfter(2),
        data=data_for(kind),
        epochs=3,
        **MODES[mode],
    )
    continued = made(kind, seed=5)
    resumed = fit(
        continued,
        auto(tmp_path / "c", **choice),
        Saves(tmp_path / "rest"),
        data=data_for(kind),
        epochs=3,
        seed=9,
        ckpt_path=tmp_path / "half/1.ckpt",
        **MODES[mode],
    )

    assert equal_states(continued.state_dict(), whole.state_dict())
    assert equal_states(resumed.optimizers[0].state_dict(), uninterrupted.optimizers[0].state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "schedulefree_sgd", "muon", "sparse_adam"])
@pytest.mark.parametrize("kind", get_args(ScheduleKind))
def test_every_schedule_goes_on_where_it_was(kind: str, name: str, tmp_path: Path) -> None:
    """In the warmup, at the peak and in the decay; also of optimizers made of two."""
    module, choice = kind_for(name), {"candidates": [name], "budget": 0}
    ruled = auto(tmp_path / "ruled", **choice)
    fit(made(module), ruled, data=data_for(module), epochs=3, default_root_dir=tmp_path)
    assert ruled.plan is not None
    schedule = Schedule(kind=cast("ScheduleKind", kind), warmup_steps=15, final=0.1, decay=0.5)
    plan = replace(ruled.plan, schedule=schedule)

    whole = made(module)
    uninterrupted = fit(whole, AutoOptimizer(plan=plan, report=False), data=data_for(module), epochs=3)
    for epochs in (1, 2):
        half = fit(
            made(module), AutoOptimizer(plan=plan, report=False), StopAfter(epochs), data=data_for(module), epochs=3
        )
        half.save_checkpoint(tmp_path / "half.ckpt")
        continued = made(module, seed=5)
        resumed = fit(
            continued,
            AutoOptimizer(report=False),
            data=data_for(module),
            epochs=3,
            seed=9,
            ckpt_path=tmp_path / "half.ckpt",
        )

        assert equal_states(continued.state_dict(), whole.state_dict())
        assert equal_states(rates(resumed), rates(uninterrupted))


def rates(trainer: Any) -> list[Any]:
    """Of each group, and what the scheduler knows."""
    groups = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
    return [groups, *(config.scheduler.state_dict() for config in trainer.lr_scheduler_configs)]


class Saves(L.Callback):
    """A checkpoint at each epoch's end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.current_epoch}.ckpt")


def judged(path: Path) -> float:
    """The validation loss of the weights in a checkpoint."""
    module = Classifier()
    module.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    module.eval()
    with torch.no_grad():
        inputs, targets = rows(32).tensors
        return float(F.cross_entropy(module.net(inputs), targets))


class ByHand(L.Callback):
    """Saves in the middle of an epoch, before the validation of the same weights, whose loss it notes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.loss = float("nan")

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == 17:
            trainer.save_checkpoint(self.path)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == 17:
            self.loss = float(trainer.callback_metrics["val_loss"])


@pytest.mark.parametrize("name", [name for name in NAMES if catalogue.get(name).train_eval])
@pytest.mark.parametrize("way", ["epoch", "steps", "save_last", "by hand"])
def test_a_schedule_free_checkpoint_holds_the_weights_that_were_judged(name: str, way: str, tmp_path: Path) -> None:
    by_hand = ByHand(tmp_path / "saved.ckpt")
    saving: dict[str, L.Callback] = {
        "epoch": ModelCheckpoint(tmp_path, filename="saved"),
        "steps": ModelCheckpoint(tmp_path, filename="saved", every_n_train_steps=12),
        "save_last": ModelCheckpoint(tmp_path, filename="best", save_last=True),
        "by hand": by_hand,
    }
    often = {"val_check_interval": 1} if way == "by hand" else {}
    callback = auto(tmp_path, candidates=[name], budget=0)
    trainer = fit(made(Classifier), callback, saving[way], enable_checkpointing=True, **often)
    logged = by_hand.loss if way == "by hand" else float(trainer.callback_metrics["val_loss"])

    saved = judged(tmp_path / ("last.ckpt" if way == "save_last" else "saved.ckpt"))

    assert saved == pytest.approx(logged, abs=1e-6)


class Breaks(L.Callback):
    """Stands for a bug, between an optimizer step and the validation of its weights."""

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == 17:
            raise RuntimeError("a bug")


# Beside an OnExceptionCheckpoint Lightning looks for an earlier exception's checkpoint, and says that there is none.
@pytest.mark.filterwarnings(r"ignore:.?\.fit\(ckpt_path=")
@pytest.mark.parametrize("name", [name for name in NAMES if catalogue.get(name).train_eval])
@pytest.mark.parametrize("kind", [ModelCheckpoint, OnExceptionCheckpoint])
def test_a_schedule_free_checkpoint_saved_on_an_exception_holds_the_weights_to_be_judged(
    kind: Any, name: str, tmp_path: Path
) -> None:
    choice: dict[str, Any] = {"candidates": [name], "budget": 0}
    whole = ByHand(tmp_path / "whole.ckpt")
    fit(made(Classifier), auto(tmp_path, **choice), whole, val_check_interval=1)
    saving = (
        ModelCheckpoint(tmp_path / "broken", filename="saved", save_on_exception=True, every_n_epochs=10)
        if kind is ModelCheckpoint
        else OnExceptionCheckpoint(tmp_path / "broken", "saved")
    )
    with pytest.raises(RuntimeError, match="a bug"):
        fit(
            made(Classifier),
            auto(tmp_path, **choice),
            Breaks(),
            saving,
            val_check_interval=1,
            enable_checkpointing=True,
        )

    saved = judged(tmp_path / "broken/saved.ckpt")

    assert saved == pytest.approx(whole.loss, abs=1e-6)
