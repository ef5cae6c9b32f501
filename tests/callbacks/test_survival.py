"""What models do wrong ends a trial and no more; whatever ends the search, everything comes back."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import optuna
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from optselect import AutoOptimizer, Budget, MetricNotLoggedError, SearchError
from optselect.study.journal import journal_storage
from tests.support.comparison import differences, fitting
from tests.support.kinds import TrainsOnly
from tests.support.modules import Classifier, auto, equal_states, fit, in_trial, loaders, made
from tests.support.searches import same_choice


class Faulty(Classifier):
    """Goes wrong in trials of AdamW, from the third batch on."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        if in_trial(self) and batch_idx > 1 and isinstance(self.optimizers().optimizer, torch.optim.AdamW):  # type: ignore[union-attr]
            return self.fault(loss)
        return loss

    def fault(self, loss: Tensor) -> Any:
        """What goes wrong."""
        raise NotImplementedError


class Raises(Faulty):
    def fault(self, loss: Tensor) -> Any:
        raise RuntimeError("AdamW broke it")


class RunsOutOfMemory(Faulty):
    def fault(self, loss: Tensor) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class GivesNan(Faulty):
    def fault(self, loss: Tensor) -> Any:
        return loss * torch.nan


class GivesInfinity(Faulty):
    def fault(self, loss: Tensor) -> Any:
        return loss * torch.inf


class GivesNothing(Faulty):
    def fault(self, loss: Tensor) -> Any:
        return None


_NO_LOSS = "ignore:`training_step` returned `None`:UserWarning"


@pytest.mark.filterwarnings(_NO_LOSS)
@pytest.mark.parametrize("kind", [Raises, RunsOutOfMemory, GivesNan, GivesInfinity, GivesNothing])
def test_a_fault_in_some_trials_leaves_no_trace(kind: type[L.LightningModule], tmp_path: Path) -> None:
    # A callback of the run's own, so that the module can tell a trial.
    different = differences(fitting(lambda: [L.Callback()]), tmp_path, kind, trials=1)

    assert different == []


@pytest.mark.parametrize("kind", [Raises, RunsOutOfMemory])
def test_an_exception_fails_its_trial_and_the_search_goes_on(kind: type[L.LightningModule], tmp_path: Path) -> None:
    callback = auto(tmp_path, candidates=("adamw", "momentum"))

    fit(made(kind), callback)

    assert states(callback, "adamw") == {"FAIL"}
    assert "COMPLETE" in states(callback, "momentum")
    assert callback.plan is not None
    assert callback.plan.optimizer == "momentum"


@pytest.mark.parametrize("kind", [GivesNan, GivesInfinity])
def test_a_loss_that_is_not_finite_ends_its_trial_without_a_value(
    kind: type[L.LightningModule], tmp_path: Path
) -> None:
    callback = auto(tmp_path, candidates=("adamw", "momentum"), budget=Budget(steps=400))

    fit(made(kind), callback, epochs=8)

    assert callback.plan is not None
    values = {t.configuration.optimizer: t.value for t in callback.plan.trials if t.configuration.optimizer == "adamw"}
    assert values == {"adamw": None}


@pytest.mark.filterwarnings(_NO_LOSS)
def test_steps_without_a_loss_are_judged_by_the_validation(tmp_path: Path) -> None:
    callback = auto(tmp_path, candidates=("adamw", "momentum"))

    fit(made(GivesNothing), callback)

    assert callback.plan is not None
    assert all(trial.value is not None for trial in callback.plan.trials)


