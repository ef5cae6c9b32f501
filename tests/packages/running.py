"""One training of a package, run for a purpose: with a search, by hand, interrupted, resumed.

A package's training is a module of tests/packages/trainings. It says `MONITOR`, what a trial is judged by, and has
`train(run)`, which makes data and a model with code, trains the package's way with `run.callbacks` where the package
takes callbacks, and returns the loss on data that chose nothing; and `example(run)`, the names that the section of
docs/how-to/packages.md takes as given.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import importlib.util
import random
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import pytest
import torch

from optselect import AutoOptimizer, OptimizerPlan
from optselect.callbacks.lightning_names import AnyCallback, installed
from optselect.workload.rng import rng_state

# By the module that is imported, which a package's training needs.
PACKAGES = {
    "chemprop": "chemprop",
    "darts": "darts",
    "finetuning_scheduler": "finetuning_scheduler",
    "gluonts": "gluonts",
    "lightly": "lightly",
    "neuralforecast": "neuralforecast",
    "peft": "peft",
    "pytorch_forecasting": "pytorch_forecasting",
    "pytorch_tabular": "pytorch_tabular",
    "scvi": "scvi",
    "timm": "timm",
    "torch_geometric": "torch_geometric",
}

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a training is asked for.

    seed       of the data, the weights and the order of the batches
    epochs     how long it is
    folder     what it may write into
    callbacks  what it hands to its trainer, where its package takes callbacks
    """

    seed: int
    epochs: int
    folder: Path
    callbacks: Sequence[Any] = ()

    @property
    def quiet(self) -> dict[str, Any]:
        """Arguments for a trainer."""
        return {
            **QUIET,
            "max_epochs": self.epochs,
            "default_root_dir": self.folder,
            "callbacks": list(self.callbacks),
        }

    def draw(self, part: str) -> np.random.Generator:
        """Random numbers of the data: `train` and `val`, which the seed moves, and `test`, which it does not."""
        return np.random.default_rng([{"train": 0, "val": 1, "test": 2}[part], 0 if part == "test" else self.seed])


def loss_after_fit(trainer: Any, model: Any, loaders: Mapping[str, Any]) -> float:
    """Train a Lightning module on `train` and `val`, and return its `val_loss` on `test`, which chose nothing."""
    trainer.fit(model, loaders["train"], loaders["val"])
    return float(trainer.validate(model, loaders["test"], verbose=False)[0]["val_loss"])


class Training(Protocol):
    """A module of tests/packages/trainings."""

    MONITOR: str | None
    EPOCHS: int
    train: Callable[[Run], float]
    example: Callable[[Run], dict[str, Any]]


def training_of(name: str) -> Training:
    """Import it, and its package with it."""
    return cast("Training", importlib.import_module(f"tests.packages.trainings.{name}"))


def importable() -> list[str]:
    """Name the packages that are here."""
    return [name for name, module in PACKAGES.items() if importlib.util.find_spec(module) is not None]


def seed_everything(seed: int) -> None:
    """Begin from the same random numbers, whichever Lightning the package imports."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # what packages draw from
    torch.manual_seed(seed)


@dataclass(kw_only=True)
class Left:
    """What a training left behind.

    auto  the callback that searched, which may be a copy of that which the package was given
    """

    trainer: Any
    auto: AutoOptimizer | None
    state: dict[str, Any]


class Witness(AnyCallback):
    """Keeps the trainer, and notes how the training ended before the package does something else with the module.

    stop_after  end the fit after so many epochs, its configuration being that of the longer run
    plan        whose optimizer and schedule the module's `configure_optimizers` is to return
    """

    left: Left

    def __init__(self, *, stop_after: int | None = None, plan: OptimizerPlan | None = None) -> None:
        self.stop_after, self.plan = stop_after, plan

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if self.plan is not None and self.plan.optimizer != "user" and stage == "fit":
            pl_module.configure_optimizers = types.MethodType(functools.partial(configured, self.plan), pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self.stop_after is not None and trainer.current_epoch + 1 >= self.stop_after:
            trainer.should_stop = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        state = {
            "weights and buffers": dict([*pl_module.named_parameters(), *pl_module.named_buffers()]),
            "gradients wanted": [each.requires_grad for each in pl_module.parameters()],
            "train flags": [part.training for part in pl_module.modules()],
            "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
            "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
            "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
            "steps": (trainer.global_step, trainer.current_epoch, trainer.fit_loop.epoch_loop.total_batch_idx),
            "random numbers": rng_state().to_dict(),
        }
        auto = next((each for each in trainer.callbacks if isinstance(each, AutoOptimizer)), None)
        self.left = Left(trainer=trainer, auto=auto, state=copy.deepcopy(state))

    def __deepcopy__(self, memo: dict[int, Any]) -> Witness:
        """Stay the one that is asked afterwards: some packages train a copy of what they are given."""
        return self


def configured(plan: OptimizerPlan, module: Any) -> dict[str, Any]:
    """Return what the package's author would have, had they known the plan."""
    optimizer, scheduler = plan.build(module)
    if scheduler is None:
        return {"optimizer": optimizer}
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def run(
    name: str,
    folder: Path,
    *callbacks: Any,
    seed: int = 0,
    epochs: int = 3,
    witness: Witness | None = None,
    checkpoint: Path | None = None,
) -> tuple[Left, float]:
    """Run a package's training, or go on with it from a checkpoint; say what it left, and its loss on new data."""
    witness = witness or Witness()
    folder.mkdir(parents=True, exist_ok=True)
    seed_everything(seed)
    with resumed_from(checkpoint), contextlib.chdir(folder):
        loss = training_of(name).train(
            Run(seed=seed, epochs=epochs, folder=folder, callbacks=[*callbacks, witness]),
        )
    return witness.left, loss


@contextlib.contextmanager
def resumed_from(checkpoint: Path | None) -> Iterator[None]:
    """Let each `Trainer.fit` inside go on from `checkpoint`, since few packages have a word for it.

    The checkpoints hold the packages' own objects, so more than weights are unpickled.
    """
    with pytest.MonkeyPatch.context() as patch:
        if checkpoint is not None:
            for package in installed():
                trainer = package.module("pytorch").Trainer
                patch.setattr(trainer, "fit", going_on(trainer.fit, checkpoint))
        yield


def going_on(fit: Callable[..., None], checkpoint: Path) -> Callable[..., None]:
    """Make a `Trainer.fit` that goes on from `checkpoint` whatever it is told."""

    def resumed(*args: Any, **kwargs: Any) -> None:
        fit(*args, **{**kwargs, "ckpt_path": checkpoint, "weights_only": False})

    return resumed


def auto_optimizer(name: str, folder: Path, **arguments: Any) -> AutoOptimizer:
    """Make the callback for this package, with its study in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    given = {"monitor": training_of(name).MONITOR, "storage": folder / "study.journal", "report": False}
    return AutoOptimizer(**{**given, **arguments})
