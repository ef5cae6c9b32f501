"""Ways to fine-tune two pretrained models, at equal steps and judged on data that no choice has seen.

    python -m tests.benchmarks.fine_tuning --out bench_runs

Each seed is a user: it draws the head, the batches and the dropout, runs what its method runs, keeps what ends
with the lowest validation loss, and is judged on the test data. What has been run is not run again.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optselect import FineTuning, Thaw, catalogue, select
from optselect.configuration import Configuration
from optselect.configuration.schedule import Schedule
from optselect.errors import ConfigurationError, nearest
from optselect.optim.scheduler import ScheduledLR
from optselect.recipes.bench.efficientnet import EfficientNetClassifier, large_digits
from optselect.recipes.bench.lightning_tuner import tune_backbone
from optselect.recipes.bench.methods import quiet
from optselect.recipes.bench.minilm import LAYERS, TOKENS, MiniLMClassifier, sentence_tokens
from optselect.recipes.bench.sources import Tensors
from optselect.recipes.bench.task import Splits, Task, default_cache, training_loader, workload
from optselect.recipes.bench.training import Lines, Recipe, configured, fit, planned
from optselect.search.progress import Silent
from optselect.workload.rng import seed_rng

# Three epochs of 25 batches: enough to thaw after the first, and half a minute on one core.
_STEPS = 75
_SIZES = (400, 256, 500)
_BATCH_SIZE = 16
TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="minilm-tuned",
            family="fine-tuning",
            summary="MiniLM, sentences of film reviews",
            read=lambda: sentence_tokens(TOKENS, 600),
            sizes=_SIZES,
            model=lambda _: MiniLMClassifier(),
            loss=F.cross_entropy,
            batch_size=_BATCH_SIZE,
            steps=_STEPS,
        ),
        Task(
            name="efficientnet-tuned",
            family="fine-tuning",
            summary="EfficientNet-lite0, pictures of digits",
            read=large_digits,
            sizes=_SIZES,
            model=lambda _: EfficientNetClassifier(),
            loss=F.cross_entropy,
            batch_size=_BATCH_SIZE,
            steps=_STEPS,
        ),
    )
}
# The names' beginnings by layer, from input to output, the head left out. By hand: the fixed layer-wise decay is
# not to depend on what optselect finds.
_LAYERS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "minilm-tuned": (
        tuple(f"backbone.{part}." for part in ("words", "places", "kinds", "norm")),
        *((f"backbone.layers.{index}.",) for index in range(LAYERS)),
    ),
    "efficientnet-tuned": (
        ("backbone._conv_stem.", "backbone._bn0."),
        *((f"backbone._blocks.{index}.",) for index in range(16)),
        ("backbone._conv_head.", "backbone._bn1."),
    ),
}
# Where a sweep begins: BERT's usual rates are 1e-5 to 5e-5, and a net with BatchNorm bears much more.
_RATES = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
_MIDDLE: Mapping[str, float] = {"minilm-tuned": 3e-5, "efficientnet-tuned": 3e-3}
# As AutoGluon MultiModal trains: AdamW, a tenth of warmup and then a cosine, weight decay 1e-3, layers .9 apart.
_WEIGHT_DECAY = 1e-3
_LAYER_DECAY = 0.9
_SCHEDULE = Schedule(kind="cosine", warmup_steps=round(_STEPS / 10))


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a full training ended with: mean losses, the share of test examples that are right, and its time."""

    val: float
    test: float
    accuracy: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Way:
    """One training: in words, and what trains a new model of a task with the data and a seed."""

    name: str
    train: Callable[[Task, Splits, nn.Module, int], None]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a method ends with, and the trainings that it took, the one that is kept among them."""

    way: str
    result: Result
    trainings: float


@dataclass(frozen=True, kw_only=True)
class Arena:
    """One task for one seed. `run` trains in full what has not been trained yet."""

    task: Task
    data: Splits
    seed: int
    run: Callable[[Way], Result]

    def best(self, ways: Iterable[Way]) -> Choice:
        """Choose the way that ends with the lowest validation loss."""
        results = {way.name: self.run(way) for way in ways}
        name = min(results, key=lambda each: results[each].val)
        return Choice(way=name, result=results[name], trainings=len(results))

    def sweep(self, way: Callable[[float], Way]) -> Choice:
        """Find the best learning rate: half a decade up and down from the usual one, until both sides are worse."""
        low = _RATES.index(_MIDDLE[self.task.name]) - 1
        high = low + 2
        while True:
            ways = [way(lr) for lr in _RATES[low : high + 1]]
            best = self.best(ways)
            if best.way == ways[0].name and low > 0:
                low -= 1
            elif best.way == ways[-1].name and high < len(_RATES) - 1:
                high += 1
            else:
                return best


Method = Callable[[Arena], Choice]


# --- one training -------------------------------------------------------------------------------------


def trained(task: Task, data: Splits, way: Way, seed: int) -> Result:
    """Train `task` to its end. `seed` decides the head, the batches and the dropout."""
    model = task.new_model(seed)
    seed_rng(seed)
    started = time.perf_counter()
    way.train(task, data, model, seed)
    seconds = time.perf_counter() - started
    (val, _), (test, accuracy) = (judged(task, model, part) for part in (data.val, data.test))
    return Result(val=val, test=test, accuracy=accuracy, seconds=round(seconds, 1))


@torch.no_grad()
def judged(task: Task, model: nn.Module, part: Tensors) -> tuple[float, float]:
    """Return the mean loss over `part` and the share of it that is right, in evaluation mode."""
    model.eval()
    *inputs, target = part
    scores = torch.cat([model(*batch) for batch in zip(*(each.split(64) for each in inputs), strict=True)])
    return float(task.loss(scores, target)), float((scores.argmax(dim=1) == target).float().mean())


def _looped(recipe: Recipe) -> Way:
    """Make a training in the bare loop of the benchmark."""

    def train(task: Task, data: Splits, model: nn.Module, seed: int) -> None:
        fit(task, data.train, recipe, model, seed)

    return Way(name=f"{recipe.describe} [{recipe.key}]", train=train)


# --- what one does without optselect ------------------------------------------------------------------


def one_rate(arena: Arena) -> Choice:
    """Sweep AdamW with one learning rate for all parameters."""
    return arena.sweep(lambda lr: _layered(arena.task, lr, decay=1.0))


def layer_decay(arena: Arena) -> Choice:
    """Sweep AdamW whose rate falls by a tenth from layer to layer below the head."""
    return arena.sweep(lambda lr: _layered(arena.task, lr, decay=_LAYER_DECAY))


def backbone_finetuning(arena: Arena) -> Choice:
    """Sweep with Lightning's callback: the head alone in the first epoch, then all."""
    return arena.sweep(_backbone_later)


