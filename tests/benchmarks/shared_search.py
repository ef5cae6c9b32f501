"""The same search by 1, 2, 4 and 8 real processes: what they come to, and what it costs all of them together.

    python -m tests.benchmarks.shared_search --budget 400

The first begins it, the others join as `optselect worker` does. `--at-once`: each begins for itself, as trainings do.
Counted is every micro-batch that any of them runs, a forward pass alone as a third, those that measure among them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import optuna

from optselect import OptimizerPlan
from optselect.study.storage import storage_of
from tests.laws.worker_run import NAME
from tests.support.searches import plain

ROOT = Path(__file__).parents[2]
_JOINS_WITHIN_SECONDS = 300.0


def shared(folder: Path, workers: int, budget: int, *, at_once: bool) -> tuple[list[dict[str, Any]], int, float]:
    """The plans of `workers` processes, how many outcomes were stored twice, and the micro-batches of all."""
    folder.mkdir()
    url = f"{folder}/study.journal"
    files = [folder / f"{number}.json" for number in range(workers)]
    joins = [0.0 if at_once or not number else _JOINS_WITHIN_SECONDS for number in range(workers)]
    line = [sys.executable, "-m", "tests.laws.worker_run", url]
    processes = [
        subprocess.Popen([*line, str(file), str(budget), str(each)], cwd=ROOT)
        for file, each in zip(files, joins, strict=True)
    ]
    ended = [process.wait() for process in processes]
    if any(ended):
        raise RuntimeError(f"workers ended with {ended}")
    study = optuna.load_study(study_name=NAME, storage=storage_of(url))
    judged = Counter(
        (trial.user_attrs["optselect:configuration"], trial.user_attrs["optselect:seed"], name)
        for trial in study.get_trials()
        for name, about in trial.user_attrs.items()
        if name.startswith("optselect:at ") and "turn" in about
    )
    cost = sum(float(Path(f"{file}.cost").read_text()) for file in files)
    return [plain(OptimizerPlan.load(file)) for file in files], judged.total() - len(judged), cost


def main() -> None:
    """Print a row for each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=int, default=400, help="micro-batches")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--at-once", action="store_true")
    given = parser.parse_args()
    alone: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as root:
        for workers in given.workers:
            plans, twice, cost = shared(Path(root, str(workers)), workers, given.budget, at_once=given.at_once)
            alone = alone or plans[0]
            same = sum(plan == alone for plan in plans)
            share = cost / given.budget
            print(f"| {workers} | {same} of {workers} | {twice} | {cost:.0f} | {share:.3f} |", flush=True)


if __name__ == "__main__":
    main()
