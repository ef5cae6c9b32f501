"""Every optimizer of the catalogue resumes exactly, and schedule-free ones are saved as they were judged."""

from __future__ import annotations

import functools
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, cast, get_args

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, OnExceptionCheckpoint

from optselect import AutoOptimizer, OptimizerPlan, catalogue
from optselect.configuration.schedule import Schedule, ScheduleKind
from tests.support.modules import (
    Classifier,
    SparseClassifier,
    Stateful,
    StopAfter,
    auto,
    equal_states,
    fit,
    loaders,
    made,
    rows,
    tokens,
)
from tests.support.pairs import in_turn, manner, parameters

NAMES = [name for name in catalogue.names() if catalogue.get(name).available]
MODES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "accumulate 2": {"accumulate_grad_batches": 2},
}
# Accumulated, the closure of LBFGS sees one batch of each sum; the weights are not finite soon, by hand either.
_DIVERGE = {("lbfgs", "accumulate 2")}
_MODES_OF_EACH = [pair for pair in product(NAMES, MODES) if pair not in _DIVERGE]
_KINDS_OF_EACH = list(product(NAMES, get_args(ScheduleKind)))


def kind_for(name: str) -> Any:
    return Classifier if catalogue.get(name).dense else SparseClassifier


def data_for(kind: Any) -> Any:
    return loaders(tokens) if kind is SparseClassifier else loaders()


@pytest.mark.slow
@pytest.mark.parametrize("name, mode", parameters(_MODES_OF_EACH, in_turn(NAMES, [*MODES], manner, _DIVERGE)))
def test_an_interrupted_and_resumed_run_equals_the_uninterrupted_one(name: str, mode: str, tmp_path: Path) -> None:
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


@functools.cache
def plan_for(name: str) -> OptimizerPlan:
    """What the rules would take of that optimizer for twelve steps."""
    callback = AutoOptimizer(candidates=[name], budget=0, report=False)
    fit(made(kind_for(name)), callback, data=data_for(kind_for(name)), max_steps=12)
    assert callback.plan is not None
    return callback.plan


@pytest.mark.slow
@pytest.mark.parametrize("name, kind", parameters(_KINDS_OF_EACH, in_turn(NAMES, get_args(ScheduleKind), manner)))
def test_every_optimizer_goes_on_exactly_where_its_schedule_was(name: str, kind: str, tmp_path: Path) -> None:
    """In the warmup, at the end of an epoch and of the peak, and in the decay, two of them in an epoch's middle."""
    module = kind_for(name)
    schedule = Schedule(kind=cast("ScheduleKind", kind), warmup_steps=5, final=0.1, decay=0.5)
    plan = plan_for(name)
    plan = replace(plan, configuration=replace(plan.configuration, schedule=schedule))

    def run(seed: int, folder: Path, callback: AutoOptimizer, ckpt_path: Path | None = None) -> tuple[Any, ...]:
        loader = Stateful((tokens if module is SparseClassifier else rows)(48)), data_for(module)[1]
        saving = [ModelCheckpoint(folder, filename="{step}", save_top_k=-1, every_n_train_steps=4), Saves(folder)]
        trained = made(module, seed=seed)
        trainer = fit(
            trained, callback, *saving, data=loader, seed=seed, ckpt_path=ckpt_path, enable_checkpointing=True
        )
        return trained.state_dict(), trainer.optimizers[0].state_dict(), rates(trainer)

    whole = run(0, tmp_path / "whole", AutoOptimizer(plan=plan, report=False))
    equal = {
        name: equal_states(run(5, tmp_path / name, AutoOptimizer(report=False), tmp_path / f"whole/{name}.ckpt"), whole)
        for name in ("step=4", "0", "step=8")
    }

    assert all(equal.values()), equal


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

    def __init__(self, path: Path, *, weights_only: bool = False) -> None:
        self.path, self.weights_only = path, weights_only
        self.loss = float("nan")

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == 17:
            trainer.save_checkpoint(self.path, weights_only=self.weights_only)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == 17:
            self.loss = float(trainer.callback_metrics["val_loss"])