def _layered(task: Task, lr: float, decay: float) -> Way:
    def build(model: nn.Module, steps: int) -> tuple[Optimizer, LRScheduler | None]:
        layers = _LAYERS[task.name]
        by_rate: dict[float, list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            level = next((level for level, prefixes in enumerate(layers) if name.startswith(prefixes)), len(layers))
            by_rate.setdefault(lr * decay ** (len(layers) - level), []).append(parameter)
        groups = [{"params": parameters, "lr": rate} for rate, parameters in by_rate.items()]
        optimizer = AdamW(groups, weight_decay=_WEIGHT_DECAY, fused=True)
        return optimizer, ScheduledLR(optimizer, _SCHEDULE, steps)

    identity = {"layer decay": decay, "lr": lr, "schedule": _SCHEDULE.to_dict(), "weight_decay": _WEIGHT_DECAY}
    words = f", layer decay {decay:g}" if decay != 1.0 else ""
    return _looped(Recipe(describe=f"adamw lr={lr:g}{words}", identity=identity, build=build))


def _backbone_later(lr: float) -> Way:
    def train(task: Task, data: Splits, model: nn.Module, seed: int) -> None:
        loader = training_loader(task, data, seed)
        with quiet(), tempfile.TemporaryDirectory() as folder:
            tune_backbone(model, task.loss, loader, lr=lr, steps=task.steps, epoch=1, folder=folder)

    return Way(name=f"BackboneFinetuning after epoch 1, adamw lr={lr:g}", train=train)


# --- optselect ----------------------------------------------------------------------------------------


def by_hand(policy: FineTuning, lr: float) -> Way:
    """Make AdamW with a policy that somebody wrote down."""
    hyperparameters = {**catalogue.get("adamw").defaults(), "lr": lr, "weight_decay": _WEIGHT_DECAY}
    return _looped(
        configured(
            Configuration(optimizer="adamw", hyperparameters=hyperparameters, schedule=_SCHEDULE, fine_tuning=policy)
        )
    )


def _hand_written(arena: Arena, policy: FineTuning) -> Choice:
    """Find the best learning rate for a policy."""
    return arena.sweep(lambda lr: by_hand(policy, lr))


def ours(arena: Arena, amount: float) -> Choice:
    """Run `select` with a budget of `amount` trainings, and the training with its plan."""
    with quiet():
        plan = select(workload(arena.task, arena.data, arena.seed), budget=amount, seed=arena.seed, progress=Silent())
    done = arena.run(_looped(planned(plan)))
    words = f"{plan.optimizer}, {plan.fine_tuning.describe() if plan.fine_tuning else 'one rate'}"
    return Choice(way=words, result=done, trainings=1 + plan.search_steps / arena.task.steps)


# --- the command --------------------------------------------------------------------------------------

# What somebody might write down, with the usual figures: a head that is ten times as fast (it is new, the backbone
# is not), and the head alone in the beginning (Kumar et al. 2022, arXiv:2202.10054).
POLICIES: Mapping[str, FineTuning] = {
    "head×10": FineTuning(head_lr_ratio=10),
    "head×10 decay .8": FineTuning(head_lr_ratio=10, layer_decay=0.8),
    "decay .65": FineTuning(layer_decay=0.65),
    "thaw": FineTuning(thaw=Thaw(share=0.2)),
    "thaw head×10": FineTuning(head_lr_ratio=10, thaw=Thaw(share=0.2)),
    "thaw decay .9": FineTuning(layer_decay=0.9, thaw=Thaw(share=0.2)),
}
METHODS: Mapping[str, Method] = {
    "one rate": one_rate,
    "layer decay": layer_decay,
    "BackboneFinetuning": backbone_finetuning,
    **{name: functools.partial(_hand_written, policy=policy) for name, policy in POLICIES.items()},
    **{f"ours@{amount:g}": functools.partial(ours, amount=amount) for amount in (1.0, 4.0, 8.0)},
}
STANDARD = ("one rate", "layer decay", "BackboneFinetuning", "ours@4")


class Known:
    """Full trainings by task, length, way and seed in a file of lines; what is in it is not run again."""

    def __init__(self, file: Path) -> None:
        self._lines = Lines(file)

    def run(self, task: Task, data: Splits, seed: int, way: Way) -> Result:
        """Return the full training of `task`, run where it is not known yet."""
        row = {"task": task.name, "steps": task.steps, "seed": seed, "way": way.name}
        for known in self._lines.rows:
            if row.items() <= known.items():
                return Result(**{name: known[name] for name in Result.__dataclass_fields__})
        result = trained(task, data, way, seed)
        self._lines.append({**row, **asdict(result)})
        return result


def run(
    *,
    out: Path,
    tasks: Sequence[Task],
    methods: Sequence[str],
    seeds: Sequence[int],
    cache: Path,
    say: Callable[[str], None] = print,
) -> None:
    """Run seed by seed, so that a run that is stopped has whole seeds to show; then print the table."""
    for name in methods:
        if name not in METHODS:
            raise ConfigurationError(
                f"there is no method {name!r}.{nearest(name, METHODS)} Known: {', '.join(METHODS)}"
            )
    data = {task.name: task.splits(cache) for task in tasks}
    known, results = Known(out / "fine-tuning-trainings.jsonl"), Lines(out / "fine-tuning.jsonl")
    for seed in seeds:
        for task in tasks:
            for name in methods:
                row = {"task": task.name, "steps": task.steps, "seed": seed, "method": name}
                if not any(row.items() <= done.items() for done in results.rows):
                    arena = Arena(
                        task=task,
                        data=data[task.name],
                        seed=seed,
                        run=functools.partial(known.run, task, data[task.name], seed),
                    )
                    choice = METHODS[name](arena)
                    results.append({**row, **asdict(choice)})
                    say(json.dumps(results.rows[-1], ensure_ascii=False))
    say(table(results.rows, [task.name for task in tasks], methods, seeds))


def table(rows: Iterable[Mapping[str, Any]], tasks: Sequence[str], methods: Sequence[str], seeds: Sequence[int]) -> str:
    """Tabulate test loss and accuracy of each method, mean ± standard deviation over the seeds so far, in Markdown."""
    rows = list(rows)
    lines = ["| task | method | seeds | test loss | accuracy | trainings |", "|---|---|---|---|---|---|"]
    for task in tasks:
        for method in methods:
            found = [row for row in rows if (row["task"], row["method"]) == (task, method) and row["seed"] in seeds]
            if found:
                loss, right = (_spread([row["result"][name] for row in found]) for name in ("test", "accuracy"))
                cost = statistics.mean(row["trainings"] for row in found)
                lines.append(f"| {task} | {method} | {len(found)} | {loss} | {right} | {cost:.1f} |")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench_runs"))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", nargs="+", default=STANDARD, help=", ".join(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cache", type=Path, default=default_cache())
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    run(
        out=given.out,
        tasks=[TASKS[name] for name in given.tasks],
        methods=given.methods,
        seeds=given.seeds,
        cache=given.cache,
        say=functools.partial(print, flush=True),
    )


if __name__ == "__main__":
    main()
