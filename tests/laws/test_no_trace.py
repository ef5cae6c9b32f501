"""After a search the run is the hand-written one, bit for bit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from optselect import AutoOptimizer
from tests.support.modules import (
    Classifier,
    SparseClassifier,
    WithOptimizer,
    auto,
    by_hand,
    equal_states,
    fit,
    in_trial,
    loaders,
    made,
    tokens,
)


@pytest.mark.parametrize("kind", [Classifier, WithOptimizer, SparseClassifier])
def test_the_run_after_a_search_equals_the_hand_written_one(kind: type[L.LightningModule], tmp_path: Path) -> None:
    def data() -> Any:
        return loaders(tokens) if kind is SparseClassifier else loaders()

    searched, callback = made(kind), auto(tmp_path)
    trainer = fit(searched, callback, data=data())
    after = torch.get_rng_state()
    assert callback.plan is not None
    assert len(callback.plan.trials) >= 2

    written = made(by_hand(kind, callback.plan))
    reference = fit(written, data=data())

    assert equal_states(searched.state_dict(), written.state_dict())
    assert equal_states(trainer.optimizers[0].state_dict(), reference.optimizers[0].state_dict())
    assert equal_states(dict(trainer.callback_metrics), dict(reference.callback_metrics))
    assert trainer.global_step == reference.global_step
    assert torch.equal(torch.get_rng_state(), after)


def test_the_module_is_clean_after_success_and_after_an_exception(tmp_path: Path) -> None:
    class Breaks(Classifier):
        broken = False

        def on_train_epoch_end(self) -> None:
            if self.broken and not in_trial(self):
                raise RuntimeError("broken on purpose")

    clean, written = made(Classifier), made(WithOptimizer)
    fit(clean, auto(tmp_path))
    fit(written)
    broken = made(Breaks)
    broken.broken = True
    with pytest.raises(RuntimeError, match="broken on purpose"):
        fit(broken, auto(tmp_path))

    assert set(vars(clean)) == set(vars(written))
    assert "configure_optimizers" not in vars(broken)


def test_a_second_fit_builds_the_same_plan_anew(tmp_path: Path) -> None:
    callback = auto(tmp_path)
    fit(made(Classifier), callback)
    first = callback.plan
    fit(made(Classifier), callback)

    assert callback.plan is first


def test_a_fast_development_run_searches_nothing(tmp_path: Path) -> None:
    callback = auto(tmp_path)
    fit(made(Classifier), callback, fast_dev_run=True)

    assert callback.plan is None


def test_a_deep_copy_of_the_callback_is_the_callback(tmp_path: Path) -> None:
    callback = AutoOptimizer()

    assert copy.deepcopy(callback) is callback


def test_the_users_word_on_training_before_counts_more_than_the_measured_one(tmp_path: Path) -> None:
    fresh, told = auto(tmp_path / "a", budget=0), auto(tmp_path / "b", budget=0, fine_tuning=True)
    fit(made(Classifier), fresh)
    fit(made(Classifier), told)

    assert fresh.plan is not None
    assert told.plan is not None
    assert (fresh.plan.profile.model.at_initialisation, told.plan.profile.model.at_initialisation) == (True, False)  # type: ignore[union-attr]
    assert float(told.plan.hyperparameters["lr"]) < float(fresh.plan.hyperparameters["lr"])
