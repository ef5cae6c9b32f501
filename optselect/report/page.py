"""A plan as one HTML page that needs nothing else: no network, no script, no other file.

The same plan gives the same page. Every plot has its numbers in a table beside it, so where matplotlib is
missing the page still says everything.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from optselect.configuration import USER
from optselect.errors import ConfigurationError
from optselect.plan import OptimizerPlan, Reason
from optselect.report.code import as_python
from optselect.report.explanation import because, cost, remarks
from optselect.report.markup import Content, Html, element, fragment
from optselect.report.page_profile import profile_section
from optselect.report.page_proposals import neighbours_section, proposals_section
from optselect.report.page_run import Run, run_section
from optselect.report.page_training import training_section
from optselect.report.page_trials import trials_section
from optselect.report.pieces import cited, scrolling
from optselect.report.trials import is_chosen, ranked, short
from optselect.rules.portfolio import trainings_like_it_were_recorded
from optselect.words import format_duration, format_share, format_value

# Nothing of a page is fetched or run, even if something slipped through the escaping.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def as_html(plan: OptimizerPlan, run: Run | None = None) -> str:
    """Write the whole page; with the `run` that it belongs to, where that is known."""
    sections = list(_sections(plan, run))
    links = (element("li", element("a", title, href=f"#{name}")) for name, title, _ in sections)
    title = f"{short(plan.optimizer)} · optselect report"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        _mark(plan),
        element("title", title),
        element("style", Html(resources.files(__package__).joinpath("page.css").read_text("utf-8"))),
    )
    body = element(
        "body",
        element("a", "Skip to the content", href="#content", class_="skip"),
        element("header", *_hero(plan), element("nav", element("ul", *links), aria_label="Sections")),
        element("main", *(_section(*each) for each in sections), id="content"),
        element("footer", element("p", _made_by(plan))),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def is_page_of(plan: OptimizerPlan, path: str | os.PathLike[str]) -> bool:
    """Tell whether the file at `path` is a page of this very plan."""
    try:
        return _mark(plan) in Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def _mark(plan: OptimizerPlan) -> Html:
    digest = hashlib.sha256(json.dumps(plan.to_dict()).encode()).hexdigest()
    return element("meta", name="optselect:plan", content=digest)


def _section(name: str, title: str, content: Content) -> Html:
    heading = element("h2", title, id=f"{name}-title")
    return element("section", heading, content, id=name, aria_labelledby=f"{name}-title")


def _sections(plan: OptimizerPlan, run: Run | None) -> Iterator[tuple[str, str, Content]]:
    """Yield name, title and content of each section; one that has nothing to say is left out."""
    yield "why", "Why", list(_why(plan))
    if plan.trials:
        yield "trials", "What was tried", list(trials_section(plan))
    if plan.param_groups:
        yield "training", "What trains", list(training_section(plan))
    if plan.profile is not None:
        yield "profile", "What was measured", list(profile_section(plan.profile))
    if plan.proposals:
        yield "proposals", "What the rules proposed", list(proposals_section(plan.proposals))
    if plan.neighbours:
        yield "neighbours", "Recorded trainings like it", list(neighbours_section(plan.neighbours))
    if run is not None:
        yield "run", "The training", list(run_section(run))
    yield "code", "Without optselect", list(_code(plan))
    yield "cost", "Cost", list(_cost(plan))


# --- the choice in short --------------------------------------------------------------------------


def _hero(plan: OptimizerPlan) -> Iterator[Html]:
    yield element("p", "optselect report", class_="kicker")
    yield element("h1", "Your own optimizer" if plan.optimizer == USER else plan.optimizer)
    if plan.optimizer == USER:
        yield element("p", f"As the module's configure_optimizers builds it; {plan.configuration.describe()}.")
    else:
        values = [(name.replace("_", " "), format_value(value)) for name, value in plan.hyperparameters.items()]
        chips = [fragment(name, " ", element("b", value)) for name, value in values]
        yield element("ul", *(element("li", chip) for chip in (*chips, plan.schedule.describe())), class_="settings")
    tiles = [
        element("div", element("dt", name), *(element("dd", each) for each in said)) for name, *said in _tiles(plan)
    ]
    yield from _claim(plan)
    if tiles:
        yield element("dl", *tiles, class_="tiles")


def _claim(plan: OptimizerPlan) -> Iterator[Html]:
    """Say what it is worth in one sentence: the gain over what it had to beat with its error, or why that stays."""
    leads, stays = plan.reasons_of("lead"), plan.reasons_of("baseline", "rules")
    if leads and plan.baseline is not None:
        said = f"ahead of {plan.baseline.describe()}: {leads[0].text}"
    elif stays:
        said = stays[0].text
    else:
        return
    yield element("p", f"{said[:1].upper()}{said[1:]}.", class_="claim")


def _tiles(plan: OptimizerPlan) -> Iterator[tuple[str, ...]]:
    """Yield the tiles: a title, a figure, and what it means."""
    if plan.lead is not None and plan.baseline is not None:
        yield (
            "lead",
            format_share(plan.lead),
            f"{'the' if plan.lead >= 1 else 'of the'} progress of {plan.baseline.describe()}",
        )
    chosen = next((trial for trial in ranked(plan) if is_chosen(plan, trial) and trial.value is not None), None)
    if chosen is not None and chosen.value is not None:
        yield plan.monitor, f"{chosen.value:.4g}", f"in its trial, after {chosen.micro_batches:,} micro-batches"
    if plan.trials:
        failed = sum(trial.value is None for trial in plan.trials)
        yield "trials", str(len(plan.trials)), f"{failed} without a value" if failed else "all with a value"
    if plan.search_steps:
        shares = [reason.value for reason in plan.reasons_of("cost") if reason.value is not None]
        share = f", {shares[0]:.2f} of the training" if shares else ""
        took = f", {format_duration(plan.search_seconds)}" if plan.search_seconds else ""
        yield "cost", f"{plan.search_steps:,}", f"micro-batches{share}{took}"


def _why(plan: OptimizerPlan) -> Iterator[Html]:
    reasons = [*because(plan), *remarks(plan)]
    if not reasons:
        yield element("p", "The plan gives no reasons: it was not made by a search.")
        return
    yield element("ul", *(_reason(reason, plan) for reason in reasons), class_="reasons")


def _reason(reason: Reason, plan: OptimizerPlan) -> Html:
    of_the_record = plan.neighbours and reason.text.startswith(f"{trainings_like_it_were_recorded.name}:")
    return element(
        "li",
        f"{reason.text[:1].upper()}{reason.text[1:]}",
        fragment(" ", element("a", "what did best on them", href="#neighbours")) if of_the_record else None,
        cited(reason.cites) if reason.cites else None,
        class_="strong" if not reason.cites else None,
    )


# --- code, cost -----------------------------------------------------------------------------------


def _code(plan: OptimizerPlan) -> Iterator[Html]:
    try:
        python = as_python(plan)
    except ConfigurationError as error:
        said = str(error)
        yield element("p", f"{said[:1].upper()}{said[1:].rstrip('.')}.")
        return
    yield element("p", "The same optimizer and schedule, to the last bit, for a project that does not use optselect.")
    yield scrolling("Python code", element("pre", element("code", python, class_="language-python")))


def _cost(plan: OptimizerPlan) -> Iterator[Html]:
    for sentence in cost(plan):
        yield element("p", f"{sentence[:1].upper()}{sentence[1:]}.")
    facts = [(element("dt", name), element("dd", version)) for name, version in plan.versions.items()]
    if facts:
        yield element("dl", *facts, class_="facts")


def _made_by(plan: OptimizerPlan) -> str:
    version = plan.versions.get("optselect")
    return f"Written by optselect{f' {version}' if version else ''} from a plan of version {plan.version}."
