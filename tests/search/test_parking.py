"""Trials put aside on disk go on in a later process as if nothing had been between."""

from __future__ import annotations

import errno
import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from optselect import Budget, LightningWorkload, TorchWorkload
from optselect.configuration import USER, Configuration
from optselect.configuration.schedule import Schedule
from optselect.pipeline import make_selection
from optselect.search.outcome import Outcome
from optselect.search.parking import RungStates
from optselect.search.progress import Silent
from optselect.search.runner import TrialRunner
from optselect.settings import Settings
from tests.support.small import Net, loader, net, vectors


def configuration(optimizer: str, **hyperparameters: float) -> Configuration:
    schedule = Schedule() if optimizer == "lbfgs" else Schedule(kind="cosine", warmup_steps=5)
    return Configuration(optimizer=optimizer, hyperparameters={"lr": 0.01, **hyperparameters}, schedule=schedule)


ADAMW = configuration("adamw", weight_decay=0.1)


class OwnAdam(torch.optim.Adam):
    """Of a kind that nobody else knows."""


class Opaque:
    def __init__(self) -> None:
        self.count = 0


class WithQueue(Net):
    def __init__(self) -> None:
        super().__init__()
        self.recent: deque[float] = deque(maxlen=5)

    def forward(self, inputs: Tensor) -> Tensor:
        output = super().forward(inputs)
        if self.training:
            self.recent.append(float(output.detach().mean()))
            output = output + 0.01 * sum(self.recent)
        return output


class WithObject(Net):
    def __init__(self) -> None:
        super().__init__()
        self.opaque = Opaque()

    def forward(self, inputs: Tensor) -> Tensor:
        self.opaque.count += self.training
        output: Tensor = super().forward(inputs) + 0.001 * self.opaque.count
        return output


@contextmanager
def torch_trials(folder: Path | None, *, model: type[Net] = Net, user: Any = None, **options: Any) -> Iterator[Any]:
    """The runner of a new process, as far as a trial can tell."""
    torch.manual_seed(0)
    workload = TorchWorkload(
        model(), nn.CrossEntropyLoss(), loader(), loader(vectors(48)), steps=100, user_optimizer=user
    )
    with workload.borrowed():
        yield TrialRunner(workload, states=RungStates(folder) if folder else None, **options)


class Tried(Exception):  # noqa: N818  # no error: it ends the fit before the training
    """The trial has run."""


