"""Kill workers of one search again and again, and see that it ends as the search of one that nobody killed.

    python -m tests.benchmarks.worker_kills --storage journal --workers 4 --kills 20

Child processes fit the same small model with AutoOptimizer on one storage and end after the decision; every
micro-batch sleeps for a moment, so that a search takes longer than an import. The parent sends SIGKILL to one of them
at random, and starts another in its place. The children call themselves machines of their own, so that nobody can ask
whether one lives: only leases tell. Each that ends must have the plan of a single worker; no job may count twice, what
counts must be within the budget, and no trial may run for two leases longer than its worker.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from optselect import OptimizerPlan
from optselect.study.storage import storage_of
from tests.support.postgres import running_cluster
from tests.support.searches import plain

ROOT = Path(__file__).parents[2]
BUDGET = 1_200
LEASE_SECONDS = 3.0
_LOOK_SECONDS = 0.25

Place = Callable[[Path], str]
"""Where a search in that folder is to be kept."""


@dataclass(frozen=True, kw_only=True)
class Searched:
    """One search of several children.

    plans    of those that ended
    killed   children that were killed while the search went on
    twice    jobs whose outcome was stored more than once
    spent    micro-batches that count
    longest  seconds for which a trial ran on unrenewed
    running  trials that run when all have ended
    """

    plans: Sequence[dict[str, Any]]
    killed: int
    twice: int
    spent: float
    longest: float
    running: int


@dataclass(kw_only=True)
class Watch:
    """For how long each running trial's claim has been as it is, by the parent's clock."""

    seen: dict[int, tuple[Any, float]] = field(default_factory=dict)
    longest: float = 0.0

    def look(self, trials: Sequence[FrozenTrial]) -> None:
        """Look at all of them."""
        now = time.monotonic()
        for trial in trials:
            claim = trial.user_attrs.get("optselect:claim") or {}
            mark = (claim.get("token"), claim.get("renewals"))
            if trial.state != TrialState.RUNNING or self.seen.get(trial.number, (None, now))[0] != mark:
                self.seen[trial.number] = (mark, now)
            else:
                self.longest = max(self.longest, now - self.seen[trial.number][1])


def child(folder: Path, url: str) -> None:
    """One worker."""
    import lightning as L
    import torch

    from optselect import AutoOptimizer, Budget
    from optselect.study import claims, process
    from tests.support.modules import TRAINER, Classifier, loaders

    claims.LEASE_SECONDS = LEASE_SECONDS
    process._machine = lambda: f"machine-{os.getpid()}"  # nobody can ask whether it lives

    class Slow(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            time.sleep(0.03)
            return super().training_step(batch, batch_idx)

    class Decided(L.Callback):
        def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            trainer.should_stop = True

    torch.set_num_threads(1)
    L.seed_everything(3, verbose=False)
    auto = AutoOptimizer(budget=Budget(steps=BUDGET), storage=url, study_name="shared", report=False)
    trainer = L.Trainer(**TRAINER, max_epochs=30, callbacks=[auto, Decided()], default_root_dir=folder)
    trainer.fit(Slow(), *loaders())
    assert auto.plan is not None
    auto.plan.save(folder / f"ended-{os.getpid()}.json")


@contextmanager
def places(storage: str) -> Iterator[Place]:
    """Give a new storage of that kind for each folder: a journal, SQLite, or PostgreSQL on a server of its own."""
    if storage == "postgres":
        with running_cluster() as cluster:
            yield lambda folder: cluster.database()
    else:
        url = {"journal": "{}/study.journal", "sqlite": "sqlite:///{}/study.db"}[storage]
        yield url.format


def search(folder: Path, place: Place, *, workers: int, kills: int, moments: random.Random) -> Searched:
    """Run `workers` children until all have ended, killing one `kills` times while the search goes on."""
    folder.mkdir()
    url = place(folder)
    line = [sys.executable, "-m", "tests.benchmarks.worker_kills", "--child", str(folder), "--storage", url]

    def start() -> subprocess.Popen[bytes]:
        with (folder / "said.txt").open("ab") as said:
            return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=said)

    children = [start() for _ in range(workers)]
    watch, killed, opened, due = Watch(), 0, None, None
    known: set[int] = set()
    while any(process.poll() is None for process in children):
        time.sleep(_LOOK_SECONDS)
        if any(process.poll() not in (None, 0, -signal.SIGKILL) for process in children):
            raise RuntimeError((folder / "said.txt").read_text()[-3_000:])
        opened = opened or _opened(url)
        trials = [] if opened is None else opened.get_trials(deepcopy=False)
        watch.look(trials)
        holders = [_holder(trial) for trial in trials if trial.state == TrialState.RUNNING]
        known |= {pid for pid in holders if pid is not None}
        alive = [process for process in children if process.poll() is None and process.pid in known]
        # One that is at a job, since whoever waits or imports holds nothing; another has to be there to see it.
        struck = [process for process in alive if process.pid in holders]
        if killed == kills or not struck or len(alive) < 2:
            continue
        due = due or time.monotonic() + moments.uniform(0.5, 4.0)
        if time.monotonic() >= due:
            moments.choice(struck).send_signal(signal.SIGKILL)
            killed, due = killed + 1, None
            children.append(start())
    assert opened is not None
    trials = opened.get_trials()
    judged = Counter(
        (trial.user_attrs["optselect:configuration"], trial.user_attrs["optselect:seed"], name)
        for trial in trials
        for name, about in trial.user_attrs.items()
        if name.startswith("optselect:at ") and "turn" in about
    )
    abouts = [about for trial in trials for name, about in trial.user_attrs.items() if name.startswith("optselect:at ")]
    return Searched(
        plans=[plain(OptimizerPlan.load(file)) for file in sorted(folder.glob("ended-*.json"))],
        killed=killed,
        twice=sum(count - 1 for count in judged.values()),
        spent=sum(about["cost"] for about in abouts),
        longest=watch.longest,
        running=sum(trial.state == TrialState.RUNNING for trial in trials),
    )


def _holder(trial: FrozenTrial) -> int | None:
    claim = trial.user_attrs.get("optselect:claim")
    return None if claim is None else int(claim["worker"]["pid"])


def _opened(url: str) -> optuna.Study | None:
    try:
        return optuna.load_study(study_name="shared", storage=storage_of(url))
    except Exception:  # noqa: BLE001  # it is not there yet
        return None


def compare(place: Place, *, workers: int, kills: int, seed: int, root: Path, at_once: int = 3) -> tuple[int, Searched]:
    """Compare a worker that is left alone with several that are killed; return the rounds, and all of them as one."""
    moments = random.Random(seed)
    (alone,) = search(root / "alone", place, workers=1, kills=0, moments=moments).plans
    found: list[Searched] = []
    while sum(each.killed for each in found) < kills:
        wanted = min(at_once, kills - sum(each.killed for each in found))
        found.append(search(root / f"struck{len(found)}", place, workers=workers, kills=wanted, moments=moments))
        same = sum(plan == alone for plan in found[-1].plans)
        print(f"{found[-1].killed} kills; same plan {same} of {len(found[-1].plans)}", file=sys.stderr, flush=True)
    plans = [plan == alone for each in found for plan in each.plans]
    return len(found), Searched(
        plans=[{"same": same} for same in plans],
        killed=sum(each.killed for each in found),
        twice=sum(each.twice for each in found),
        spent=max(each.spent for each in found),
        longest=max(each.longest for each in found),
        running=sum(each.running for each in found),
    )


def main() -> None:
    """Compare workers that are killed with one that is not; print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", default="journal", help="journal, sqlite or postgres")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if given.child:
        child(given.child, given.storage)
        return
    with tempfile.TemporaryDirectory() as root, places(given.storage) as place:
        rounds, found = compare(place, workers=given.workers, kills=given.kills, seed=given.seed, root=Path(root))
    same = sum(plan["same"] for plan in found.plans)
    print(
        f"{given.storage}, {given.workers} workers: {found.killed} kills in {rounds} searches; same plan {same} of "
        f"{len(found.plans)}; jobs stored twice {found.twice}; at most {found.spent:.0f} of {BUDGET} micro-batches; "
        f"longest without renewal {found.longest:.1f} s, lease {LEASE_SECONDS:g} s; running at the end {found.running}"
    )
    held = found.spent <= BUDGET and found.longest <= 2 * LEASE_SECONDS
    if same < len(found.plans) or found.twice or found.running or not held:
        sys.exit(1)


if __name__ == "__main__":
    main()
