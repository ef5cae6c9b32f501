"""Ways to choose an optimizer for a task: each a function from an arena to a choice and what it cost.

A method sees training and validation data, never test data, and counts every gradient step it takes; a batch
of validation counts a third of one. A variant of a method is one more function here.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import torch

from optselect import briefing, catalogue
from optselect.configuration import Configuration
from optselect.configuration.schedule import Schedule
from optselect.pipeline import make_selection
from optselect.recipes.bench.lightning_tuner import suggested_lr
from optselect.recipes.bench.sources import tool
from optselect.recipes.bench.task import Splits, Task, training_loader, validation_cost, workload
from optselect.recipes.bench.training import Recipe, Trainings, by_hand, configured, planned
from optselect.rules.portfolio import leaving_out
from optselect.rules.voting import RULES_ALONE
from optselect.search.progress import Silent
from optselect.settings import Settings

COSINE = Schedule(kind="cosine")

# The oracle's grid, half decades. From end to end of it the samplers search, too.
HALF_DECADES = {
    "adamw": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    "nadam": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "momentum": (3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0),
    "rmsprop": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "adagrad": (1e-2, 3e-2, 1e-1, 3e-1, 1.0),
    "muon": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
}
SWEEP = tuple(float(lr) for lr in np.logspace(-4, -1, 5))


@dataclass(frozen=True, kw_only=True)
class Arena:
    """What a method works with: the task, its data, the seed of this search, and full trainings."""

    task: Task
    data: Splits
    seed: int
    trainings: Trainings

    def value(self, recipe: Recipe) -> float:
        """Return the validation loss after a full training with the search's seed."""
        return self.trainings.run(self.task, self.data, recipe, self.seed).val

    @property
    def trial_cost(self) -> float:
        """Gradient steps of one full training and one look at the validation set."""
        return self.task.steps + validation_cost(self.task)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What to train with, and the gradient steps that finding it took."""

    recipe: Recipe
    search_steps: float


Method = Callable[[Arena], Choice]


# --- what one does without a search -------------------------------------------------------------------


def default(_: Arena) -> Choice:
    """Choose AdamW at 1e-3, constant."""
    return Choice(recipe=by_hand(torch.optim.AdamW, Schedule(), lr=1e-3), search_steps=0)


def prodigy(_: Arena) -> Choice:
    """Choose Prodigy as its README recommends: lr 1 and a cosine."""
    return Choice(recipe=by_hand(tool("prodigyopt").Prodigy, COSINE, lr=1.0), search_steps=0)


def schedule_free(arena: Arena) -> Choice:
    """Choose schedule-free AdamW as its README sets it up, with a warmup of a twentieth."""
    factory = tool("schedulefree").AdamWScheduleFree
    warmup = round(arena.task.steps / 20)
    return Choice(recipe=by_hand(factory, Schedule(), lr=2.5e-3, warmup_steps=warmup), search_steps=0)


# --- baselines that search ----------------------------------------------------------------------------


def sweep(arena: Arena) -> Choice:
    """Train AdamW with a cosine at five rates from 1e-4 to 1e-1, each in full, and choose the best."""
    recipes = [by_hand(torch.optim.AdamW, COSINE, lr=lr) for lr in SWEEP]
    return Choice(recipe=min(recipes, key=arena.value), search_steps=len(recipes) * arena.trial_cost)


def lr_find(arena: Arena) -> Choice:
    """Choose AdamW, constant, at what Lightning's learning rate finder suggests, or at 1e-3 if that is nothing."""
    model = arena.task.new_model(arena.seed, sparse=False)
    loader = training_loader(arena.task, arena.data, arena.seed)
    with quiet(), tempfile.TemporaryDirectory() as folder:
        lr, steps = suggested_lr(model, arena.task.loss, loader, folder=folder)
    return Choice(recipe=by_hand(torch.optim.AdamW, Schedule(), lr=lr or 1e-3), search_steps=steps)


def random_search(arena: Arena, amount: float) -> Choice:
    """Choose the best of `amount` full trainings with random configurations."""
    return _sampled(arena, optuna.samplers.RandomSampler(seed=arena.seed), int(amount))


def tpe(arena: Arena, amount: float) -> Choice:
    """Choose the best of `amount` full trainings that Optuna's default sampler asks for."""
    return _sampled(arena, optuna.samplers.TPESampler(seed=arena.seed), int(amount))


def _sampled(arena: Arena, sampler: Any, trials: int) -> Choice:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: arena.value(_drawn(trial)), n_trials=trials)
    return Choice(recipe=_drawn(study.best_trial), search_steps=trials * arena.trial_cost)


def _drawn(trial: Any) -> Recipe:
    """Draw a point of the conditional space: an optimizer, its own learning rate, and a schedule."""
    optimizer = trial.suggest_categorical("optimizer", list(HALF_DECADES))
    lrs = HALF_DECADES[optimizer]
    lr = trial.suggest_float(f"lr_{optimizer}", lrs[0], lrs[-1], log=True)
    kind = trial.suggest_categorical("schedule", ["constant", "cosine"])
    return grid_point(optimizer, lr, Schedule(kind=kind))


def grid_point(optimizer: str, lr: float, schedule: Schedule = COSINE) -> Recipe:
    """Make an optimizer at `lr`, everything else as the catalogue has it."""
    hyperparameters = {**catalogue.get(optimizer).defaults(), "lr": lr}
    return configured(Configuration(optimizer=optimizer, hyperparameters=hyperparameters, schedule=schedule))


# --- optselect ----------------------------------------------------------------------------------------


def ours(arena: Arena, amount: float, *, method: briefing.Method = briefing.METHOD, **settings: Any) -> Choice:
    """Search with a budget of `amount` trainings; `method` and further `settings` are for variants.

    No recorded training of the task's own family is known.
    """
    asked = Settings(budget=amount, seed=arena.seed, **settings)
    with quiet(), leaving_out(arena.task.family):
        training = workload(arena.task, arena.data, arena.seed)
        plan = make_selection(training, asked, progress=Silent(), method=method).plan
    return Choice(recipe=planned(plan), search_steps=plan.search_steps)


def rules_alone(arena: Arena, amount: float) -> Choice:
    """Search the same way without what recorded trainings say."""
    return ours(arena, amount, rules=RULES_ALONE)


def classic_rules(arena: Arena, amount: float) -> Choice:
    """Search the same way with the textbook's rules alone."""
    return ours(arena, amount, rules="classic")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep quiet about trials that diverge, and about Lightning's advice: they are not news here."""
    loggers = [logging.getLogger(name) for name in ("optselect", "lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
