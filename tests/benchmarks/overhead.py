"""What a trial costs beside the steps it takes, measured in CPU time; `docs/reference/overhead.md` is made of it.

    python -m tests.benchmarks.overhead

Everything that is compared is run in turn in one process, so that what disturbs one disturbs the others.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import importlib.metadata
import io
import itertools
import logging
import math
import platform
import statistics
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Semaphore
from typing import Any, TypeVar

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.tuner.tuning import Tuner
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from optselect import AutoOptimizer, Budget, LightningWorkload, OptimizerPlan
from optselect.building.groups import param_groups
from optselect.building.optimizer import build_groups
from optselect.configuration import Configuration
from optselect.optim.composite import CompositeOptimizer
from optselect.parameters.anatomy import anatomy_of
from optselect.search.runner import TrialRunner

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "overhead.md"

# Two hidden layers of so many units have about as many parameters as the name says.
WIDTHS = {"1 k": 22, "150 k": 376, "500 k": 696, "2 M": 1400}
INPUTS, CLASSES, BATCH = 16, 4, 32
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}

TRIAL = "trial"
BARE = "bare loop"
BARE_IN_MEMORY = "bare loop, batches in memory"
NESTED = "nested Trainer"
LR_FINDER = "lr finder"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is run.

    widths       of the hidden layers, by what to call the size; the smallest first
    steps        training steps of a trial
    validation   validation batches of a trial
    repetitions  of each way to run a trial
    training     steps of a training after the search
    block        of those steps that it runs before it is the other training's turn
    pairs        of such a training and the hand-written one, each of two runs
    updates      steps of a composite optimizer before its children are stepped by hand as often
    turns        of the two
    """

    widths: dict[str, int]
    steps: int = 100
    validation: int = 5
    repetitions: int = 9
    training: int = 500
    block: int = 20
    pairs: int = 16
    updates: int = 20
    turns: int = 200