class Module(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def on_train_start(self) -> None:
        self.started = getattr(self, "started", 0) + 1

    def on_train_epoch_start(self) -> None:
        self.epochs = getattr(self, "epochs", [])
        self.epochs.append(self.current_epoch)


def lightning_outcomes(folder: Path | None, chosen: Configuration, *untils: int, accumulate: int = 1) -> list[Outcome]:
    """What a trial gives at each of `untils`, in a process of its own."""
    found: list[Outcome] = []

    class Trying(Module):
        def configure_optimizers(self) -> Any:
            workload = LightningWorkload(self.trainer, self)
            with workload.borrowed():
                runner = TrialRunner(workload, states=RungStates(folder) if folder else None)
                found.extend(runner.run(chosen, 0, until) for until in untils)
            raise Tried

    torch.manual_seed(0)
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    trainer = L.Trainer(
        accelerator="cpu", max_steps=100, accumulate_grad_batches=accumulate, limit_val_batches=3, **quiet
    )
    with pytest.raises(Tried):
        trainer.fit(Trying(), loader(), loader(vectors(48), shuffle=False))
    return found


EVERY_KIND = ["adamw", "momentum", "muon", "schedulefree_adamw", "lbfgs", "adafactor", "prodigy", "asgd", "soap"]


@pytest.mark.parametrize("name", EVERY_KIND)
def test_a_rung_gone_on_with_from_disk_equals_an_uninterrupted_one(name: str, tmp_path: Path) -> None:
    chosen = configuration(name)
    with torch_trials(tmp_path) as runner:
        runner.run(chosen, 0, 15)
    with torch_trials(None) as runner:
        whole = runner.run(chosen, 0, 40)

    with torch_trials(tmp_path) as runner:
        continued = runner.run(chosen, 0, 40)

    assert math.isfinite(whole.value)
    assert continued.value == whole.value
    assert (whole.cost - continued.cost, continued.reached) == (pytest.approx(15), 40)


@pytest.mark.parametrize("accumulate, until", [(1, 15), (2, 14), (4, 15)])
@pytest.mark.parametrize("name", ["adamw", "muon", "schedulefree_adamw"])
def test_under_lightning_too_in_the_middle_of_an_accumulation(
    name: str, accumulate: int, until: int, tmp_path: Path
) -> None:
    chosen = configuration(name)
    lightning_outcomes(tmp_path, chosen, until, accumulate=accumulate)
    (whole,) = lightning_outcomes(None, chosen, 30, accumulate=accumulate)

    (continued,) = lightning_outcomes(tmp_path, chosen, 30, accumulate=accumulate)

    assert continued.value == whole.value
    assert whole.cost - continued.cost == pytest.approx(until)


def test_the_models_own_builtins_are_kept(tmp_path: Path) -> None:
    with torch_trials(tmp_path, model=WithQueue) as runner:
        runner.run(ADAMW, 0, 15)
    with torch_trials(None, model=WithQueue) as runner:
        runner.run(ADAMW, 0, 15)  # judging lengthens the queue, too
        whole = runner.run(ADAMW, 0, 30)

    with torch_trials(tmp_path, model=WithQueue) as runner:
        continued = runner.run(ADAMW, 0, 30)

    assert continued == whole


def own_adam(model: nn.Module) -> Any:
    return OwnAdam(model.parameters(), lr=0.01), None


def adam_with_a_scheduler(model: nn.Module) -> Any:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=100)


def test_the_users_own_optimizer_and_scheduler_go_on_when_they_are_torchs(tmp_path: Path) -> None:
    own = Configuration(optimizer=USER, hyperparameters={"lr_scale": 2.0})
    with torch_trials(tmp_path, user=adam_with_a_scheduler) as runner:
        runner.run(own, 0, 15)
    with torch_trials(None, user=adam_with_a_scheduler) as runner:
        whole = runner.run(own, 0, 30)

    with torch_trials(tmp_path, user=adam_with_a_scheduler) as runner:
        continued = runner.run(own, 0, 30)

    assert continued.value == whole.value
    assert whole.cost - continued.cost == pytest.approx(15)


@pytest.mark.parametrize(
    "options, chosen",
    [({"user": own_adam}, Configuration(optimizer=USER)), ({"model": WithObject}, ADAMW)],
    ids=["an optimizer of an unknown kind", "an object that changes"],
)
def test_what_builtins_and_tensors_cannot_say_starts_over_at_its_cost(
    options: dict[str, Any], chosen: Configuration, tmp_path: Path
) -> None:
    with torch_trials(tmp_path, **options) as runner:
        runner.run(chosen, 0, 15)
    with torch_trials(None, **options) as runner:
        whole = runner.run(chosen, 0, 30)

    with torch_trials(tmp_path, **options) as runner:
        again = runner.run(chosen, 0, 30)

    assert again == whole
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "code"])
def test_a_broken_file_starts_its_trial_over(damage: str, tmp_path: Path) -> None:
    with torch_trials(tmp_path) as runner:
        runner.run(ADAMW, 0, 15)
        whole = runner.run(ADAMW, 0, 30)
    (file,) = tmp_path.iterdir()
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:2_000])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "other":
        torch.save({"reached": 15, "torch": str(torch.__version__), "stored": {"training": {}}}, file)
    else:
        torch.save({"reached": 15, "torch": str(torch.__version__), "stored": Opaque()}, file)

    with torch_trials(tmp_path) as runner:
        again = runner.run(ADAMW, 0, 30)

    assert again.value == whole.value
    assert again.cost == pytest.approx(whole.cost + 15)