@pytest.mark.filterwarnings(_NO_LOSS)
def test_a_module_whose_steps_never_give_a_loss_trains_as_by_hand(tmp_path: Path) -> None:
    class NeverALoss(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return None

    different = differences(fitting(), tmp_path, NeverALoss)

    assert different == []


class AlwaysRaises(Classifier):
    """Breaks in every trial, but not in the profile: in the batch after the last one that it looks at."""

    broken = True

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        if self.broken and self.optimizers().param_groups[0]["lr"] > 0:  # type: ignore[union-attr]
            raise KeyError("my own bug")
        return loss


class RaisesAtOnce(Classifier):
    """Breaks in its first batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        raise KeyError("my own bug")


class BadlyInterrupted(Classifier):
    """Ctrl-C in the third trial."""

    trials = 0
    broken = True

    def on_fit_start(self) -> None:
        type(self).trials += 1

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.broken and type(self).trials == 5 and batch_idx == 1:
            raise KeyboardInterrupt
        return super().training_step(batch, batch_idx)


class Leaves(BadlyInterrupted):
    """Calls sys.exit in the third trial."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.broken and type(self).trials == 5 and batch_idx == 1:
            raise SystemExit(7)
        return super().training_step(batch, batch_idx)


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Lightning ignores further interrupts after the first."""
    handler = signal.getsignal(signal.SIGINT)
    BadlyInterrupted.trials = Leaves.trials = 0
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize(
    "kind, ending",
    [
        (AlwaysRaises, KeyError),
        (RaisesAtOnce, KeyError),
        (BadlyInterrupted, SystemExit),  # what Lightning makes of a KeyboardInterrupt
        (Leaves, SystemExit),
    ],
)
@pytest.mark.parametrize("budget", [Budget(steps=60), Budget(steps=60, trials=3)])
def test_whatever_ends_the_search_everything_comes_back(
    kind: Any, ending: type[BaseException], budget: Budget, tmp_path: Path
) -> None:
    module, (train, val) = made(kind), loaders()
    watcher = Watcher()
    trainer = L.Trainer(
        callbacks=[auto(tmp_path, budget=budget), watcher],
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )

    with pytest.raises(ending) as caught:
        trainer.fit(module, train, val)

    assert watcher.exceptions != []
    assert "my own bug" in str(caught.value) or caught.type is SystemExit
    changed = [what for what in watcher.before if not equal_states(watcher.before[what], watcher.after[what])]
    assert changed == []
    assert watcher.identities_before == watcher.identities_after


class Watcher(L.Callback):
    """Compares the trainer and the module before the search with how they are when an exception passes."""

    def __init__(self) -> None:
        self.exceptions: list[BaseException] = []

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        # The strategy sets itself up between here and the search; what it changes is not ours.
        self.before, self.identities_before = self.look(trainer, pl_module)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.exceptions.append(exception)
        self.after, self.identities_after = self.look(trainer, pl_module)

    def look(self, trainer: Any, module: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        loops = [trainer.fit_loop, trainer.fit_loop.epoch_loop, trainer.fit_loop.epoch_loop.val_loop]
        values = {
            "weights and buffers": {name: value.clone() for name, value in module.state_dict().items()},
            "gradients": [p.grad for p in module.parameters()],
            "train flags": [part.training for part in module.modules()],
            "random numbers": torch.get_rng_state(),
            "names in the module": sorted(
                set(vars(module)) - {"configure_optimizers", "on_load_checkpoint", "_device"}
            ),
            "progress": trainer.fit_loop.state_dict(),
            "metrics": dict(trainer.callback_metrics),
            "stopping": trainer.should_stop,
        }
        identities = {
            "callbacks": [id(callback) for callback in trainer.callbacks],
            "loggers": [id(logger) for logger in trainer.loggers],
            "optimizers": [id(optimizer) for optimizer in trainer.strategy._optimizers],
            "profiler": id(trainer.profiler),
            "loaders": [id(loop._combined_loader) for loop in loops[::2]],
            "source": id(trainer.fit_loop._data_source),
            "log": id(vars(module).get("log")),
        }
        return values, identities


def test_sys_exit_in_a_trial_passes(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        fit(made(Leaves), auto(tmp_path))

    assert caught.value.code == 7


def test_the_exception_of_every_trial_is_raised_and_their_study_says_failed(tmp_path: Path) -> None:
    callback = auto(tmp_path)

    with pytest.raises(KeyError, match="my own bug"):
        fit(made(AlwaysRaises), callback)

    assert set(callback_states(tmp_path)) == {"FAIL"}


def test_once_the_bug_is_mended_the_same_search_runs_anew(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="my own bug"):
        fit(made(AlwaysRaises), auto(tmp_path))
    mended, callback = made(AlwaysRaises), auto(tmp_path)
    mended.broken = False

    fit(mended, callback)

    assert callback.plan is not None
    assert any(trial.value is not None for trial in callback.plan.trials)


def test_a_search_goes_on_after_an_interrupt_and_ends_with_the_same_plan(tmp_path: Path) -> None:
    whole, half, rest = (auto(tmp_path / folder) for folder in ("whole", "half", "half"))
    unbroken = made(BadlyInterrupted)
    unbroken.broken = False
    fit(unbroken, whole)
    BadlyInterrupted.trials = 0
    with pytest.raises(SystemExit):
        fit(made(BadlyInterrupted), half)
    done = len(callback_states(tmp_path / "half"))
    BadlyInterrupted.trials = 10

    fit(made(BadlyInterrupted), rest)

    assert 0 < done < len(callback_states(tmp_path / "whole"))
    assert whole.plan is not None
    assert rest.plan is not None
    assert same_choice(rest.plan, whole.plan)


def test_a_run_after_an_interrupted_and_continued_search_leaves_no_trace(tmp_path: Path) -> None:
    def scenario(module: Any, callbacks: list[L.Callback], folder: Path) -> L.Trainer:
        if callbacks:
            BadlyInterrupted.trials = 0
            other = made(BadlyInterrupted)
            with pytest.raises(SystemExit):
                fitting()(other, callbacks, folder)
            # The module that was interrupted is as good as a new one.
            module.load_state_dict(other.state_dict())
            torch.manual_seed(1)
        BadlyInterrupted.trials = 10
        return fitting()(module, callbacks, folder)

    assert differences(scenario, tmp_path, BadlyInterrupted) == []


def test_a_misspelt_monitor_lists_what_was_logged(tmp_path: Path) -> None:
    with pytest.raises(
        MetricNotLoggedError,
        match=r"'val_los' was never logged.*logged: .*val_loss.*Did you mean 'val_loss'",
    ):
        fit(made(Classifier), auto(tmp_path, monitor="val_los"))


def test_a_validation_without_val_loss_lists_what_was_logged(tmp_path: Path) -> None:
    class OtherName(Classifier):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("valid/nll", F.cross_entropy(self.net(batch[0]), batch[1]))

    with pytest.raises(MetricNotLoggedError, match=r"'val_loss' was never logged.*logged: .*valid/nll.*Pass monitor="):
        fit(made(OtherName), auto(tmp_path))


def test_a_metric_of_some_validations_only_is_refused_with_the_reason(tmp_path: Path) -> None:
    class EverySecond(Classifier):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            if self.current_epoch % 2 == 1:
                super().validation_step(batch, batch_idx)

    with pytest.raises(MetricNotLoggedError, match=r"judged by one alone, so each has to log it"):
        fit(made(EverySecond), auto(tmp_path))


def test_a_monitor_without_validation_must_be_logged_in_training(tmp_path: Path) -> None:
    with pytest.raises(MetricNotLoggedError, match=r"'train_los' was never logged; logged: train_loss"):
        fit(made(TrainsOnly), auto(tmp_path, monitor="train_los"), data=(loaders()[0], None))


def test_trials_that_all_diverge_say_so(tmp_path: Path) -> None:
    class Diverges(Classifier):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", torch.tensor(torch.nan))

    module = made(Diverges)
    before = {name: value.clone() for name, value in module.state_dict().items()}

    with pytest.raises(SearchError, match=r"all .* trials diverged"):
        fit(module, auto(tmp_path))

    assert equal_states(module.state_dict(), before)


class ReadsMetrics(Classifier):
    """Its hooks read back what was logged, in this epoch and by validation, and look up batches by their index."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        assert batch_idx < len(loaders()[0])
        return super().training_step(batch, batch_idx)

    def on_train_batch_end(self, *_: Any) -> None:
        assert torch.isfinite(self.trainer.callback_metrics["train_loss"])

    def on_train_epoch_end(self) -> None:
        float(self.trainer.callback_metrics["val_loss"])


def test_hooks_read_metrics_in_trials(tmp_path: Path) -> None:
    callback = auto(tmp_path, budget=Budget(steps=120))

    fit(made(ReadsMetrics), callback)

    assert callback.plan is not None
    assert all(trial.value is not None for trial in callback.plan.trials)


def test_a_trial_skips_what_the_training_would_skip(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    class Skips(Classifier):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
            return -1 if batch_idx == 3 else None

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            seen.append((self.current_epoch, batch_idx))
            return super().training_step(batch, batch_idx)

    callback = auto(tmp_path, candidates=["adamw"], budget=Budget(trials=1))
    fit(made(Skips), callback, epochs=3)

    # Three a time, whichever epoch: a trial, for which the fourth micro-batch counts, sees more epochs.
    real = [(epoch, index) for epoch in range(9) for index in range(3)]
    assert seen[-9:] == real[:9]
    assert callback.plan is not None
    assert callback.profile is not None
    # Of four micro-batches one only says that the rest is skipped.
    skipped = callback.profile.gradient.passes // 4
    trained = callback.plan.trials[0].micro_batches - callback.plan.trials[0].micro_batches // 4
    begin = callback.profile.gradient.passes - skipped
    assert trained > 3
    assert seen[begin : begin + trained] == real[:trained]


def test_a_training_without_steps_is_not_searched(tmp_path: Path) -> None:
    callback = auto(tmp_path)

    fit(made(Classifier), callback, epochs=0)

    assert callback.plan is None


def states(callback: AutoOptimizer, optimizer: str) -> set[str]:
    """How the trials of one optimizer ended."""
    assert callback.study is not None
    return {trial.state.name for trial in callback.study.trials if trial.params["optimizer"] == optimizer}


def callback_states(folder: Path) -> list[str]:
    """How the trials in a folder's only study ended."""
    storage = journal_storage(folder / "study.journal")
    (name,) = optuna.get_all_study_names(storage)
    return [trial.state.name for trial in optuna.load_study(study_name=name, storage=storage).trials]
