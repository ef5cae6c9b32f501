"""Whether the callback does harm: each package's training as it is, and with it, judged on data that chose nothing.

    python -m tests.packages.harm --seeds 0 1 2 --budgets default 1 --times 1 4

Each line of FOLDER/PACKAGE.jsonl is one training. What is there already is not run again, so an interrupted
measurement goes on; `--page` writes docs/reference/packages.md of what there is, and trains nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import logging
import math
import statistics
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from optselect import Budget
from tests.packages.running import PACKAGES, Training, auto_optimizer, importable, run, training_of

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "packages.md"
FOLDER = Path(__file__).parent / "measured"
_log = logging.getLogger("harm")
OWN = "own"
DEFAULT = "default"
KEPT = "your own optimizer, as it is"


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


def train(package: str, seed: int, budget: str, epochs: int) -> Row:
    """Run one training."""
    training, begun = training_of(package), time.perf_counter()
    loss, steps, search_steps = None, 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        callbacks = (
            [] if budget == OWN else [auto_optimizer(package, folder, budget=budget_of(training, budget, epochs))]
        )
        try:
            left, loss = run(package, folder / "run", *callbacks, seed=seed, epochs=epochs)
            steps = left.state["steps"][0]
            chosen = "its own"
            if budget != OWN:
                plan = left.auto.plan if left.auto else None
                # Without its name: records of before have none.
                chosen = replace(plan.configuration, called="").describe() if plan else "nothing"
                search_steps = round(plan.search_steps) if plan else 0
        except Exception as error:  # noqa: BLE001  # it is one of the answers
            chosen = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    return Row(
        package=package,
        version=importlib.metadata.version(DISTRIBUTIONS.get(package, package)),
        seed=seed,
        budget=budget,
        epochs=epochs,
        loss=loss if loss is not None and math.isfinite(loss) else None,
        steps=steps,
        search_steps=search_steps,
        seconds=round(time.perf_counter() - begun, 1),
        chosen=chosen,
    )


DISTRIBUTIONS = {"scvi": "scvi-tools"}


def budget_of(training: Training, budget: str, epochs: int) -> Budget | float | None:
    """Read a budget of the command line: the default, or a share of the training."""
    if budget == DEFAULT:
        return None
    streamed: int | None = getattr(training, "STREAMED_STEPS", None)
    return Budget(steps=round(float(budget) * streamed * epochs)) if streamed else float(budget)


def measured(folder: Path) -> list[Row]:
    """Read the trainings that were run."""
    lines = [line for file in sorted(folder.glob("*.jsonl")) for line in file.read_text("utf-8").splitlines()]
    return [Row(**json.loads(line)) for line in lines]


def measure(
    packages: Sequence[str], seeds: Sequence[int], budgets: Sequence[str], times: Iterable[int], folder: Path
) -> None:
    """Run what is not there yet, a seed of all packages before the next."""
    folder.mkdir(parents=True, exist_ok=True)
    done = {(row.package, row.seed, row.budget, row.epochs) for row in measured(folder)}
    for factor, seed, package, budget in itertools.product(times, seeds, packages, (OWN, *budgets)):
        epochs = factor * training_of(package).EPOCHS
        if (package, seed, budget, epochs) in done:
            continue
        row = train(package, seed, budget, epochs)
        with (folder / f"{package}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        _log.warning("%s, seed %d, %s: %s in %s s, %s", package, seed, budget, row.loss, row.seconds, row.chosen)


# --- the page -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Losses of a package's training of one length, at one budget: of the same seeds without the callback and with.

    kept    trainings in which the package's own optimizer stayed as it is
    search  what a search cost, in trainings
    """

    package: str
    steps: int
    budget: str
    own: list[float]
    ours: list[float]
    kept: int
    search: float

    @property
    def differences(self) -> list[float]:
        """Of each seed; what is below zero is better with the callback."""
        return [ours - own for own, ours in zip(self.own, self.ours, strict=True)]

    @property
    def error(self) -> float:
        """The standard error of the mean difference."""
        return statistics.stdev(self.differences) / math.sqrt(len(self.own)) if len(self.own) > 1 else math.nan

    @property
    def row(self) -> str:
        """A line of the table."""
        own, ours, difference = map(statistics.mean, (self.own, self.ours, self.differences))
        better, worse = (sum(sign * each < 0 for each in self.differences) for sign in (1, -1))
        error = "unknown" if math.isnan(self.error) else f"{self.error:.2g}"
        return (
            f"| {self.package} | {self.steps} | {_budget(self.budget)} | {len(self.own)} | {own:.4g} | {ours:.4g} "
            f"| {difference:+.2g} | {error} | {better} / {worse} | {self.kept} | {self.search:.1f} |"
        )


def compared(rows: Sequence[Row]) -> list[Compared]:
    """Pair the trainings by package, length and seed."""
    own = {(row.package, row.epochs, row.seed): row for row in rows if row.budget == OWN and row.loss is not None}
    found = []
    for package, epochs, budget in sorted({(row.package, row.epochs, row.budget) for row in rows}):
        pairs = [
            (own[package, epochs, row.seed], row)
            for row in rows
            if (row.package, row.epochs, row.budget) == (package, epochs, budget)
            and row.loss is not None
            and (package, epochs, row.seed) in own
        ]
        if pairs and budget != OWN:
            found.append(
                Compared(
                    package=package,
                    steps=pairs[0][0].steps,
                    budget=budget,
                    own=[each.loss for each, _ in pairs if each.loss is not None],
                    ours=[each.loss for _, each in pairs if each.loss is not None],
                    kept=sum(each.chosen.startswith(KEPT) for _, each in pairs),
                    search=statistics.mean(each.search_steps / each.steps for _, each in pairs),
                )
            )
    return found


