"""A training whose plan was chosen at equal time ends when the baseline's would have."""

from __future__ import annotations

import functools
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from optselect import AutoOptimizer, OptimizerPlan, ResumeError, TorchWorkload, select
from optselect.search.runner import TrialRunner
from tests.support.modules import BATCH, ROWS, Classifier, auto, equal_states, fit, loaders, made

EPOCH = ROWS // BATCH


def _loss(module: Any, batch: Any) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(module.net(batch[0]), batch[1])


@functools.cache
def found() -> OptimizerPlan:
    train, val = loaders()
    workload = TorchWorkload(
        made(Classifier),
        None,
        train,
        val,
        steps=EPOCH * 4,
        step=_loss,
    )
    return select(workload, 0, candidates=["momentum"])


def plan_of(steps: int | None, compare: Any = "seconds") -> OptimizerPlan:
    return replace(found(), total_steps=steps, compare=compare)


class Counts(pl.Callback):
    """Counts validations, and where the training stood at each."""

    def __init__(self) -> None:
        self.validated: list[int] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.validated.append(trainer.global_step)


def test_it_ends_in_the_midst_of_an_epoch_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    end, counts = EPOCH + 2, Counts()

    trainer = fit(made(Classifier), AutoOptimizer(plan=plan_of(end), report=False), counts, epochs=4)

    assert trainer.global_step == end
    assert counts.validated == [EPOCH, end]
    (said,) = [message for message in caplog.messages if f"ends after {end} steps" in message]
    assert "compare='seconds'" in said


@pytest.mark.parametrize("steps, compare", [(None, "seconds"), (EPOCH + 2, "steps"), (EPOCH * 4, "seconds")])
def test_any_other_plan_ends_no_training(steps: int | None, compare: str, caplog: pytest.LogCaptureFixture) -> None:
    plan = plan_of(steps, compare)
    if steps is None:
        plan = replace(plan, configuration=replace(plan.configuration, schedule=type(plan.schedule)()))

    with pytest.warns() if steps == EPOCH + 2 else nullcontext():
        trainer = fit(made(Classifier), AutoOptimizer(plan=plan, report=False), epochs=4)

    assert trainer.global_step == EPOCH * 4
    assert not any("ends after" in message for message in caplog.messages)


def test_a_trainer_that_ends_earlier_ends_there() -> None:
    trainer = fit(made(Classifier), AutoOptimizer(plan=plan_of(EPOCH + 2), report=False), epochs=1)

    assert trainer.global_step == EPOCH


def test_a_step_counts_whose_gradients_are_accumulated() -> None:
    callback = AutoOptimizer(plan=plan_of(3), report=False)

    trainer = fit(made(Classifier), callback, epochs=4, accumulate_grad_batches=2)

    assert trainer.global_step == 3


def test_a_training_that_must_be_longer_is(caplog: pytest.LogCaptureFixture) -> None:
    callback = AutoOptimizer(plan=plan_of(EPOCH + 2), report=False)

    with pytest.warns(UserWarning, match="goes on beyond"):
        trainer = fit(made(Classifier), callback, epochs=4, min_epochs=3)

    assert trainer.global_step == EPOCH * 3


def test_a_resumed_run_ends_where_the_uninterrupted_one_did(tmp_path: Path) -> None:
    end = EPOCH * 2 + 1
    whole = made(Classifier)
    fit(whole, AutoOptimizer(plan=plan_of(end), report=False), epochs=4)
    half = fit(made(Classifier), AutoOptimizer(plan=plan_of(end), report=False), epochs=1)
    half.save_checkpoint(tmp_path / "half.ckpt")

    rest = made(Classifier, seed=5)
    trainer = fit(rest, auto(tmp_path), epochs=4, seed=9, ckpt_path=tmp_path / "half.ckpt")

    assert trainer.global_step == end
    assert equal_states(rest.state_dict(), whole.state_dict())


def test_a_run_whose_time_is_up_does_not_go_on(tmp_path: Path) -> None:
    end = EPOCH + 2
    fit(made(Classifier), AutoOptimizer(plan=plan_of(end), report=False), epochs=4).save_checkpoint(tmp_path / "a.ckpt")

    trainer = fit(made(Classifier), auto(tmp_path), epochs=4, ckpt_path=tmp_path / "a.ckpt")

    assert trainer.global_step == end


def test_a_plan_chosen_after_some_steps_counts_from_there(tmp_path: Path) -> None:
    fit(made(Classifier), auto(tmp_path, budget=0), epochs=1).save_checkpoint(tmp_path / "a.ckpt")
    callback = AutoOptimizer(plan=plan_of(EPOCH + 1), report=False, on_mismatch="search")

    trainer = fit(made(Classifier), callback, epochs=4, ckpt_path=tmp_path / "a.ckpt")
    trainer.save_checkpoint(tmp_path / "b.ckpt")

    assert trainer.global_step == 2 * EPOCH + 1
    again = fit(made(Classifier), auto(tmp_path), epochs=4, ckpt_path=tmp_path / "b.ckpt")
    assert again.global_step == 2 * EPOCH + 1


def test_a_plan_that_ends_elsewhere_is_another(tmp_path: Path) -> None:
    fit(made(Classifier), AutoOptimizer(plan=plan_of(EPOCH + 2), report=False), epochs=1).save_checkpoint(
        tmp_path / "a.ckpt"
    )
    other = AutoOptimizer(plan=plan_of(EPOCH + 2, "steps"), report=False)

    with pytest.raises(ResumeError):
        fit(made(Classifier), other, epochs=4, ckpt_path=tmp_path / "a.ckpt")


def test_a_search_at_equal_time_ends_the_training_that_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(self: TrialRunner, configuration: Any) -> float:
        return 2.0 if configuration.optimizer == "momentum" else 1.0

    monkeypatch.setattr(TrialRunner, "seconds_per_micro_batch", told)
    # Where the baseline fails, the slower one is chosen.
    monkeypatch.setattr("torch.optim.AdamW.step", broken)
    callback = auto(tmp_path, compare="seconds", candidates=["momentum"])

    trainer = fit(made(Classifier), callback, epochs=4)

    assert callback.plan is not None
    assert (callback.plan.optimizer, callback.plan.compare) == ("momentum", "seconds")
    assert trainer.global_step == callback.plan.total_steps == EPOCH * 2


def broken(*_: Any, **__: Any) -> None:
    raise RuntimeError("it cannot step")
