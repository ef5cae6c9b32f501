"""The section of a page that shows what was tried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from optselect.configuration import Trial
from optselect.plan import OptimizerPlan
from optselect.report import figures
from optselect.report.importance import FEWEST, SURE, importance
from optselect.report.markup import Html, element
from optselect.report.pieces import figure, scrolling, table
from optselect.report.trials import (
    best,
    but_for_its_rate,
    is_chosen,
    label,
    main_rung,
    points,
    ranked,
    rate_name,
    relative_pace,
    role,
    rungs,
    series,
    short,
)
from optselect.words import format_value

_MATTERED = {"lr": "learning rate", "parts of the model": "how parts are trained"}


def trials_section(plan: OptimizerPlan) -> Iterator[Html]:
    """Show the curves, the valley of learning rates, and every trial at every rung."""
    trials, numbers = ranked(plan), series(plan)
    curves = [trial for trial in trials if trial.values]
    rung = main_rung(plan)
    sense = "smaller" if plan.mode == "min" else "larger"
    yield element(
        "p",
        f"Trials run the beginning of the real schedule and are judged by {plan.monitor or 'the monitored value'} "
        f"({sense} is better). All trials of one seed see the same batches."
        + (" They are compared at equal time, in micro-batches of the baseline." if plan.compare == "seconds" else ""),
    )
    if rung is not None:
        yield _legend(plan)
        pictures = []
        curve = (
            figure(
                "Learning curves",
                "The value at each rung. Thick: the chosen one. Dashed: the baseline. Dotted: another data order.",
                lambda: figures.learning_curves(plan, curves, _said_of_curves(plan, curves)),
            ),
        )
        rated = sorted(
            points(plan, trials, rung), key=lambda point: (numbers[point[0].configuration.optimizer], point[1])
        )
        if rated:
            rows = [
                (short(trial.configuration.optimizer), format_value(rate), f"{value:.4g}")
                for trial, rate, value in rated
            ]
            title = f"{plan.monitor} after {rung:,} micro-batches by {rate_name(plan)}"
            pictures.append(
                figure(
                    "Learning rate",
                    f"The value after {rung:,} micro-batches. A line joins what differs in the rate alone. Ringed: the "
                    f"chosen one. Dashed: the baseline."
                    f"{_said_of_ends(plan, [(trial, rate) for trial, rate, _ in rated])}",
                    lambda: figures.rates(plan, trials, rung, f"{title}; the numbers are in the table below"),
                    table(title, ("optimizer", rate_name(plan), plan.monitor), rows, numbers=(1, 2)),
                )
            )
        yield element("div", *pictures, *curve, class_="grid")
        yield from _importance(plan)
    yield from _untried(plan)
    yield _rungs(plan, trials)


def _said_of_ends(plan: OptimizerPlan, rated: Sequence[tuple[Trial, float]]) -> str:
    """Say where a choice stands at the end of its line, or where two points are none."""
    chosen = [rate for trial, rate in rated if is_chosen(plan, trial)]
    if not chosen:
        judged = any(is_chosen(plan, trial) and trial.values for trial in plan.trials)
        return " The chosen one was judged at other rungs alone: see the curves." if judged else ""
    line = but_for_its_rate(plan.configuration)
    own = sorted(rate for trial, rate in rated if but_for_its_rate(trial.configuration) == line)
    if len(own) < 2:
        return ""
    if len(own) == 2:
        return f" {short(plan.optimizer)} has two such rates alone, which show no valley."
    if chosen[0] in (own[0], own[-1]):
        return " The chosen rate is the last of its line: a better one may lie beyond."
    return ""


def _importance(plan: OptimizerPlan) -> Iterator[Html]:
    """Show how much each hyperparameter mattered, or say that there are too few trials to tell."""
    found = importance(plan)
    if found is None:
        return
    if not found.shares:
        lack = f"{FEWEST} that can be compared" if found.trials < FEWEST else "trials that differ"
        said = (
            f"How much each hyperparameter mattered takes {lack} to tell; after {found.rung:,} micro-batches there are"
        )
        yield element("p", f"{said} {found.trials}.", class_="note")
        return
    shares = {_MATTERED.get(name, name.replace("_", " ")): share for name, share in found.shares.items()}
    title = f"What the order of {found.trials} trials after {found.rung:,} micro-batches has to do with"
    doubt = " Of so few trials the first is mostly right, the order of the others not." if found.trials < SURE else ""
    picture = figure(
        "What mattered",
        f"{title}: each hyperparameter's share of what they explain one by one (fANOVA). A search tries most where it "
        f"is good, and what was hardly varied seems to matter little.{doubt}",
        lambda: figures.shares(shares, f"{title}; the numbers are in the table below"),
        table(title, ("hyperparameter", "share"), [(n, f"{share:.0%}") for n, share in shares.items()], numbers=(1,)),
    )
    yield element("div", picture, class_="alone")


def _untried(plan: OptimizerPlan) -> Iterator[Html]:
    """Say what was proposed and not tried."""
    tried = {trial.configuration.optimizer for trial in plan.trials}
    names = [each for each in dict.fromkeys(proposal.optimizer for proposal in plan.proposals) if each not in tried]
    if names:
        yield element("p", f"Proposed, but not tried within the budget: {', '.join(map(short, names))}.", class_="note")


def _said_of_curves(plan: OptimizerPlan, curves: Sequence[Trial]) -> str:
    chosen = next((trial for trial in curves if is_chosen(plan, trial)), None)
    ends = f"; {label(chosen)} ends at {chosen.value:.4g}" if chosen and chosen.value is not None else ""
    return f"{plan.monitor} of {len(curves)} trials by micro-batches{ends}; the numbers are in the table of rungs"


def _legend(plan: OptimizerPlan) -> Html:
    """Show which optimizer has which colour and marker."""
    seen = {trial.configuration.optimizer for trial in plan.trials}
    items = (
        element(
            "li",
            element("span", figures.marker(number), style=f"color: var({figures.colour(number)})", aria_hidden="true"),
            short(name),
        )
        for name, number in series(plan).items()
        if name in seen
    )
    return element("ul", *items, class_="legend", aria_label="Optimizers")


def _rungs(plan: OptimizerPlan, trials: Sequence[Trial]) -> Html:
    """Tabulate the trials: a row for each trial, a column for each rung."""
    columns = rungs(plan)
    leaders = {rung: best(plan, rung) for rung in columns}
    rows = []
    for trial in trials:
        said = role(plan, trial)
        mark = element("span", said, class_="role") if said else None
        what = trial.configuration.describe() + (f" (seed {trial.seed})" if trial.seed else "")
        cells = [_cell(trial.values.get(rung), leaders[rung], f"after {rung:,}") for rung in columns]
        rows.append(
            element(
                "tr",
                element("th", what, mark, scope="row", class_="names"),
                *cells,
                element("td", relative_pace(plan, trial), class_="number", data_label="time of a step"),
                element("td", " ".join(trial.ending.split()), data_label="state"),
                class_="chosen" if is_chosen(plan, trial) else None,
            )
        )
    header = element(
        "tr",
        element("th", "configuration", scope="col"),
        *(element("th", f"{rung:,}", scope="col", class_="number") for rung in columns),
        element("th", "time of a step", scope="col", class_="number"),
        element("th", "state", scope="col"),
    )
    caption = (
        f"{plan.monitor} after so many micro-batches, the best of each rung in bold; the time of a step beside the "
        "baseline's"
    )
    return scrolling(
        "Rungs",
        element(
            "table",
            element("caption", element("span", caption)),
            element("thead", header),
            element("tbody", *rows),
            class_="cards",
        ),
    )


def _cell(value: float | None, leader: float, said: str) -> Html:
    if value is None:
        return element("td", "—", class_="number", data_label=said)
    best_of_all = "number best" if value == leader else "number"
    return element("td", f"{value:.4g}", class_=best_of_all, data_label=said)
