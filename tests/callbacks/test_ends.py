"""What a trial shows at the end of a training is what the training shows there."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging, WeightAveraging
from torch import nn
from torch.utils.data import DataLoader

from tests.support.modules import BATCH, CLASSES, FEATURES, auto, equal_states, fit, made, rows

EPOCHS = 4
STEPS = EPOCHS * 12


def in_order() -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Loaders that draw no random numbers."""
    return DataLoader(rows(), batch_size=BATCH), DataLoader(rows(32), batch_size=16)


class Normed(L.LightningModule):
    """BatchNorm of torch's usual momentum, and an optimizer of its own."""

    momentum: float | None = 0.1

    def __init__(self) -> None:
        super().__init__()
        norms = [nn.BatchNorm1d(16, momentum=self.momentum) for _ in range(2)]
        self.net = nn.Sequential(
            nn.Linear(FEATURES, 16), norms[0], nn.ReLU(), nn.Linear(16, 16), norms[1], nn.ReLU(), nn.Linear(16, CLASSES)
        )

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1e-2)


class Slow(Normed):
    """As scvi-tools has it."""

    momentum = 0.01


class Slower(Normed):
    """As torchvision's MNASNet has it."""

    momentum = 0.0003


class Cumulative(Normed):
    """A plain mean over all batches."""

    momentum = None


@pytest.mark.parametrize("kind", [Normed, Slow, Slower, Cumulative])
def test_a_trial_that_runs_to_the_end_shows_what_the_training_ends_with(
    kind: type[L.LightningModule], tmp_path: Path
) -> None:
    callback = auto(tmp_path, candidates=["adamw"], budget=4.0)

    trainer = fit(made(kind), callback, data=in_order(), epochs=EPOCHS)

    assert callback.plan is not None
    chosen = [each for each in callback.plan.trials if each.configuration == callback.plan.configuration]
    assert chosen[0].values[STEPS] == pytest.approx(float(trainer.callback_metrics["val_loss"]), rel=1e-5)


@pytest.mark.parametrize("kind", [Normed, Slow, Slower, Cumulative])
def test_a_short_training_is_decided_by_complete_runs(kind: type[L.LightningModule], tmp_path: Path) -> None:
    callback = auto(tmp_path, budget=None)

    fit(made(kind), callback, epochs=EPOCHS)

    assert callback.plan is not None
    ended = {each.configuration.key for each in callback.plan.trials if STEPS in each.values}
    assert callback.plan.baseline is not None
    assert callback.plan.baseline.key in ended
    assert len(ended) > 1


class EMACallback(L.Callback):
    """Stands for one of somebody else's."""


class Demanding(L.Callback):
    """Has the letters in its name, and averages nothing."""


class EachEpoch(WeightAveraging):
    """Averages at the ends of epochs, from the second on."""

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return epoch_idx is not None and epoch_idx >= 1


KEPT = [
    EMAWeightAveraging(decay=0.9),
    EMAWeightAveraging(decay=0.8, use_buffers=False, update_every_n_steps=3),
    EMAWeightAveraging(decay=0.9, update_starting_at_epoch=2),
    WeightAveraging(),
    EachEpoch(),
]


@pytest.mark.parametrize("kind", [Normed, Slow])
@pytest.mark.parametrize("averaging", KEPT)
def test_a_trial_is_judged_by_the_averages_that_the_training_validates(
    averaging: L.Callback, kind: type[L.LightningModule], tmp_path: Path
) -> None:
    callback = auto(tmp_path, candidates=["adamw"], budget=4.0)

    trainer = fit(made(kind), callback, copy.deepcopy(averaging), data=in_order(), epochs=EPOCHS)

    assert callback.plan is not None
    chosen = [each for each in callback.plan.trials if each.configuration == callback.plan.configuration]
    assert chosen[0].values[STEPS] == pytest.approx(float(trainer.callback_metrics["val_loss"]), rel=1e-5)
    assert callback.plan.reasons_of("caveat") == ()


@pytest.mark.parametrize("averaging", KEPT)
def test_the_averages_of_a_training_are_those_without_a_search(averaging: L.Callback, tmp_path: Path) -> None:
    searched, by_hand = made(Normed), made(Normed)
    fit(searched, auto(tmp_path, candidates=["user"]), copy.deepcopy(averaging), data=in_order(), epochs=EPOCHS)

    fit(by_hand, copy.deepcopy(averaging), data=in_order(), epochs=EPOCHS)

    assert equal_states(searched.state_dict(), by_hand.state_dict())


AVERAGING = [StochasticWeightAveraging(swa_lrs=1e-3), EMACallback()]


@pytest.mark.parametrize("averaging", AVERAGING)
def test_a_plan_says_that_trials_had_no_averages_of_weights(averaging: L.Callback, tmp_path: Path) -> None:
    callback = auto(tmp_path, candidates=["adamw"])

    fit(made(Normed), callback, copy.deepcopy(averaging), epochs=EPOCHS)

    assert callback.plan is not None
    (said,) = map(str, callback.plan.reasons_of("caveat"))
    assert type(averaging).__name__ in said
    assert said in " ".join(callback.plan.explain().split())


@pytest.mark.parametrize("settings, others", [({}, [Demanding()]), ({"budget": 0}, [EMACallback()])])
def test_without_averages_or_without_trials_nothing_is_said(
    settings: dict[str, Any], others: list[L.Callback], tmp_path: Path
) -> None:
    callback = auto(tmp_path, candidates=["adamw"], **settings)

    fit(made(Normed), callback, *others, epochs=EPOCHS)

    assert callback.plan is not None
    assert callback.plan.reasons_of("caveat") == ()