def test_a_state_beyond_the_rung_that_is_asked_for_is_not_used(tmp_path: Path) -> None:
    with torch_trials(tmp_path) as runner:
        runner.run(ADAMW, 0, 30)
    with torch_trials(None) as runner:
        whole = runner.run(ADAMW, 0, 15)

    with torch_trials(tmp_path) as runner:
        again = runner.run(ADAMW, 0, 15)

    assert again == whole


def test_one_file_for_each_trial_and_none_beyond_the_bound(tmp_path: Path) -> None:
    with torch_trials(tmp_path) as runner:
        for until in (5, 10, 15):
            runner.run(ADAMW, 0, until)
        (file,) = tmp_path.iterdir()
        size = file.stat().st_size

        runner._states._limit = size + 100
        runner.run(ADAMW, 1, 5)

        assert [other.name for other in tmp_path.iterdir()] == [file.name]
        assert runner.run(ADAMW, 1, 10).cost < 10  # memory has it


def test_what_a_study_that_is_no_more_has_left_beside_the_storage_is_cleared_by_any_search(tmp_path: Path) -> None:
    storage = tmp_path / "study.journal"
    stray = tmp_path / "study.journal.states" / "gone-0123456789ab"
    stray.mkdir(parents=True)
    settings = Settings(budget=Budget(steps=30), storage=storage)
    workload = TorchWorkload(net(), nn.CrossEntropyLoss(), loader(vectors()), loader(vectors(48)), steps=40)

    make_selection(workload, settings, progress=Silent())

    assert not stray.exists()


def test_a_full_disk_only_means_that_a_trial_would_start_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("optselect.search.parking.torch.save", full)
    with torch_trials(tmp_path) as runner:
        outcome = runner.run(ADAMW, 0, 15)

    assert outcome.error is None
    assert not list(tmp_path.iterdir())


# --- through a search -----------------------------------------------------------------------


class Killed(KeyboardInterrupt):
    """Stands for any death of the process."""


class Dying:
    """Cross entropy that dies at its n-th call with gradients."""

    def __init__(self, dies_at: int | None) -> None:
        self.dies_at = dies_at
        self.training = 0

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        self.training += torch.is_grad_enabled()
        if self.training == self.dies_at:
            raise Killed
        return nn.functional.cross_entropy(output, target)


def searched(storage: Any, dies_at: int | None = None, **settings: Any) -> tuple[Any, int]:
    """The plan's trials, and what they took to train."""
    torch.manual_seed(0)
    loss = Dying(dies_at)
    workload = TorchWorkload(Net(), loss, loader(), loader(vectors(48)), steps=40)
    plan = make_selection(workload, Settings(budget=4.0, storage=storage, **settings), progress=Silent()).plan
    return plan.trials, loss.training


def test_a_disk_that_is_nearly_full_is_left_to_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = RungStates(tmp_path / "states")
    monkeypatch.setattr("optselect.search.parking.shutil.disk_usage", lambda _: SimpleNamespace(free=60 * 2**20))

    states.save("trial", 1, {}, about_bytes=10)

    assert states.load("trial") is None


@pytest.mark.parametrize("storage", ["{}/study.journal", "sqlite:///{}/study.db"])
def test_a_killed_search_loses_at_most_one_rung_of_one_trial(storage: str, tmp_path: Path) -> None:
    where = storage.format(tmp_path)
    trials, whole = searched(None)
    profile, dies_at = 8, whole - 3  # in the middle of a trial that is finished from a quarter
    with pytest.raises(Killed):
        searched(where, dies_at)
    kept = len(list(tmp_path.rglob("*.pt")))

    again, rest = searched(where)

    assert kept >= 3
    assert again == trials
    assert rest < profile + 40  # the longest rung is from a quarter of forty to its end
    assert not list(tmp_path.glob("*.states"))


def test_states_of_a_study_that_is_no_more_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    with pytest.raises(Killed):
        searched(path, 60)
    assert list(tmp_path.rglob("*.pt"))
    path.unlink()

    with pytest.raises(Killed):
        searched(path, 9)

    assert not list(tmp_path.rglob("*.pt"))


def test_a_study_in_memory_keeps_nothing_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    searched(None)

    assert not list(tmp_path.iterdir())
