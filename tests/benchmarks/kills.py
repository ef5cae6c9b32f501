"""Kill a training again and again, and see that it ends as if nobody had.

    python -m tests.benchmarks.kills --what search --storage journal --kills 20
    python -m tests.benchmarks.kills --what run --kills 30

A child process fits a small model with AutoOptimizer (`search`: and ends after the decision). The parent
sends it SIGKILL at a random moment of its work, and starts the same line again until it ends. The plan must be that
of an uninterrupted child; for `run`, which asks for `ckpt_path="last"`, so must the final weights. Where the kills fell
is counted, since one that comes too early or too late would show nothing.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.searches import plain

ROOT = Path(__file__).parents[2]
_LOOK_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a child that was left alone, or started again after each kill, ended.

    killed   kills by what they struck
    seconds  between the last child's first write and its end
    """

    plan: dict[str, Any]
    weights: dict[str, Any]
    killed: Counter[str]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Kills by what they struck, the trainings that they struck, and how many of these ended as if nobody had."""

    killed: Counter[str]
    rounds: int
    same_plan: int
    same_weights: int


def child(folder: Path, what: str, storage: str) -> None:
    """One attempt at the training in `folder`."""
    import lightning as L
    import torch
    from lightning.pytorch.callbacks import ModelCheckpoint

    from optselect import AutoOptimizer, Budget
    from tests.support.modules import TRAINER, Classifier, loaders

    class Decided(L.Callback):
        def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            trainer.should_stop = what == "search"

    torch.set_num_threads(1)
    L.seed_everything(3, verbose=False)
    path = folder / "study.journal" if storage == "journal" else f"sqlite:///{folder / 'study.db'}"
    auto = AutoOptimizer(budget=Budget(steps=1_200), storage=path)
    saving = ModelCheckpoint(folder, save_last=True, every_n_epochs=1, save_on_train_epoch_end=True)
    trainer = L.Trainer(
        **{**TRAINER, "enable_checkpointing": True},
        max_epochs=30,
        callbacks=[auto, saving, Decided()],
        default_root_dir=folder,
    )
    module = Classifier()
    train, val = loaders()
    trainer.fit(module, train, val, ckpt_path="last" if what == "run" else None, weights_only=None)
    assert auto.plan is not None
    auto.plan.save(folder / "ended.json")
    torch.save(module.state_dict(), folder / "ended.pt")


def end(folder: Path, what: str, storage: str, *, kills: int, within: float, moments: random.Random) -> Ended:
    """Run children until one ends by itself, killing the first `kills` of them at random moments of their work."""
    import torch

    from optselect import OptimizerPlan

    killed: Counter[str] = Counter()
    while True:
        line = ["-m", "tests.benchmarks.kills", "--child", str(folder), "--what", what, "--storage", storage]
        before = written(folder)
        process = subprocess.Popen(
            [sys.executable, *line], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        # Until it writes it imports, and a kill would strike nothing.
        while process.poll() is None and written(folder) == before:
            time.sleep(_LOOK_SECONDS)
        begun = time.monotonic()
        if killed.total() < kills:
            time.sleep(moments.uniform(0.0, within))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                killed[doing(folder)] += 1
                continue
        _, words = process.communicate()
        if process.returncode != 0:
            raise RuntimeError(words)
        plan = plain(OptimizerPlan.load(folder / "ended.json"))  # without what is the machine's, not the training's
        return Ended(
            plan=plan,
            weights=torch.load(folder / "ended.pt", weights_only=True),
            killed=killed,
            seconds=time.monotonic() - begun,
        )


def written(folder: Path) -> int:
    """Another number whenever a file in `folder` is written to."""
    with suppress(FileNotFoundError):  # one was taken away in the midst of looking
        return sum(file.stat().st_mtime_ns for file in folder.rglob("*"))
    return 0


def doing(folder: Path) -> str:
    """What a child in `folder` was at, by the files that it has left."""
    if (folder / "last.ckpt").exists():
        return "after a checkpoint"
    return "after the decision" if (folder / "plan.json").exists() else "in the search"


def compare(what: str, storage: str, *, kills: int, seed: int, root: Path) -> Comparison:
    """A child that is left alone against children that are killed, `kills` times in all."""
    moments = random.Random(seed)
    (root / "alone").mkdir()
    reference = end(root / "alone", what, storage, kills=0, within=0.0, moments=moments)
    within = reference.seconds
    rounds = same_plan = same_weights = 0
    killed: Counter[str] = Counter()
    while killed.total() < kills:
        folder = root / f"struck{rounds}"
        folder.mkdir()
        # Kills come in threes, so that each search is struck more than once and still gets on.
        wanted = min(3, kills - killed.total())
        ended = end(folder, what, storage, kills=wanted, within=within, moments=moments)
        killed += ended.killed
        rounds += 1
        same_plan += ended.plan == reference.plan
        same_weights += all(bool((ended.weights[name] == value).all()) for name, value in reference.weights.items())
        if not ended.killed:
            within *= 0.8
    return Comparison(killed=killed, rounds=rounds, same_plan=same_plan, same_weights=same_weights)


def main() -> None:
    """Compare a child that is killed with one that is not; print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=["search", "run"], default="search")
    parser.add_argument("--storage", choices=["journal", "sqlite"], default="journal")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.what, given.storage)
        return
    with tempfile.TemporaryDirectory() as root:
        found = compare(given.what, given.storage, kills=given.kills, seed=given.seed, root=Path(root))
    where = ", ".join(f"{count} {moment}" for moment, count in found.killed.most_common())
    print(
        f"{given.what}, {given.storage}: {found.killed.total()} kills ({where}) in {found.rounds} trainings; "
        f"same plan {found.same_plan} of {found.rounds}, same weights {found.same_weights} of {found.rounds}"
    )
    if min(found.same_plan, found.same_weights) < found.rounds:
        sys.exit(1)


if __name__ == "__main__":
    main()
