"""Which value of a trial counts follows from which weights the trainer keeps."""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer

from optselect import AutoOptimizer, Budget
from tests.support.modules import TRAINER, Classifier, loaders

KEEPS_LAST = {
    "nobody watches": list,
    "a checkpoint of the last weights": lambda: [ModelCheckpoint()],
    "another value is watched": lambda: [EarlyStopping("train_loss"), ModelCheckpoint(monitor="train_loss")],
    "a checkpoint that keeps nothing": lambda: [ModelCheckpoint(monitor="val_loss", save_top_k=0)],
    "other callbacks": lambda: [Timer()],
}
KEEPS_BEST = {
    "early stopping": lambda: [EarlyStopping("val_loss")],
    "a checkpoint of the best": lambda: [ModelCheckpoint(monitor="val_loss")],
    "large values are watched for": lambda: [EarlyStopping("val_loss", mode="max")],
}


def reasons(*callbacks: Any, **settings: Any) -> str:
    auto = AutoOptimizer(budget=Budget(steps=20), report=False, **settings)
    trainer = L.Trainer(**{**TRAINER, "enable_checkpointing": None}, max_epochs=1, callbacks=[auto, *callbacks])
    trainer.fit(Classifier(), *loaders())
    assert auto.plan is not None
    return " ".join(map(str, auto.plan.reasons))


@pytest.mark.parametrize("callbacks", KEEPS_BEST.values(), ids=KEEPS_BEST)
def test_where_the_trainer_keeps_the_best_weights_trials_count_as_their_best(callbacks: Any) -> None:
    assert "each trial counts as its best value so far" in reasons(*callbacks())


@pytest.mark.parametrize("callbacks", KEEPS_LAST.values(), ids=KEEPS_LAST)
def test_where_it_keeps_the_last_they_count_as_their_last(callbacks: Any) -> None:
    assert "best value so far" not in reasons(*callbacks())


def test_what_counts_is_the_value_that_trials_are_judged_by() -> None:
    watched = EarlyStopping("train_loss")

    assert "each trial counts as its best value so far" in reasons(watched, monitor="train_loss")


def test_they_count_as_their_last_where_small_values_are_watched_for_and_large_ones_asked_for() -> None:
    watched = EarlyStopping("val_loss", mode="min")

    assert "best value so far" not in reasons(watched, monitor="val_loss", mode="max")