@dataclass(frozen=True, kw_only=True)
class Trials:
    """CPU seconds of each way to run the same trial, one entry for each repetition."""

    size: str
    parameters: int
    seconds: dict[str, list[float]]

    def ratios(self, way: str, to: str) -> list[float]:
        """Of the repetitions in turn."""
        return [one / other for one, other in zip(self.seconds[way], self.seconds[to], strict=True)]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """CPU seconds of two ways to do the same thing, run in turn.

    goal  what the interval of their ratio should lie under (None: a row to compare others with)
    """

    what: str
    goal: float | None
    ours: Sequence[float]
    by_hand: Sequence[float]

    def interval(self) -> tuple[float, float, float]:
        """The median ratio, and what the true median lies between in 95 cases of 100.

        By order statistics of the paired ratios, which suppose nothing about their distribution.
        """
        ratios = sorted(ours / by_hand for ours, by_hand in zip(self.ours, self.by_hand, strict=True))
        count = len(ratios)
        tails = itertools.accumulate(math.comb(count, rank) / 2**count for rank in range(count // 2))
        first = max(sum(2 * tail <= 0.05 for tail in tails) - 1, 0)
        return statistics.median(ratios), ratios[first], ratios[count - 1 - first]


class WithoutOptimizer(L.LightningModule):
    """A classifier with two hidden layers, for AutoOptimizer to find an optimizer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(INPUTS, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, CLASSES),
        )

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))


class Network(WithoutOptimizer):
    """The same with the optimizer that every way to run a trial uses."""

    def configure_optimizers(self) -> Any:
        return adamw(self)


Model = TypeVar("Model", bound=WithoutOptimizer)


class Turns(L.Callback):
    """CPU seconds of one of two trainings that take turns of `block` batches, each waiting for the other.

    What slows the machine for a while then slows both. Counted from `on_train_start` until `fit` has returned.
    """

    def __init__(self, mine: Semaphore, others: Semaphore, block: int) -> None:
        self._mine, self._others, self._block = mine, others, block
        self.seconds = 0.0

    def run(self, training: Callable[[L.Callback], object]) -> None:
        """Run it when it is its turn, and never leave the other waiting."""
        torch.set_num_threads(1)  # for this Python thread
        self._mine.acquire()
        try:
            training(self)
            self.seconds += time.process_time() - self._since
        finally:
            self._others.release()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        gc.collect()
        self._hand_over()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % self._block == 0:
            self.seconds += time.process_time() - self._since
            self._hand_over()

    def _hand_over(self) -> None:
        self._others.release()
        self._mine.acquire()
        self._since = time.process_time()


def adamw(module: nn.Module, lr: float = 1e-3) -> Optimizer:
    """AdamW as one writes it, without weight decay on biases."""
    groups: list[dict[str, Any]] = [
        {"params": [p for p in module.parameters() if p.ndim > 1]},
        {"params": [p for p in module.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr)


def batches(count: int, *, shuffle: bool = False) -> DataLoader[Any]:
    """A loader of `count` batches."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(count * BATCH, INPUTS, generator=generator)
    targets = (inputs @ torch.randn(INPUTS, CLASSES, generator=generator)).argmax(1)
    return DataLoader(TensorDataset(inputs, targets), batch_size=BATCH, shuffle=shuffle)


def made(kind: type[Model], width: int) -> Model:
    """A network with reproducible weights."""
    torch.manual_seed(0)
    return kind(width)


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of this process, which others that run beside it do not count towards."""
    start = time.process_time()
    work()
    return time.process_time() - start


# --- trials -----------------------------------------------------------------------------------------------


def measure_trials(size: str, scale: Scale, folder: Path) -> Trials:
    """Run the same trial in all ways in turn, inside a real fit."""
    width = scale.widths[size]
    train, val = batches(scale.steps, shuffle=True), batches(scale.validation)
    in_memory, val_in_memory = list(train), list(val)
    seconds: dict[str, list[float]] = {}

    class Measured(Network):
        def configure_optimizers(self) -> Any:
            workload = LightningWorkload(self.trainer, self)
            with workload.borrowed():
                runner = TrialRunner(workload)
                search_trial(runner, scale, -1)  # draws the batches, as the first trial of a search does
                for repetition in range(scale.repetitions):
                    network = partial(made, Network, width)
                    ways: dict[str, Callable[[], object]] = {
                        TRIAL: partial(search_trial, runner, scale, repetition),
                        BARE: partial(bare_trial, network(), train, val),
                        BARE_IN_MEMORY: partial(bare_trial, network(), in_memory, val_in_memory),
                        NESTED: partial(nested_trial, network(), train, val, folder),
                        LR_FINDER: partial(lr_find, network(), train, val, folder),
                    }
                    # Another one first each time: what ran before leaves its heap and its caches.
                    shift = repetition % len(ways)
                    for way in [*list(ways)[shift:], *list(ways)[:shift]]:
                        gc.collect()
                        seconds.setdefault(way, []).append(cpu_seconds(ways[way]))
            return adamw(self)

    trainer = L.Trainer(**QUIET, max_steps=1, limit_val_batches=scale.validation, default_root_dir=folder)
    module = made(Measured, width)
    trainer.fit(module, train, val)
    return Trials(size=size, parameters=sum(map(torch.numel, module.parameters())), seconds=seconds)


def search_trial(runner: TrialRunner, scale: Scale, index: int) -> None:
    """One trial as the search runs it: begun, trained in chunks, judged, put aside."""
    # Learning rates as good as equal, but not equal: an equal one would go on with the trial before.
    configuration = Configuration(optimizer="adamw", hyperparameters={"lr": 1e-3 + 1e-9 * index})
    outcome = runner.run(configuration, 0, scale.steps)
    if outcome.value is None:
        raise RuntimeError("the trial did not come to its end") from outcome.error


def bare_trial(model: Network, train: Iterable[Any], val: Iterable[Any]) -> float:
    """The same steps and validation in plain PyTorch."""
    optimizer = adamw(model)
    model.train()
    for inputs, targets in train:
        optimizer.zero_grad()
        loss = F.cross_entropy(model.net(inputs), targets)
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        losses = [F.cross_entropy(model.net(inputs), targets) for inputs, targets in val]
    return float(torch.stack(losses).mean())


def nested_trial(model: Network, train: DataLoader[Any], val: DataLoader[Any], folder: Path) -> None:
    """The same in a Trainer of its own, on a copy of the model."""
    trainer = L.Trainer(**QUIET, max_steps=len(train), default_root_dir=folder)
    trainer.fit(copy.deepcopy(model), train, val)


def lr_find(model: Network, train: DataLoader[Any], val: DataLoader[Any], folder: Path) -> None:
    """As many steps of Lightning's learning rate finder, which validates at the end of the epoch too."""
    trainer = L.Trainer(**QUIET, max_epochs=1, default_root_dir=folder)
    with redirect_stderr(io.StringIO()):  # its progress bar cannot be turned off
        Tuner(trainer).lr_find(model, train, val, num_training=len(train), early_stop_threshold=None, update_attr=False)


# --- after the search -------------------------------------------------------------------------------------


def measure_training(size: str, scale: Scale, folder: Path) -> Pairs:
    """A training that a search has gone before, and the hand-written one, in turns."""
    width = scale.widths[size]

    def searched(*callbacks: L.Callback) -> OptimizerPlan:
        storage = folder / f"{uuid.uuid4()}.journal"
        auto = AutoOptimizer(budget=Budget(steps=60), candidates=["adamw"], storage=storage, report=False)
        fit(made(WithoutOptimizer, width), scale, folder, *callbacks, auto)
        if auto.plan is None:
            raise RuntimeError("the search chose nothing")
        return auto.plan

    plan = searched()
    seconds = [
        in_turns(searched, lambda turns: fit(hand_written(plan, width), scale, folder, turns), scale.block)
        for _ in range(scale.pairs)
    ]
    ours, by_hand = zip(*seconds, strict=True)
    return Pairs(what=f"training after the search, {size} parameters", goal=1.03, ours=ours, by_hand=by_hand)


def measure_empty_callback(size: str, scale: Scale, folder: Path) -> Pairs:
    """The same training with a callback that does nothing, and without it, in turns."""
    network = partial(made, Network, scale.widths[size])
    seconds = [
        in_turns(
            lambda turns: fit(network(), scale, folder, turns, L.Callback()),
            lambda turns: fit(network(), scale, folder, turns),
            scale.block,
        )
        for _ in range(scale.pairs)
    ]
    ours, by_hand = zip(*seconds, strict=True)
    return Pairs(what=f"an empty callback, {size} parameters", goal=None, ours=ours, by_hand=by_hand)


def in_turns(
    one: Callable[[L.Callback], object], other: Callable[[L.Callback], object], block: int
) -> tuple[float, float]:
    """CPU seconds of two trainings, each run twice: the one that begins is some per cent the slower one."""
    leads, follows = beginning(one, other, block), beginning(other, one, block)
    return leads[0] + follows[1], leads[1] + follows[0]


def beginning(
    one: Callable[[L.Callback], object], other: Callable[[L.Callback], object], block: int
) -> tuple[float, float]:
    """CPU seconds of two trainings in turns, `one` beginning."""
    first, second = Semaphore(1), Semaphore(0)
    turns = Turns(first, second, block), Turns(second, first, block)
    with ThreadPoolExecutor(2) as pool:
        for running in [pool.submit(mine.run, training) for mine, training in zip(turns, (one, other), strict=True)]:
            running.result()
    return turns[0].seconds, turns[1].seconds


def fit(module: WithoutOptimizer, scale: Scale, folder: Path, *callbacks: L.Callback) -> None:
    """One epoch."""
    trainer = L.Trainer(**QUIET, max_epochs=1, callbacks=list(callbacks), default_root_dir=folder, log_every_n_steps=1)
    trainer.fit(module, batches(scale.training, shuffle=True), batches(scale.validation))


def hand_written(plan: OptimizerPlan, width: int) -> WithoutOptimizer:
    """The network with the plan's optimizer in its `configure_optimizers`."""

    class ByHand(WithoutOptimizer):
        def configure_optimizers(self) -> Any:
            optimizer, scheduler = plan.build(self)
            if scheduler is None:
                return {"optimizer": optimizer}
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    return made(ByHand, width)


def measure_composite(size: str, scale: Scale) -> Pairs:
    """Steps of a composite optimizer in turn with steps of its own children, on the same tensors."""
    model = made(Network, scale.widths[size])
    configuration = Configuration(optimizer="muon", hyperparameters={"lr": 1e-3})
    optimizer, _ = build_groups(param_groups(anatomy_of(model), configuration), configuration.schedule, model, None)
    if not isinstance(optimizer, CompositeOptimizer):
        raise TypeError("Muon leaves biases to AdamW")
    children = list(optimizer.children.values())
    inputs, targets = next(iter(batches(1)))
    F.cross_entropy(model.net(inputs), targets).backward()

    def composite() -> None:
        for _ in range(scale.updates):
            optimizer.step()

    def one_by_one() -> None:
        for _ in range(scale.updates):
            for child in children:
                child.step()

    composite()
    gc.collect()
    ours, by_hand = [], []
    for _ in range(scale.turns):
        ours.append(cpu_seconds(composite))
        by_hand.append(cpu_seconds(one_by_one))
    names = ", ".join(optimizer.children)
    return Pairs(what=f"composite step ({names}), {size} parameters", goal=1.05, ours=ours, by_hand=by_hand)


# --- the page ---------------------------------------------------------------------------------------------


def measure(scale: Scale) -> tuple[list[Trials], list[Pairs]]:
    """All of it: trials at every size, trainings at the two smallest, the rest at the smallest."""
    smallest = next(iter(scale.widths))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trials = [measure_trials(size, scale, Path(folder)) for size in scale.widths]
        pairs = [measure_training(size, scale, Path(folder)) for size in list(scale.widths)[:2]]
        pairs += [measure_empty_callback(smallest, scale, Path(folder)), measure_composite(smallest, scale)]
    return trials, pairs


def page(scale: Scale, trials: Sequence[Trials], pairs: Sequence[Pairs], seconds: float) -> str:
    """What was measured, as docs/reference/overhead.md."""
    packages = ("optselect", "lightning", "torch")
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    return f"""# Trial overhead

What a trial costs beside the steps it takes, against the same steps in plain PyTorch.
This page is written by

<!-- not run: takes long -->
```bash
make overhead                          # python -m tests.benchmarks.overhead
```

CPU time of one process with one thread, {seconds / 60:.0f} minutes in all.
{versions}, Python {platform.python_version()}, {platform.machine()}.

## One trial

A network with two hidden layers, {scale.steps} AdamW steps, {scale.validation} validation batches, {BATCH} rows each.
All ways were run in turn in one process, {scale.repetitions} times, after a trial that draws the batches.
Given are medians, with the smallest and the largest in brackets; a ratio is of two runs of the same turn.

{_times(trials)}

{_ratios(trials)}

- **trial**: `LightningWorkload` as the search runs it, begun, trained in chunks, validated, put aside.
  Its batches were drawn before and are copied out of memory.
- **bare loop**: a loop over the same `DataLoader`s with the same optimizer, nothing logged.
  The goals are for the ratio to this one.
- **bare loop, batches in memory**: the same over lists, which spares it the loader as the trial is spared it.
  What is left of the difference is Lightning's own: hooks, closure, progress, logging.
- **nested Trainer**: a deep copy of the model, fitted and validated by a Trainer of its own.
- **lr finder**: `Tuner.lr_find` with as many steps; its set-up, validation and restoring are part of it.

{_verdicts(trials)}

## After the search

Both ways take turns in one process, {scale.block} batches or {scale.updates} steps each; times are medians.
The interval holds the true median ratio in 95 cases of 100 (order statistics of the paired ratios).

| what | pairs | ours, ms | by hand, ms | ratio | 95 % interval | goal | |
|---|---|---|---|---|---|---|---|
{_lines(map(_pair_row, pairs))}

- **training after the search**: {scale.training} steps that log, from `on_train_start` until `fit` returns, twice.
  By hand: the module with the plan's optimizer in its `configure_optimizers`.
- **an empty callback**: what Lightning takes to call the hooks of any one callback, with and without it.
- **composite step**: {scale.updates} steps of a `CompositeOptimizer`, and of its children by hand.
"""


def _times(trials: Sequence[Trials]) -> str:
    ways = (TRIAL, BARE, BARE_IN_MEMORY, NESTED, LR_FINDER)
    rows = ["| parameters | " + " | ".join(f"{way}, ms" for way in ways) + " |", "|---|" + "---|" * len(ways)]
    for size in trials:
        cells = [_spread([1_000 * seconds for seconds in size.seconds[way]], 0) for way in ways]
        rows.append(f"| {size.parameters:,} | " + " | ".join(cells) + " |")
    return _lines(rows)


def _ratios(trials: Sequence[Trials]) -> str:
    compared = ((TRIAL, BARE), (TRIAL, BARE_IN_MEMORY), (NESTED, BARE), (LR_FINDER, BARE))
    rows = ["| parameters | " + " | ".join(f"{way} / {to}" for way, to in compared) + " |", "|---|---|---|---|---|"]
    for size in trials:
        cells = [_spread(size.ratios(way, to), 2) for way, to in compared]
        rows.append(f"| {size.parameters:,} | " + " | ".join(cells) + " |")
    return _lines(rows)


def _verdicts(trials: Sequence[Trials]) -> str:
    """Whether the goals are reached: 1.2 at about 1 k parameters, 1.05 at 500 k and more."""
    rows = []
    for size in trials:
        goal = 1.2 if size.parameters < 10_000 else 1.05 if size.parameters > 400_000 else None
        if goal is not None:
            ratio = statistics.median(size.ratios(TRIAL, BARE))
            rows.append(
                f"- Goal at {size.parameters:,} parameters: at most {goal} × the bare loop. "
                f"Measured {ratio:.2f}: {_verdict(reached=ratio <= goal)}."
            )
    return _lines(rows)


def _lines(rows: Iterable[str]) -> str:
    return "\n".join(rows)


def _pair_row(pair: Pairs) -> str:
    ratio, low, high = pair.interval()
    ours, by_hand = (1_000 * statistics.median(seconds) for seconds in (pair.ours, pair.by_hand))
    return f"| {pair.what} | {len(pair.ours)} | {ours:.1f} | {by_hand:.1f} | {ratio:.3f} | {low:.3f} to {high:.3f} " + (
        f"| under {pair.goal} | {_verdict(reached=high < pair.goal)} |" if pair.goal else "| | |"
    )


def _spread(values: Sequence[float], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}, {high:.{digits}f})"


def _verdict(*, reached: bool) -> str:
    return "reached" if reached else "**missed**"


def keep_memory() -> None:
    """Let the C library keep what is freed, where it can be told to.

    Whether freed gradients go back to the system depends on what else lies on the heap, and getting them
    anew each step moved the time of a loop by a third either way.
    """
    library = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
    if library is not None:
        trim_threshold, mmap_threshold, most_arenas = -1, -3, -8
        library.mallopt(mmap_threshold, 1 << 30)
        library.mallopt(trim_threshold, 1 << 30)
        library.mallopt(most_arenas, 1)  # or else each of the two trainings in turns has a heap of its own


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=9, help="of each way to run a trial, 5 or more")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("optselect").setLevel(logging.ERROR)
    scale = Scale(widths=WIDTHS, repetitions=given.repetitions)
    start = time.process_time()
    trials, pairs = measure(scale)
    PAGE.write_text(page(scale, trials, pairs, time.process_time() - start))
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
