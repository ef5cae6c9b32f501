"""A plan's schedule moves as the plan says, whoever steps it; and where nobody does, the plan has none."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from optselect import OptimizerPlan
from optselect.callbacks.schedules import ScheduleWarning
from optselect.configuration import USER
from tests.support.kinds import Manual
from tests.support.modules import Classifier, StopAfter, auto, equal_states, fit, in_trial, loaders, made, rows

EPOCHS = 4
STEPS = EPOCHS * 12


class Watched(Classifier):
    """Keeps the rate that each batch of the real training was trained at."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        if not in_trial(self):
            self.rates.append(optimizer.param_groups[0]["lr"])


class NobodySteps(Watched):
    """Manual optimization without a scheduler."""

    every = 1

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        optimizer: Any = self.optimizers()
        self.manual_backward(F.cross_entropy(self.net(batch[0]), batch[1]))
        if (batch_idx + 1) % self.every == 0:
            optimizer.step()
            optimizer.zero_grad()
            self.move()

    def move(self) -> None:
        """Step the scheduler."""


class StepsEachBatch(NobodySteps):
    """As Lightning's documentation has it."""

    def move(self) -> None:
        schedulers: Any = self.lr_schedulers()
        schedulers.step()


class StepsEachThirdBatch(StepsEachBatch):
    """Accumulates by itself."""

    every = 3


class StepsAtEndsOfEpochs(NobodySteps):
    """As with a StepLR of one's own."""

    def on_train_epoch_end(self) -> None:
        schedulers: Any = self.lr_schedulers()
        schedulers.step()


class StepsByAMetric(NobodySteps):
    """As with a ReduceLROnPlateau of one's own."""

    def on_train_epoch_end(self) -> None:
        schedulers: Any = self.lr_schedulers()
        schedulers.step(self.trainer.callback_metrics["val_loss"])


class StepsThroughTheTrainer(NobodySteps):
    """Finds its scheduler where Lightning keeps it."""

    def move(self) -> None:
        self.trainer.lr_scheduler_configs[0].scheduler.step()  # type: ignore[call-arg]


class HasItsOwn(StepsEachBatch):
    """Brings a scheduler, which it steps with each batch."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=1e-6)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)]


class ByTheEpoch(Watched):
    """Lightning's documented override for timm's schedulers."""

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        scheduler.step(epoch=self.current_epoch)


class ByUpdates(Watched):
    """Another of timm's ways, which torch's schedulers do not know."""

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        scheduler.step_update(num_updates=self.global_step)


class EachFifthStep(Watched):
    """Steps now and then."""

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        if self.global_step % 5 == 0:
            scheduler.step()


class AtLastBatches(Watched):
    """Steps once an epoch, which it tells from the trainer."""

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        if self.trainer.is_last_batch:
            scheduler.step()


class BesideLightning(Watched):
    """Steps what Lightning steps, too."""

    def on_train_batch_end(self, *_: Any) -> None:
        schedulers: Any = self.lr_schedulers()
        schedulers.step()


MOVES = [Watched, StepsEachBatch, StepsThroughTheTrainer, HasItsOwn, ByTheEpoch]
STANDS = [
    NobodySteps,
    StepsEachThirdBatch,
    StepsAtEndsOfEpochs,
    StepsByAMetric,
    ByUpdates,
    EachFifthStep,
    AtLastBatches,
    BesideLightning,
]


def fitted(kind: type[L.LightningModule], path: Path, **settings: Any) -> tuple[Any, OptimizerPlan]:
    module = made(kind)
    callback = auto(path, candidates=["adamw"], **{"budget": 0, **settings})
    fit(module, callback, data=(loaders()[0], DataLoader(rows(), batch_size=32)), epochs=EPOCHS)
    assert callback.plan is not None
    return module, callback.plan


def promised(plan: OptimizerPlan, module: Any) -> list[float]:
    """The rates that the plan says, for each of the module's optimizer steps."""
    peak = float(plan.hyperparameters["lr"])
    return [peak * plan.schedule.factor(step, plan.total_steps) for step in range(len(module.rates))]


@pytest.mark.parametrize("budget", [0, 1.5])
@pytest.mark.parametrize("kind", [*MOVES, *STANDS])
def test_the_rates_of_a_training_are_those_of_its_plan(
    kind: type[L.LightningModule], budget: float, tmp_path: Path
) -> None:
    module, plan = fitted(kind, tmp_path, budget=budget)

    assert plan.optimizer != USER
    assert module.rates == pytest.approx(promised(plan, module))
    assert not any(trial.state == "failed" for trial in plan.trials)


@pytest.mark.parametrize("kind", MOVES)
def test_a_schedule_that_moves_with_each_step_is_kept(kind: type[L.LightningModule], tmp_path: Path) -> None:
    _, plan = fitted(kind, tmp_path)

    assert plan.schedule.kind == "cosine"
    assert plan.reasons_of("schedule") == ()


