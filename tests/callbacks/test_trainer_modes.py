"""However the trainer is used, the run is the hand-written one, and only a real fit searches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.tuner.tuning import Tuner
from torch import Tensor
from torch.utils.data import DataLoader

from optselect import AutoOptimizer, Budget, BudgetError
from tests.support.comparison import Scenario, differences, fitting, searched, trainer_in
from tests.support.kinds import SeveralValidations, Stream, TrainsOnly
from tests.support.modules import (
    BATCH,
    Classifier,
    WithOptimizer,
    auto,
    equal_states,
    fit,
    in_trial,
    loaders,
    made,
    rows,
)


class Predicts(Classifier):
    """Can be tested and asked, too."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_loss", torch.nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(batch[0])  # type: ignore[no-any-return]


class WithRate(Classifier):
    """Has the attributes that the tuner sets."""

    def __init__(self) -> None:
        super().__init__()
        self.lr = 0.1
        self.batch_size = 8

    def train_dataloader(self) -> Any:
        return DataLoader(rows(), batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> Any:
        return loaders()[1]


class EachEpoch(Classifier):
    """Its own scheduler counts epochs."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.3)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


class Watched(Classifier):
    """Its own scheduler watches the validation loss, in the middle of the epochs too."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
        scheduling = {"scheduler": scheduler, "monitor": "val_loss", "interval": "step", "frequency": 5}
        return {"optimizer": optimizer, "lr_scheduler": scheduling}


def stream() -> Any:
    return DataLoader(Stream(), batch_size=BATCH), loaders()[1]


def everything(module: Any, callbacks: list[L.Callback], folder: Path) -> L.Trainer:
    trainer = trainer_in(folder, callbacks)
    train, val = loaders()
    trainer.validate(module, val, verbose=False)
    trainer.test(module, val, verbose=False)
    trainer.predict(module, val)
    trainer.fit(module, train, val)
    trainer.validate(module, val, verbose=False)
    trainer.test(module, val, verbose=False)
    trainer.predict(module, val)
    return trainer


def fit_twice(module: Any, callbacks: list[L.Callback], folder: Path) -> L.Trainer:
    train, val = loaders()
    trainer_in(folder, callbacks).fit(module, train, val)
    trainer = trainer_in(folder, callbacks)
    trainer.fit(module, train, val)
    return trainer


def fit_on(module: Any, callbacks: list[L.Callback], folder: Path) -> L.Trainer:
    """Two more epochs on the same trainer."""
    train, val = loaders()
    trainer = trainer_in(folder, callbacks)
    trainer.fit(module, train, val)
    trainer.fit_loop.max_epochs = 4
    trainer.fit(module, train, val)
    return trainer


def validate_a_checkpoint_first(module: Any, callbacks: list[L.Callback], folder: Path) -> L.Trainer:
    """The checkpoint holds a plan of another training, with SGD."""
    train, val = loaders()
    if not (folder / "other.ckpt").exists():
        other = auto(folder, candidates=["sgd"], budget=0)
        fit(made(Classifier, seed=5), other).save_checkpoint(folder / "other.ckpt")
        torch.manual_seed(1)
    trainer = trainer_in(folder, callbacks)
    trainer.validate(module, val, ckpt_path=folder / "other.ckpt", verbose=False)
    trainer.fit(module, train, val)
    return trainer


def find_a_rate_first(module: Any, callbacks: list[L.Callback], folder: Path) -> L.Trainer:
    trainer = trainer_in(folder, callbacks)
    Tuner(trainer).lr_find(module, num_training=20, update_attr=False)
    trainer.fit(module)
    return trainer


def find_a_batch_size_first(module: Any, callbacks: list[L.Callback], folder: Path) -> L.Trainer:
    trainer = trainer_in(folder, callbacks)
    Tuner(trainer).scale_batch_size(module, max_trials=2, steps_per_trial=1, init_val=8)
    trainer.fit(module)
    return trainer


MODES: dict[str, tuple[Scenario, type[L.LightningModule]]] = {
    "validate, test and predict before and after": (everything, Predicts),
    "fit twice": (fit_twice, Classifier),
    "fit twice, its own optimizer": (fit_twice, WithOptimizer),
    "fit on": (fit_on, Classifier),
    "validate a checkpoint, then fit": (validate_a_checkpoint_first, Classifier),
    "lr_find, then fit": (find_a_rate_first, WithRate),
    "scale_batch_size, then fit": (find_a_batch_size_first, WithRate),
    "overfit_batches": (fitting(overfit_batches=2), Classifier),
    "limit_*": (fitting(limit_train_batches=0.5, limit_val_batches=0.5), Classifier),
    "max_time": (fitting(max_time={"hours": 1}), Classifier),
    "max_steps": (fitting(max_steps=17), Classifier),
    "max_steps and max_epochs=-1": (fitting(max_steps=17, max_epochs=-1), Classifier),
    "min_epochs and min_steps": (fitting(min_epochs=1, min_steps=20), Classifier),
    "no validation loader": (fitting(data=lambda: (loaders()[0], None)), TrainsOnly),
    "limit_val_batches=0": (fitting(limit_val_batches=0), Classifier),
    "several validation loaders": (
        fitting(data=lambda: (loaders()[0], [loaders()[1], DataLoader(rows(16), batch_size=4)])),
        SeveralValidations,
    ),
    "stream without length": (fitting(data=stream), Classifier),
    "stream without length, max_steps": (fitting(data=stream, max_steps=17), Classifier),
    "GradientAccumulationScheduler": (
        fitting(lambda: [GradientAccumulationScheduler({0: 2, 1: 4})]),
        Classifier,
    ),
    "num_sanity_val_steps=0": (fitting(num_sanity_val_steps=0), Classifier),
    "num_sanity_val_steps=-1": (fitting(num_sanity_val_steps=-1), Classifier),
    "barebones": (
        fitting(
            barebones=True,
            logger=None,
            enable_checkpointing=None,
            enable_progress_bar=None,
            enable_model_summary=None,
        ),
        Classifier,
    ),
    "detect_anomaly": (fitting(detect_anomaly=True), Classifier),
    "deterministic": (fitting(deterministic=True), Classifier),
    "check_val_every_n_epoch": (fitting(check_val_every_n_epoch=2), Classifier),
    "validation across epochs": (fitting(val_check_interval=5, check_val_every_n_epoch=None), Classifier),
    "profiler": (fitting(profiler="simple"), Classifier),
    "inference_mode=False": (fitting(inference_mode=False), Classifier),
    "double precision": (fitting(precision="64-true"), Classifier),
    "a scheduler of epochs of its own": (fitting(max_epochs=4), EachEpoch),
    "a plateau scheduler of its own": (fitting(max_epochs=4, val_check_interval=5), Watched),
}

pytestmark = pytest.mark.filterwarnings(
    "ignore:You requested to overfit:UserWarning",
    "ignore:You are trying to `self.log:UserWarning",  # barebones
    "ignore:Be aware that when using `ckpt_path`:UserWarning",
)


@pytest.fixture(autouse=True)
def _nondeterministic_again() -> Any:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", MODES)
def test_the_run_is_the_hand_written_one(name: str, tmp_path: Path) -> None:
    scenario, module_type = MODES[name]

    different = differences(scenario, tmp_path, module_type)

    assert different == []


def test_a_second_fit_searches_nothing(tmp_path: Path) -> None:
    callback = auto(tmp_path)
    fit(made(Classifier), callback)
    first, study = callback.plan, callback.study

    fit(made(Classifier), callback)

    assert callback.plan is first
    assert callback.study is study


def test_validating_a_checkpoint_does_not_take_its_plan(tmp_path: Path) -> None:
    other = auto(tmp_path / "other", candidates=["sgd"], budget=0)
    fit(made(Classifier, seed=5), other).save_checkpoint(tmp_path / "other.ckpt")
    callback = auto(tmp_path, candidates=["adamw"])
    trainer = trainer_in(tmp_path, [callback])
    module, (train, val) = made(Classifier), loaders()

    trainer.validate(module, val, ckpt_path=tmp_path / "other.ckpt", verbose=False)
    trainer.fit(module, train, val)

    assert callback.plan is not None
    assert callback.plan.optimizer == "adamw"
    assert callback.plan.trials != ()


@pytest.mark.parametrize("tune", ["lr_find", "scale_batch_size"])
def test_a_tuner_searches_nothing(tune: str, tmp_path: Path) -> None:
    callback = auto(tmp_path)
    module: Any = made(WithRate)
    trainer = trainer_in(tmp_path, [callback])

    if tune == "lr_find":
        Tuner(trainer).lr_find(module, num_training=20)
    else:
        Tuner(trainer).scale_batch_size(module, max_trials=2, steps_per_trial=1)

    assert callback.plan is None
    assert callback.study is None
    assert "configure_optimizers" not in vars(module)


@pytest.mark.parametrize("kind", [Classifier, WithOptimizer])
def test_a_fast_development_run_searches_nothing_and_leaves_the_search_to_the_fit(
    kind: type[L.LightningModule], tmp_path: Path
) -> None:
    callback = auto(tmp_path)
    module = made(kind)

    fit(module, callback, fast_dev_run=True)
    assert callback.plan is None
    assert "configure_optimizers" not in vars(module)
    fit(module, callback)

    assert callback.plan is not None


def test_a_fast_development_run_tries_the_plan_it_is_given(tmp_path: Path) -> None:
    first = auto(tmp_path, candidates=["momentum"], budget=0)
    fit(made(Classifier), first)

    trainer = fit(made(Classifier), AutoOptimizer(plan=first.plan), fast_dev_run=True)

    assert isinstance(trainer.optimizers[0], torch.optim.SGD)


# --- unknown lengths ------------------------------------------------------------------------------

UNKNOWN: dict[str, tuple[Callable[[], Any], Callable[[], list[L.Callback]], dict[str, Any]]] = {
    "stream": (stream, list, {}),
    "max_time": (loaders, list, {"max_time": {"hours": 1}}),
    "GradientAccumulationScheduler": (loaders, lambda: [GradientAccumulationScheduler({0: 2, 1: 4})], {}),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_without_a_known_length_only_schedules_that_need_none_are_proposed(name: str, tmp_path: Path) -> None:
    data, callbacks, kwargs = UNKNOWN[name]

    auto, _ = searched(fitting(callbacks, data, **kwargs), tmp_path)

    plan = auto.plan
    assert plan is not None
    assert plan.total_steps is None
    assert {trial.configuration.schedule.kind for trial in plan.trials} == {"constant"}
    assert plan.schedule.kind == "constant"


@pytest.mark.parametrize("name", UNKNOWN)
def test_without_a_known_length_a_share_of_it_is_refused(name: str, tmp_path: Path) -> None:
    data, callbacks, kwargs = UNKNOWN[name]
    module = made(Classifier)
    before = {key: value.clone() for key, value in module.state_dict().items()}

    with pytest.raises(BudgetError, match=r"Budget\(steps=\.\.\.\)"):
        fit(module, auto(tmp_path, budget=0.5), *callbacks(), data=data(), **kwargs)

    assert equal_states(module.state_dict(), before)
    assert "configure_optimizers" not in vars(module)


def test_without_a_known_length_the_default_is_modest(tmp_path: Path) -> None:
    callback = auto(tmp_path, budget=None, candidates=["momentum"])

    fit(made(Classifier), callback, data=stream())

    assert callback.plan is not None
    assert 0 < callback.plan.search_steps <= 1_000


# --- validation -----------------------------------------------------------------------------------


def test_of_a_huge_validation_set_a_bounded_part_is_looked_at(tmp_path: Path) -> None:
    validations: list[int] = []

    class Counts(Classifier):
        def on_validation_epoch_start(self) -> None:
            validations.append(0)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            super().validation_step(batch, batch_idx)
            validations[-1] += in_trial(self)

    huge = loaders()[0], DataLoader(rows(800), batch_size=4)

    fit(made(Counts), auto(tmp_path, budget=Budget(steps=120)), data=huge)

    assert max(validations) == 64


def test_without_validation_trials_are_judged_on_batches_they_do_not_train_on(tmp_path: Path) -> None:
    callback = auto(tmp_path)

    fit(made(TrainsOnly), callback, data=(loaders()[0], None))

    assert callback.plan is not None
    assert callback.plan.monitor == "training loss on held-back batches"
    assert all(trial.value is not None for trial in callback.plan.trials)
