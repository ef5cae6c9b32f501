"""One full training as a bare loop, the same for every method, and the store that never runs one twice."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optselect.building.groups import param_groups
from optselect.building.optimizer import build_groups
from optselect.configuration import Configuration
from optselect.configuration.schedule import Schedule
from optselect.optim.scheduler import ScheduledLR
from optselect.parameters.anatomy import anatomy_of
from optselect.plan import OptimizerPlan
from optselect.recipes.bench.sources import Tensors
from optselect.recipes.bench.task import Splits, Task, orders
from optselect.words import format_value
from optselect.workload.rng import seed_rng

# Losses are looked at this often: a training whose loss is no number any more ends early.
_LOOK = 20
_EVALUATION_BATCH = 512
# Batches that give BatchNorm the statistics of averaged weights, as schedulefree's README asks for.
_RECALIBRATION_BATCHES = 20


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a model is trained with.

    describe  in words
    identity  builtins that tell it from any other
    build     the optimizer and the scheduler (None: none) for a model and a number of steps
    sparse    whether it takes embeddings' gradients as the task has them; if not, they are dense
    """

    describe: str
    identity: Mapping[str, Any]
    build: Callable[[nn.Module, int], tuple[Optimizer, LRScheduler | None]]
    sparse: bool = False

    @property
    def key(self) -> str:
        """A short digest of the identity."""
        text = json.dumps([self.identity, self.sparse], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def by_hand(factory: Callable[..., Any], schedule: Schedule, **arguments: Any) -> Recipe:
    """Put all parameters in one group, as one writes it without thinking: `AdamW(model.parameters(), …)`."""
    name = factory.__name__

    def build(model: nn.Module, steps: int) -> tuple[Optimizer, LRScheduler | None]:
        optimizer: Optimizer = factory(model.parameters(), **arguments)
        return optimizer, None if schedule == Schedule() else ScheduledLR(optimizer, schedule, steps)

    values = " ".join(f"{key}={format_value(value)}" for key, value in arguments.items())
    return Recipe(
        describe=f"{name} {values}, {schedule.describe()}".replace(" ,", ","),
        identity={"by_hand": name, "arguments": arguments, "schedule": schedule.to_dict()},
        build=build,
    )


def configured(configuration: Configuration) -> Recipe:
    """Lay a catalogue optimizer out as optselect does: no weight decay on biases, AdamW beside Muon."""

    def build(model: nn.Module, steps: int) -> tuple[Optimizer, LRScheduler | None]:
        return build_groups(param_groups(anatomy_of(model), configuration), configuration.schedule, model, steps)

    return Recipe(describe=configuration.describe(), identity={"configuration": configuration.to_dict()}, build=build)


def planned(plan: OptimizerPlan) -> Recipe:
    """Make a recipe of what `select` chose."""
    described = plan.to_dict()
    chosen = {key: described[key] for key in ("optimizer", "hyperparameters", "param_groups", "schedule")}
    configuration = Configuration(
        optimizer=plan.optimizer, hyperparameters=plan.hyperparameters, schedule=plan.schedule
    )
    return Recipe(
        describe=configuration.describe(),
        identity={"plan": chosen},
        build=lambda model, steps: plan.build(model, total_steps=steps),
        sparse=True,
    )


@dataclass(frozen=True, kw_only=True)
class Run:
    """The mean losses that a full training ended with, and how long it took."""

    val: float
    test: float
    seconds: float


def train(task: Task, data: Splits, recipe: Recipe, seed: int) -> Run:
    """Train `task` to its end. `seed` decides weights, batches and random numbers.

    A training that ends worse than it began counts as the untrained model: nobody would keep it.
    """
    model = task.new_model(seed, sparse=task.sparse and recipe.sparse)
    seed_rng(seed)
    started = time.perf_counter()
    first = fit(task, data.train, recipe, model, seed)
    seconds = time.perf_counter() - started
    val, test = (evaluate(task, model, part) for part in (data.val, data.test))
    if not val < first:
        model = task.new_model(seed)
        untrained = [evaluate(task, model, part) for part in (data.val, data.test)]
        # In this order min() takes the untrained one for a value that is no number, too.
        val, test = (min(limit, value) for limit, value in zip(untrained, (val, test), strict=True))
    return Run(val=val, test=test, seconds=seconds)


def fit(task: Task, data: Tensors, recipe: Recipe, model: nn.Module, seed: int) -> float:
    """Train `model` for the steps of `task`. Returns the loss of the first batch."""
    optimizer, scheduler = recipe.build(model, task.steps)
    _turn(optimizer, "train")
    model.train()
    batches = orders(len(data[0]), task.batch_size, seed)
    first = math.nan
    for index, rows in enumerate(islice(batches, task.steps)):
        *inputs, target = (tensor[rows] for tensor in data)
        optimizer.zero_grad()
        loss = task.loss(model(*inputs), target)
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        if index == 0:
            first = float(loss.detach())
        elif index % _LOOK == 0 and not bool(torch.isfinite(loss)):
            break
    if _turn(optimizer, "eval"):
        _recalibrate(model, (tuple(tensor[rows] for tensor in data[:-1]) for rows in batches))
    return first


def evaluate(task: Task, model: nn.Module, part: Tensors) -> float:
    """Return the mean loss over `part`, in evaluation mode."""
    model.eval()
    total = 0.0
    with torch.set_grad_enabled(task.takes_derivatives):
        for *inputs, target in zip(*(tensor.split(_EVALUATION_BATCH) for tensor in part), strict=True):
            total += float(task.loss(model(*inputs), target).detach()) * len(target)
    return total / len(part[-1])


def _turn(optimizer: Optimizer, mode: str) -> bool:
    """Switch Schedule-Free optimizers, which keep one set of weights to train and another to judge."""
    turn = getattr(optimizer, mode, None)
    if turn is None:
        return False
    turn()
    return True


@torch.no_grad()
def _recalibrate(model: nn.Module, inputs: Iterable[Tensors]) -> None:
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):  # noqa: SLF001  # the only common base
        for batch in islice(inputs, _RECALIBRATION_BATCHES):
            model(*batch)


class Lines:
    """A file of JSON lines that is only appended to. A line torn by a kill is cut off."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        content = file.read_bytes() if file.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            file.write_bytes(whole)
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in whole.splitlines()]

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one line, at once."""
        self.rows.append(dict(row))
        with self.file.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")

    def keep(self, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
        """Drop every other line."""
        self.rows = [row for row in self.rows if wanted(row)]
        self.file.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")


class Trainings:
    """Full trainings by task, length, recipe and seed; what has been run is not run again."""

    def __init__(self, file: Path) -> None:
        self._lines = Lines(file)
        self._known = {self._key(row): _run(row) for row in self._lines.rows}

    def __len__(self) -> int:
        return len(self._known)

    def run(self, task: Task, data: Splits, recipe: Recipe, seed: int) -> Run:
        """Return the full training of `task` with `recipe` and `seed`, run where it is not known yet."""
        row = {"task": task.name, "steps": task.steps, "recipe": recipe.key, "seed": seed}
        if self._key(row) not in self._known:
            done = train(task, data, recipe, seed)
            self._lines.append({**row, **asdict(done), "describe": recipe.describe})
            self._known[self._key(row)] = done
        return self._known[self._key(row)]

    @staticmethod
    def _key(row: Mapping[str, Any]) -> tuple[str, int, str, int]:
        return row["task"], row["steps"], row["recipe"], row["seed"]


def _run(row: Mapping[str, Any]) -> Run:
    return Run(val=row["val"], test=row["test"], seconds=row["seconds"])
