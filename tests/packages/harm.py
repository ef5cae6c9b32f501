"""Whether the callback does harm: each package's training as it is, and with optselect, judged on data that chose nothing.

    python -m tests.packages.harm --seeds 0 1 2 --budgets default 1

Each line of FOLDER/PACKAGE.jsonl is one training. What is there already is not run again, so an interrupted
measurement goes on; `--page` writes docs/reference/packages.md of what there is, and trains nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import math
import statistics
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.packages.running import PACKAGES, auto_optimizer, importable, run, training_of

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "packages.md"
FOLDER = Path(__file__).parent / "measured"
OWN = "own"
DEFAULT = "default"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One training.

    budget  the callback's, or `own` where there was no callback
    loss    on the data that chose nothing; None where the training ended in an error
    chosen  the plan in words, or the error
    """

    package: str
    version: str
    seed: int
    budget: str
    epochs: int
    loss: float | None
    steps: int
    search_steps: int
    seconds: float
    chosen: str


def train(package: str, seed: int, budget: str) -> Row:
    """Run one training."""
    training, begun = training_of(package), time.perf_counter()
    loss, steps, search_steps = None, 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given: dict[str, Any] = {} if budget == DEFAULT else {"budget": float(budget) if budget != OWN else None}
        callbacks = [] if budget == OWN else [auto_optimizer(package, folder, **given)]
        try:
            left, loss = run(package, folder / "run", *callbacks, seed=seed, epochs=training.EPOCHS)
            steps = left.state["steps"][0]
            chosen = "its own"
            if budget != OWN:
                plan = left.auto.plan if left.auto else None
                chosen = plan.configuration.describe() if plan else "nothing"
                search_steps = round(plan.search_steps) if plan else 0
        except Exception as error:  # noqa: BLE001  # it is one of the answers
            chosen = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    return Row(
        package=package,
        version=importlib.metadata.version(DISTRIBUTIONS.get(package, package)),
        seed=seed,
        budget=budget,
        epochs=training.EPOCHS,
        loss=loss if loss is not None and math.isfinite(loss) else None,
        steps=steps,
        search_steps=search_steps,
        seconds=round(time.perf_counter() - begun, 1),
        chosen=chosen,
    )


DISTRIBUTIONS = {"scvi": "scvi-tools"}


def measured(folder: Path) -> list[Row]:
    """Read the trainings that were run."""
    lines = [line for file in sorted(folder.glob("*.jsonl")) for line in file.read_text("utf-8").splitlines()]
    return [Row(**json.loads(line)) for line in lines]


