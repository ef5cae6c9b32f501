"""`candidates=["user"]`: the user's own optimizer at a better rate, as if its author had written that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from optselect.budget import Budget
from optselect.callbacks.auto_optimizer import AutoOptimizer
from optselect.configuration import LR_SCALE, USER
from tests.support.kinds import Lbfgs
from tests.support.modules import Classifier, StopAfter, auto, equal_states, fit, in_trial, loaders, made, rows


class Timid(Classifier):
    """A scheduler of its own on two groups, far too careful."""

    factor = 1.0

    def configure_optimizers(self) -> Any:
        groups: list[dict[str, Any]] = [
            {"params": list(self.net[0].parameters()), "lr": 4e-3 * self.factor},
            {"params": list(self.net[1:].parameters())},
        ]
        optimizer = torch.optim.SGD(groups, lr=2e-3 * self.factor, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)]


EPOCHS = 4


def data() -> Any:
    """Judged on the rows that it trains on: higher rates than Timid's are better beyond doubt."""
    return loaders()[0], DataLoader(rows(), batch_size=32)


def tuned(tmp_path: Path) -> AutoOptimizer:
    return auto(tmp_path, budget=1.5, candidates=["user"])


def test_the_rate_is_found_and_the_training_is_the_one_written_by_hand(tmp_path: Path) -> None:
    callback, module = tuned(tmp_path), made(Timid)

    trainer = fit(module, callback, data=data(), epochs=EPOCHS)

    assert callback.plan is not None
    written = made(Timid)
    written.factor = callback.plan.hyperparameters[LR_SCALE]
    by_hand = fit(written, data=data(), epochs=EPOCHS)
    assert callback.plan.optimizer == USER
    assert written.factor > 2
    assert {trial.configuration.optimizer for trial in callback.plan.trials} == {USER}
    assert equal_states(module.state_dict(), written.state_dict())
    assert equal_states(trainer.optimizers[0].state_dict(), by_hand.optimizers[0].state_dict())
    assert "learning rate ×" in callback.plan.explain()


def test_a_resumed_run_goes_on_with_the_scaled_rates(tmp_path: Path) -> None:
    whole = made(Timid)
    fit(whole, tuned(tmp_path / "whole"), data=data(), epochs=EPOCHS)
    stopped = fit(made(Timid), tuned(tmp_path / "half"), StopAfter(2), data=data(), epochs=EPOCHS)
    stopped.save_checkpoint(tmp_path / "half.ckpt")

    resumed, later = made(Timid, seed=5), tuned(tmp_path / "later")
    fit(resumed, later, data=data(), epochs=EPOCHS, ckpt_path=tmp_path / "half.ckpt")

    assert later.study is None
    assert equal_states(resumed.state_dict(), whole.state_dict())


class Rates(L.Callback):
    """What a user's callback sees of the rates."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.rates = [group["lr"] for group in trainer.optimizers[0].param_groups]


def test_others_see_the_rates_that_train(tmp_path: Path) -> None:
    callback, seen = tuned(tmp_path), Rates()

    fit(made(Timid), callback, seen, data=data(), epochs=EPOCHS)

    assert callback.plan is not None
    factor = float(callback.plan.hyperparameters[LR_SCALE])
    assert seen.rates == [4e-3 * factor, 2e-3 * factor]


def test_what_evaluates_the_loss_again_is_held_to_the_budget(tmp_path: Path) -> None:
    evaluations: list[bool] = []

    class Counts(Lbfgs):
        def on_after_backward(self) -> None:
            evaluations.append(in_trial(self))

    callback = auto(tmp_path, budget=Budget(steps=120), candidates=["user"])

    fit(made(Counts), callback, epochs=EPOCHS)

    assert callback.plan is not None
    assert 0 < sum(evaluations) <= callback.plan.search_steps <= 120


def test_the_users_own_without_a_budget_is_the_training_without_the_callback(tmp_path: Path) -> None:
    callback, module, plain = auto(tmp_path, budget=0, candidates=["user"]), made(Timid), made(Timid)

    trainer = fit(module, callback, data=data(), epochs=1)

    by_hand = fit(plain, data=data(), epochs=1)
    assert callback.chosen.optimizer == USER
    assert equal_states(module.state_dict(), plain.state_dict())
    assert equal_states(trainer.optimizers[0].state_dict(), by_hand.optimizers[0].state_dict())