@pytest.mark.parametrize("name", [name for name in NAMES if catalogue.get(name).train_eval])
@pytest.mark.parametrize("way", ["epoch", "steps", "save_last", "by hand", "by hand, weights alone"])
def test_a_schedule_free_checkpoint_holds_the_weights_that_were_judged(name: str, way: str, tmp_path: Path) -> None:
    by_hand = ByHand(tmp_path / "saved.ckpt", weights_only=way == "by hand, weights alone")
    saving: dict[str, L.Callback] = {
        "epoch": ModelCheckpoint(tmp_path, filename="saved"),
        "steps": ModelCheckpoint(tmp_path, filename="saved", every_n_train_steps=12),
        "save_last": ModelCheckpoint(tmp_path, filename="best", save_last=True),
        "by hand": by_hand,
        "by hand, weights alone": by_hand,
    }
    often = {"val_check_interval": 1} if saving[way] is by_hand else {}
    callback = auto(tmp_path, candidates=[name], budget=0)
    trainer = fit(made(Classifier), callback, saving[way], enable_checkpointing=True, **often)
    logged = by_hand.loss if saving[way] is by_hand else float(trainer.callback_metrics["val_loss"])

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


def test_schedule_free_weights_are_the_ones_to_use_when_an_exception_has_ended_the_training(tmp_path: Path) -> None:
    choice: dict[str, Any] = {"candidates": ["schedulefree_adamw"], "budget": 0}
    saving, module = ByHand(tmp_path / "whole.ckpt"), made(Classifier)
    fit(made(Classifier), auto(tmp_path, **choice), saving)

    with pytest.raises(RuntimeError, match="a bug"):
        fit(module, auto(tmp_path, **choice), Breaks())

    assert equal_states(module.state_dict(), torch.load(saving.path, weights_only=True)["state_dict"])


@pytest.mark.parametrize("name", [name for name in NAMES if catalogue.get(name).train_eval])
@pytest.mark.parametrize(
    "seldom", [{"limit_val_batches": 0}, {"val_check_interval": 5}, {"check_val_every_n_epoch": 2}]
)
def test_at_an_epochs_end_a_checkpoint_is_exact_that_the_uninterrupted_run_never_wrote(
    seldom: dict[str, Any], name: str, tmp_path: Path
) -> None:
    """Schedule-free weights round when they are judged or saved."""
    choice: dict[str, Any] = {"candidates": [name], "budget": 0}
    whole, rest = made(Classifier), made(Classifier, seed=5)
    fit(whole, auto(tmp_path / "a", **choice), epochs=3, **seldom)
    fit(made(Classifier), auto(tmp_path / "b", **choice), Saves(tmp_path), StopAfter(1), epochs=3, **seldom)

    fit(rest, auto(tmp_path / "c", **choice), epochs=3, seed=9, ckpt_path=tmp_path / "0.ckpt", **seldom)

    assert equal_states(rest.state_dict(), whole.state_dict())


@pytest.mark.parametrize("name", ["adamw", "muon", "schedulefree_adamw"])
@pytest.mark.parametrize("first", [True, False])
def test_averaged_weights_are_saved_and_go_on_beside_those_that_train(first: bool, name: str, tmp_path: Path) -> None:
    """Whichever of the two callbacks is asked first."""

    def company(folder: str) -> list[L.Callback]:
        averaging, callback = (
            EMAWeightAveraging(decay=0.9),
            auto(tmp_path / folder, candidates=[name], budget=0),
        )
        return [*((averaging, callback) if first else (callback, averaging)), Saves(tmp_path / folder)]

    whole, rest = made(Classifier), made(Classifier, seed=5)
    fit(whole, *company("whole"), epochs=3)

    fit(rest, *company("rest"), epochs=3, seed=9, ckpt_path=tmp_path / "whole/1.ckpt")

    assert equal_states(rest.state_dict(), whole.state_dict())