def measure(packages: Sequence[str], seeds: Iterable[int], budgets: Sequence[str], folder: Path) -> None:
    """Run what is not there yet, a seed of all packages before the next."""
    folder.mkdir(parents=True, exist_ok=True)
    done = {(row.package, row.seed, row.budget) for row in measured(folder)}
    for seed in seeds:
        for package in packages:
            for budget in (OWN, *budgets):
                if (package, seed, budget) in done:
                    continue
                row = train(package, seed, budget)
                with (folder / f"{package}.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(row)) + "\n")
                print(f"{package}, seed {seed}, {budget}: {row.loss} in {row.seconds} s, {row.chosen}", flush=True)


# --- the page -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A package at one budget: the losses of the same seeds without the callback and with it."""

    package: str
    budget: str
    own: list[float]
    ours: list[float]
    kept: int
    search: float

    @property
    def differences(self) -> list[float]:
        return [ours - own for own, ours in zip(self.own, self.ours, strict=True)]

    @property
    def error(self) -> float:
        """The standard error of the mean difference."""
        return statistics.stdev(self.differences) / math.sqrt(len(self.own)) if len(self.own) > 1 else math.nan

    @property
    def verdict(self) -> str:
        """How many seeds ended better and worse; the rest kept what the package brings and ended equal."""
        better, worse = (sum(sign * each < 0 for each in self.differences) for sign in (1, -1))
        return f"{better} / {worse}"


def compared(rows: Sequence[Row]) -> list[Compared]:
    """Pair the trainings by package and seed."""
    own = {(row.package, row.seed): row.loss for row in rows if row.budget == OWN and row.loss is not None}
    found = []
    for package, budget in sorted({(row.package, row.budget) for row in rows if row.budget != OWN}):
        pairs = [
            (own[package, row.seed], row.loss, row)
            for row in rows
            if (row.package, row.budget) == (package, budget) and row.loss is not None and (package, row.seed) in own
        ]
        if pairs:
            found.append(
                Compared(
                    package=package,
                    budget=budget,
                    own=[each[0] for each in pairs],
                    ours=[each[1] for each in pairs],
                    kept=sum(each[2].chosen.startswith("your own optimizer, as it is") for each in pairs),
                    search=statistics.mean(each[2].search_steps / each[2].steps for each in pairs),
                )
            )
    return found


def page(rows: Sequence[Row]) -> str:
    """Write the page of what was measured."""
    lines = [
        "# Packages: what the callback does to their trainings",
        "",
        "Each package's training as it stands, with the optimizer that the package brings (of those that bring none, "
        "the one of their examples), beside the same training with `AutoOptimizer`.",
        "The data are made by code, and tiny: tens to two hundred steps, which is where a search can do the most harm.",
        "The loss is that on data that neither the training nor the search has seen; lower is better.",
        "The same seed draws the same data and weights for both, so the differences are paired, "
        "and the standard error is that of their mean.",
        "",
        "<!-- not run: takes long -->",
        "```bash",
        "make test-packages   # the environment, and whether each package works, leaves no trace and resumes",
        ".venv-packages/bin/python -m tests.packages.harm --seeds 0 1 2 --budgets default 1",
        "```",
        "",
        "| package | budget | seeds | own | optselect | difference | standard error | better / worse | kept its own "
        "| the search cost |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for each in compared(rows):
        own, ours, difference = map(statistics.mean, (each.own, each.ours, each.differences))
        budget = each.budget if each.budget == DEFAULT else f"{each.budget} training"
        error = "unknown" if math.isnan(each.error) else f"{each.error:.2g}"
        lines.append(
            f"| {each.package} | {budget} | {len(each.own)} | {own:.4g} | {ours:.4g} | {difference:+.2g} "
            f"| {error} | {each.verdict} | {each.kept} of {len(each.own)} | {each.search:.1f} trainings |"
        )
    lines += ["", *_failures(rows), *_left_out(rows), "## What was chosen", ""]
    lines += ["| package | seed | budget | chosen | loss | own |", "|---|---|---|---|---|---|"]
    own = {(row.package, row.seed): row.loss for row in rows if row.budget == OWN}
    lines += [
        f"| {row.package} {row.version} | {row.seed} | {row.budget} | {row.chosen} | {_loss(row.loss)} "
        f"| {_loss(own.get((row.package, row.seed)))} |"
        for row in sorted(rows, key=lambda row: (row.package, row.budget, row.seed))
        if row.budget != OWN
    ]
    return "\n".join(lines) + "\n"


def _loss(loss: float | None) -> str:
    return "none" if loss is None else f"{loss:.4g}"


def _failures(rows: Sequence[Row]) -> list[str]:
    failed = [row for row in rows if row.loss is None]
    if not failed:
        return []
    said = [f"- {row.package}, seed {row.seed}, {row.budget}: {row.chosen}" for row in failed]
    return ["## What ended in an error", "", *said, ""]


def _left_out(rows: Sequence[Row]) -> list[str]:
    missing = [name for name in PACKAGES if name not in {row.package for row in rows}]
    return [f"Not measured: {', '.join(missing)}.", ""] if missing else []


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", nargs="*", default=importable(), choices=list(PACKAGES), metavar="PACKAGE")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--budgets", nargs="*", default=[DEFAULT, "1"], help="`default`, or shares of the training")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the trainings that were run")
    parser.add_argument("--page", action="store_true", help="write the page of what there is, and train nothing")
    given = parser.parse_args()
    if not given.page:
        logging.disable(logging.INFO)
        warnings.simplefilter("ignore")
        measure(given.packages, given.seeds, given.budgets, given.folder)
    PAGE.write_text(page(measured(given.folder)), "utf-8")


if __name__ == "__main__":
    main()