@pytest.mark.parametrize("kind", STANDS)
def test_where_no_schedule_would_move_rates_are_constant_and_the_plan_says_why(
    kind: type[L.LightningModule], tmp_path: Path
) -> None:
    _, plan = fitted(kind, tmp_path, budget=1.5)

    (why,) = plan.reasons_of("schedule")
    assert {each.configuration.schedule.kind for each in plan.trials} == {"constant"}
    assert not any(each.configuration.schedule.warmup_steps for each in plan.trials)
    assert str(why) in " ".join(plan.explain().split())


@pytest.mark.parametrize("kind", [StepsEachBatch, StepsAtEndsOfEpochs, ByTheEpoch])
def test_a_resumed_run_goes_on_with_the_rates_it_had(kind: type[L.LightningModule], tmp_path: Path) -> None:
    def callback(name: str) -> Any:
        return auto(tmp_path / name, candidates=["adamw"], budget=0)

    whole = made(kind)
    fit(whole, callback("whole"), epochs=EPOCHS)
    stopped = fit(made(kind), callback("half"), StopAfter(2), epochs=EPOCHS)
    stopped.save_checkpoint(tmp_path / "half.ckpt")

    resumed = made(kind, seed=5)
    fit(resumed, callback("later"), epochs=EPOCHS, ckpt_path=tmp_path / "half.ckpt")

    assert equal_states(resumed.state_dict(), whole.state_dict())


class StepsToo(L.Callback):
    """A callback that steps whatever schedulers there are, once an epoch."""

    def on_train_batch_end(self, trainer: L.Trainer, *given: Any) -> None:
        for config in trainer.lr_scheduler_configs if given[-1] == 0 else ():
            config.scheduler.step()  # type: ignore[call-arg]


class SetsRates(L.Callback):
    """A callback with a schedule of its own."""

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        trainer.optimizers[0].param_groups[0]["lr"] = 0.5


def test_a_callback_that_steps_the_schedule_too_is_told_of_once(tmp_path: Path) -> None:
    with pytest.warns(ScheduleWarning, match="has moved 13 times in 12 steps") as told:
        fit(made(Watched), auto(tmp_path, candidates=["adamw"], budget=0), StepsToo(), StopAfter(2), epochs=EPOCHS)

    assert len([each for each in told if each.category is ScheduleWarning]) == 1


@pytest.mark.parametrize("kind", [Classifier, Manual])
def test_rates_that_somebody_else_sets_are_told_of(kind: type[L.LightningModule], tmp_path: Path) -> None:
    with pytest.warns(ScheduleWarning, match="something beside the plan changes it"):
        fit(made(kind), auto(tmp_path, candidates=["adamw"], budget=0), SetsRates(), epochs=EPOCHS)


def test_rates_that_the_module_sets_were_those_of_its_trials_and_nothing_is_said(tmp_path: Path) -> None:
    class WarmsUp(NobodySteps):
        def move(self) -> None:
            optimizer: Any = self.optimizers()
            optimizer.param_groups[0]["lr"] = 1e-4

    with warnings.catch_warnings():
        warnings.simplefilter("error", ScheduleWarning)
        fit(made(WarmsUp), auto(tmp_path, candidates=["adamw"], budget=0), epochs=EPOCHS)


def test_a_given_plan_whose_schedule_nobody_steps_is_told_of(tmp_path: Path) -> None:
    _, plan = fitted(Watched, tmp_path)

    with pytest.warns(ScheduleWarning, match="has moved 0 times in 12 batches"):
        fit(made(NobodySteps), auto(tmp_path / "given", plan=plan), epochs=EPOCHS)


def test_the_own_optimizer_may_move_its_rates_as_it_likes(tmp_path: Path) -> None:
    class Own(HasItsOwn):
        def move(self) -> None:
            return

    callback = auto(tmp_path, candidates=[USER], budget=0)

    with warnings.catch_warnings():
        warnings.simplefilter("error", ScheduleWarning)
        fit(made(Own), callback, SetsRates(), epochs=EPOCHS)

    assert callback.plan is not None
    assert callback.plan.optimizer == USER


class FinetuningScheduler(L.Callback):
    """Stands for the one of the package finetuning-scheduler, which takes schedulers of torch's own classes alone."""


def test_beside_a_finetuning_scheduler_rates_are_constant(tmp_path: Path) -> None:
    callback = auto(tmp_path, candidates=["momentum"], budget=0)

    trainer = fit(made(Watched), callback, FinetuningScheduler(), epochs=EPOCHS)

    assert callback.plan is not None
    assert callback.plan.schedule.kind == "constant"
    assert trainer.lr_scheduler_configs == []
