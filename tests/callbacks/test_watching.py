"""Statistics while it trains: right, seldom enough, and without a trace in the training."""

from __future__ import annotations

import itertools
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import DummyLogger
from torch import nn

from optselect import AutoOptimizer
from optselect.callbacks.watching import Watching
from tests.support.modules import Classifier, equal_states, fit, made


class Recording(DummyLogger):
    """Keeps the metrics that it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        if any(name.startswith("optselect/") for name in metrics):
            self.told.append((step or 0, dict(metrics)))


def stand_in(logger: Recording, every: int = 1) -> Any:
    return types.SimpleNamespace(global_step=0, is_global_zero=True, log_every_n_steps=every, loggers=[logger])


def train(watching: Watching, trainer: Any, *, steps: int, lr: float = 0.5) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(16, 4)).square().mean().backward()
        watching.before_step(trainer, model)
        optimizer.step()
        trainer.global_step += 1
        watching.after_step(trainer)
    return model


def test_what_is_told_is_the_gradients_norm_and_the_steps_length_beside_the_weights() -> None:
    logger = Recording()
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    torch.manual_seed(0)
    nn.Linear(4, 1)
    model(torch.randn(16, 4)).square().mean().backward()
    weight = model.weight
    assert weight.grad is not None

    train(Watching(), stand_in(logger), steps=1)

    ((step, told),) = logger.told
    assert step == 1
    norm = sum(float(each.grad.square().sum()) for each in model.parameters() if each.grad is not None) ** 0.5
    weights = sum(float(each.detach().square().sum()) for each in model.parameters()) ** 0.5
    assert told["optselect/grad_norm/head"] == pytest.approx(norm, rel=1e-5)
    assert told["optselect/update_ratio/head"] == pytest.approx(0.5 * norm / weights, rel=1e-4)


def test_the_noise_scale_is_that_of_gradients_made_with_it() -> None:
    logger, watching = Recording(), Watching(rows=8, clock=lambda: 0.0)
    trainer, model = stand_in(logger), nn.Linear(400, 1, bias=False)
    generator = torch.Generator().manual_seed(0)

    for _ in range(400):
        # The mean has length 1; the noise of a batch of 8 has variance 4 in all, of one sample 32.
        noise = torch.randn(1, 400, generator=generator) * (4 / 400) ** 0.5
        model.weight.grad = torch.full((1, 400), 1 / 20) + noise
        watching.before_step(trainer, model)
        trainer.global_step += 1
        watching.after_step(trainer)

    late = [told["optselect/noise_scale"] for _, told in logger.told[-100:]]
    assert sum(late) / len(late) == pytest.approx(32, rel=0.15)


def test_looks_take_no_more_than_a_hundredth_of_the_time() -> None:
    logger, now = Recording(), [0.0]

    def clock() -> float:
        now[0] += 0.05  # what a look takes, in four readings
        return now[0]

    watching, trainer, model = Watching(clock=clock), stand_in(logger), nn.Linear(4, 1)
    for _ in range(4_000):
        now[0] += 0.1
        model.weight.grad = torch.ones(1, 4)
        watching.before_step(trainer, model)
        trainer.global_step += 1
        watching.after_step(trainer)

    assert len(logger.told) > 3
    assert watching._spent <= 0.012 * now[0]


def test_looks_come_no_more_often_than_the_trainer_logs() -> None:
    logger = Recording()

    train(Watching(clock=lambda: 0.0), stand_in(logger, every=10), steps=60)

    steps = [step for step, _ in logger.told]
    assert len(steps) > 3
    assert all(later - earlier >= 10 for earlier, later in itertools.pairwise(steps))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "one", tmp_path / "other"


def test_a_watched_training_is_the_one_that_nobody_watches(folders: tuple[Path, Path]) -> None:
    found = []
    for folder, watch in zip(folders, (False, True), strict=True):
        model, logger = made(Classifier), Recording()
        auto = AutoOptimizer(budget=0, report=False, progress=False, storage=folder / "study.journal", watch=watch)
        trainer = fit(model, auto, logger=logger, epochs=2, default_root_dir=folder, log_every_n_steps=1)
        found.append((model.state_dict(), trainer.optimizers[0].state_dict(), bool(logger.told)))

    (one, its, unwatched), (other, theirs, watched) = found
    assert (unwatched, watched) == (False, True)
    assert equal_states(one, other)
    assert equal_states(its, theirs)


def test_a_csv_logger_has_the_columns(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    auto = AutoOptimizer(budget=0, report=False, progress=False, storage=tmp_path / "study.journal", watch=True)

    fit(made(Classifier), auto, logger=logger, epochs=2, default_root_dir=tmp_path, log_every_n_steps=1)

    header = Path(logger.log_dir, "metrics.csv").read_text().partition("\n")[0]
    assert {"optselect/grad_norm/head", "optselect/update_ratio/head"} <= set(header.split(","))