def page(rows: Sequence[Row]) -> str:
    """Write the page of what was measured."""
    own = {(row.package, row.epochs, row.seed): row.loss for row in rows if row.budget == OWN}
    plans = [
        f"| {row.package} {row.version} | {row.steps} | {_budget(row.budget)} | {row.seed} | {row.chosen} "
        f"| {_loss(row.loss)} | {_loss(own.get((row.package, row.epochs, row.seed)))} |"
        for row in sorted(rows, key=lambda row: (row.package, row.epochs, row.budget, row.seed))
        if row.budget != OWN and row.loss is not None
    ]
    found = compared(rows)
    return PAGE_TEXT.format(
        table="\n".join(each.row for each in found),
        summary="\n".join(_summary(found)),
        not_run="\n".join(_not_run(rows)),
        plans="\n".join(plans),
    )


PAGE_TEXT = """# Packages: what the callback does to their trainings

Each package's training as it stands, with the optimizer that the package brings (where it leaves that to its users, one as its examples write it), beside the same training with `AutoOptimizer`.
[How to use optselect with them](../how-to/packages.md) says where the callback goes.

The data are made by code, and the trainings are short: there a search has the fewest steps to tell optimizers apart by, and a package's own rate, meant for longer trainings, is often too low.
Each is run at two lengths, so that the longer one shows what is left of a gain.
The losses are those of data that neither the training nor the search has seen, each in the package's own measure: mean squared errors, cross entropies, negative log likelihoods; lower is better.
A seed draws the same data and weights with the callback and without, so the differences are paired, and the standard error is that of their mean.
"Better / worse" counts seeds; in the rest the own optimizer of the package stayed as it is, and the training ended as without the callback.
What the search cost is in trainings, beside the one that follows.
None of these trainings is among [the recorded ones](portfolio.md) that say what is tried first.
They were measured when with the default budget more arms began, and fewer went further.

<!-- not run: takes long -->
```bash
make test-packages
.venv-packages/bin/python -m tests.packages.harm --seeds 0 1 2 --budgets default 1 --times 1 4
```

| package | steps | budget | seeds | own | optselect | difference | standard error | better / worse | kept its own | search |
|---|---|---|---|---|---|---|---|---|---|---|
{table}

{summary}

## What was not run

{not_run}

## What was chosen

| package | steps | budget | seed | chosen | loss | own |
|---|---|---|---|---|---|---|
{plans}
"""  # noqa: E501  # a sentence is a line


def _budget(budget: str) -> str:
    return budget if budget in (OWN, DEFAULT) else f"{budget} training"


def _loss(loss: float | None) -> str:
    return "none" if loss is None else f"{loss:.4g}"


def _summary(found: Sequence[Compared]) -> list[str]:
    """Count the seeds of all packages, by budget."""
    said = []
    for budget in sorted({each.budget for each in found}, reverse=True):
        differences = [difference for each in found if each.budget == budget for difference in each.differences]
        better, worse = (sum(sign * each < 0 for each in differences) for sign in (1, -1))
        equal = len(differences) - better - worse
        said.append(
            f"- Budget {_budget(budget)}: of {len(differences)} trainings {better} ended better than without the "
            f"callback, {worse} worse, and {equal} as without it."
        )
    return said


def _not_run(rows: Sequence[Row]) -> list[str]:
    """Say what was left out, and what ended in an error."""
    said = [f"- {name}: not measured." for name in PACKAGES if name not in {row.package for row in rows}]
    wanted = {(row.seed, row.budget) for row in rows}
    for package, epochs in sorted({(row.package, row.epochs) for row in rows}):
        there = {(row.seed, row.budget) for row in rows if (row.package, row.epochs) == (package, epochs)}
        missing = ", ".join(str(seed) for seed in sorted({seed for seed, _ in wanted - there}))
        said += [f"- {package}, {epochs} epochs: seeds {missing}, in whole or in part."] if missing else []
    said += [
        f"- {row.package}, {row.epochs} epochs, seed {row.seed}, {_budget(row.budget)} ended in an error: {row.chosen}"
        for row in rows
        if row.loss is None
    ]
    return said or ["Nothing was left out."]


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", nargs="*", default=importable(), choices=list(PACKAGES), metavar="PACKAGE")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--budgets", nargs="*", default=[DEFAULT, "1"], help="`default`, or shares of the training")
    parser.add_argument("--times", nargs="*", type=int, default=[1, 4], help="how long, in the tests' own lengths")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the trainings that were run")
    parser.add_argument("--page", action="store_true", help="write the page of what there is, and train nothing")
    given = parser.parse_args()
    if not given.page:
        logging.disable(logging.INFO)
        warnings.simplefilter("ignore")
        measure(given.packages, given.seeds, given.budgets, given.times, given.folder)
    PAGE.write_text(page(measured(given.folder)), "utf-8")


if __name__ == "__main__":
    main()
