"""A plan as one HTML page that needs nothing else: no network, no script, no other file.

The same plan gives the same page. Every plot has its numbers in a table beside it, so where matplotlib is
missing the page still says everything.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path

from optselect.configuration import USER, format_value
from optselect.errors import ConfigurationError
from optselect.plan import OptimizerPlan
from optselect.profile.text import described
from optselect.profile.values import Profile
from optselect.report import figures
from optselect.report.code import as_python, as_yaml
from optselect.report.explanation import because, by_weight, cost, source, speakers
from optselect.report.groups import group_table
from optselect.report.markup import Content, Html, element, fragment
from optselect.report.rates import Rate, rates_of
from optselect.report.trials import Tried, best, main_rung, optimizers, points, rate_name, rungs, short, tried
from optselect.rules import Proposal, Vote

_LAYERS = 24
_CLASSES = 100
# Nothing of a page is fetched or run, even if something slipped through the escaping.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def as_html(plan: OptimizerPlan) -> str:
    """The whole page."""
    sections = list(_sections(plan))
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
    """Whether the file at `path` is a page of this very plan."""
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


def _sections(plan: OptimizerPlan) -> Iterator[tuple[str, str, Content]]:
    """Name, title and content; a section that has nothing to say is left out."""
    yield "why", "Why", list(_why(plan))
    if plan.trials:
        yield "trials", "What was tried", list(_trials(plan))
    if plan.param_groups:
        yield "training", "What trains", list(_training(plan))
    if plan.profile is not None:
        yield "profile", "What was measured", list(_profile(plan.profile))
    if plan.proposals:
        yield "proposals", "What the rules proposed", list(_proposals(plan.proposals))
    yield "code", "Without optselect", list(_code(plan))
    yield "cost", "Cost", list(_cost(plan))


# --- the choice in short --------------------------------------------------------------------------


def _hero(plan: OptimizerPlan) -> Iterator[Html]:
    yield element("p", "optselect report", class_="kicker")
    yield element("h1", "Your own optimizer" if plan.optimizer == USER else plan.optimizer)
    if plan.optimizer == USER:
        said = plan.configuration.describe().partition(", ")[2]
        yield element("p", f"As the module's configure_optimizers builds it, {said}.")
    else:
        values = [(name.replace("_", " "), format_value(value)) for name, value in plan.hyperparameters.items()]
        chips = [fragment(name, " ", element("b", value)) for name, value in values]
        yield element("ul", *(element("li", chip) for chip in (*chips, plan.schedule.describe())), class_="settings")
    tiles = [
        element("div", element("dt", name), *(element("dd", each) for each in said)) for name, *said in _tiles(plan)
    ]
    if tiles:
        yield element("dl", *tiles, class_="tiles")


def _tiles(plan: OptimizerPlan) -> Iterator[tuple[str, ...]]:
    """A title, a figure, and what it means."""
    if plan.lead is not None and plan.baseline is not None:
        base = "your own optimizer as it is" if plan.baseline.optimizer == USER else plan.baseline.optimizer
        yield "lead", f"{plan.lead:.0%}", f"over the baseline, {base}"
    chosen = next((each.record for each in tried(plan) if each.is_chosen and each.record.value is not None), None)
    if chosen is not None and chosen.value is not None:
        yield plan.monitor, f"{chosen.value:.4g}", f"in its trial, after {chosen.micro_batches:,} micro-batches"
    if plan.trials:
        failed = sum(record.value is None for record in plan.trials)
        yield "trials", str(len(plan.trials)), f"{failed} without a value" if failed else "all with a value"
    if plan.search_steps:
        share = re.search(r"([\d.]+) of the training", " ".join(cost(plan)))
        yield "cost", f"{plan.search_steps:,}", f"micro-batches, {share.group()}" if share else "micro-batches"


def _why(plan: OptimizerPlan) -> Iterator[Html]:
    reasons = because(plan)
    if not reasons:
        yield element("p", "The plan gives no reasons: it was not made by a search.")
        return
    yield element("ul", *map(_reason, reasons), class_="reasons")


def _reason(text: str) -> Html:
    said, cited = re.fullmatch(r"(.*?)(?: \[(.*)\])?", text, flags=re.DOTALL).groups()  # type: ignore[union-attr]  # matches anything
    return element(
        "li",
        f"{said[:1].upper()}{said[1:]}",
        element("cite", cited) if cited else None,
        class_="strong" if not cited else None,
    )


# --- the trials -----------------------------------------------------------------------------------


def _trials(plan: OptimizerPlan) -> Iterator[Html]:
    trials = tried(plan)
    curves = [each for each in trials if each.record.values]
    rung = main_rung(plan)
    sense = "smaller" if plan.mode == "min" else "larger"
    yield element(
        "p",
        f"Trials run the beginning of the real schedule and are judged by {plan.monitor or 'the monitored value'} "
        f"({sense} is better). All trials of one seed see the same batches.",
    )
    if rung is not None:
        yield _legend(plan)
        pictures = [
            _figure(
                "Learning curves",
                "The value at each rung. Thick: the chosen one. Dashed: the baseline. Dotted: another data order.",
                lambda: figures.learning_curves(curves, plan.monitor, _said_of_curves(plan, curves)),
            )
        ]
        rated = sorted(points(plan, trials, rung), key=lambda point: (point[0].series, point[1]))
        if rated:
            rows = [(each.name, format_value(rate), f"{value:.4g}") for each, rate, value in rated]
            title = f"{plan.monitor} after {rung:,} micro-batches by {rate_name(plan)}"
            pictures.append(
                _figure(
                    "Learning rate",
                    f"The value after {rung:,} micro-batches. Ringed: the chosen one. Dashed: the baseline.",
                    lambda: figures.rates(plan, trials, rung, f"{title}; the numbers are in the table below"),
                    _table(title, ("optimizer", rate_name(plan), plan.monitor), rows, numbers=(1, 2)),
                )
            )
        yield element("div", *pictures, class_="grid")
    yield _rungs(plan, trials)


def _said_of_curves(plan: OptimizerPlan, curves: Sequence[Tried]) -> str:
    chosen = next((each for each in curves if each.is_chosen), None)
    ends = f"; {chosen.label} ends at {chosen.record.value:.4g}" if chosen and chosen.record.value is not None else ""
    return f"{plan.monitor} of {len(curves)} trials by micro-batches{ends}; the numbers are in the table of rungs"


def _legend(plan: OptimizerPlan) -> Html:
    """Which optimizer has which colour and marker."""
    seen = {record.configuration.optimizer for record in plan.trials}
    items = (
        element(
            "li",
            element("span", figures.marker(number), style=f"color: var({figures.colour(number)})", aria_hidden="true"),
            short(name),
        )
        for number, name in enumerate(optimizers(plan))
        if name in seen
    )
    return element("ul", *items, class_="legend", aria_label="Optimizers")


def _rungs(plan: OptimizerPlan, trials: Sequence[Tried]) -> Html:
    """A row for each trial, a column for each rung."""
    columns = rungs(plan)
    leaders = {rung: best(plan, rung) for rung in columns}
    rows = []
    for each in trials:
        record = each.record
        role = element("span", each.role, class_="role") if each.role else None
        what = record.configuration.describe() + (f" (seed {record.seed})" if record.seed else "")
        cells = [_cell(record.values.get(rung), leaders[rung]) for rung in columns]
        state = " ".join(record.state.split())
        rows.append(
            element(
                "tr",
                element("th", what, role, scope="row", class_="names"),
                *cells,
                element("td", state),
                class_="chosen" if each.is_chosen else None,
            )
        )
    header = element(
        "tr",
        element("th", "configuration", scope="col"),
        *(element("th", f"{rung:,}", scope="col", class_="number") for rung in columns),
        element("th", "state", scope="col"),
    )
    caption = f"{plan.monitor} after so many micro-batches, the best of each rung in bold"
    return _scrolling(
        "Rungs",
        element(
            "table", element("caption", element("span", caption)), element("thead", header), element("tbody", *rows)
        ),
    )


def _cell(value: float | None, leader: float) -> Html:
    if value is None:
        return element("td", "—", class_="number")
    return element("td", f"{value:.4g}", class_="number best" if value == leader else "number")


# --- what trains ----------------------------------------------------------------------------------


def _training(plan: OptimizerPlan) -> Iterator[Html]:
    length = f" over {plan.total_steps:,} optimizer steps" if plan.total_steps else ""
    yield element("p", f"Schedule: {plan.schedule.describe()}{length}. It is stepped once per optimizer step.")
    lines = rates_of(plan)
    table = _table(
        "Learning rate by optimizer step",
        ("step", *(line.label for line in lines)),
        list(_rates(plan, lines)),
        numbers=range(len(lines) + 1),
    )
    waits = any(line.joins is not None and line.joins.step is None for line in lines)
    picture = _figure(
        "Schedule",
        f"The learning rate of each group{', as if what waits for a plateau had joined' if waits else ''}.",
        lambda: figures.schedule(plan, f"The learning rate by step: {plan.schedule.describe()}"),
        table,
    )
    yield element("div", picture, class_="alone")
    groups = group_table(plan)
    yield _table("Parameter groups", groups.header, groups.rows, numbers=groups.numbers)
    yield element("details", element("summary", "Which parameter is in which group"), _members(plan))


def _members(plan: OptimizerPlan) -> Html:
    shapes = plan.model_fingerprint.shapes
    rows = [
        (name, " × ".join(map(str, shapes.get(name, ()))) or "scalar", group.name)
        for group in plan.param_groups
        for name in group.parameters
    ]
    rows += [
        (name, " × ".join(map(str, shapes.get(name, ()))) or "scalar", "frozen")
        for name in sorted(plan.model_fingerprint.frozen)
    ]
    return _table("Parameters", ("parameter", "shape", "group"), rows)


def _rates(plan: OptimizerPlan, lines: Sequence[Rate]) -> Iterator[tuple[str, ...]]:
    last = (plan.total_steps or max(4 * plan.schedule.warmup_steps, 100)) - 1
    steps = sorted({0, min(plan.schedule.warmup_steps, last), *(round(last * share / 8) for share in range(9))})
    for step in steps:
        rates = (line.at(step, plan.schedule, plan.total_steps) for line in lines)
        yield str(step), *("—" if rate is None else f"{rate:.3g}" for rate in rates)


# --- the profile ----------------------------------------------------------------------------------


def _profile(profile: Profile) -> Iterator[Html]:
    facts = [(element("dt", title), element("dd", ", ".join(parts))) for title, parts in described(profile)]
    words = element("article", element("h3", "In words"), element("dl", *facts, class_="facts"), class_="card")
    yield element("div", words, *_pictures(profile), class_="grid")


def _pictures(profile: Profile) -> Iterator[Html]:
    counts, gradient = profile.data.class_counts, profile.gradient
    if counts:
        listed = counts[:_CLASSES]
        more = f", of {len(counts):,} the first {len(listed)}" if len(counts) > len(listed) else ""
        yield _figure(
            "Classes",
            f"Samples of each class among the {profile.data.rows_read:,} that were read.",
            lambda: figures.classes(
                counts,
                f"{len(counts):,} classes; the most frequent has {counts[0]:,} samples, the rarest {counts[-1]:,}",
            ),
            _table(
                f"Samples by class{more}",
                ("rank", "samples"),
                [(str(rank), f"{count:,}") for rank, count in enumerate(listed, start=1)],
                numbers=(0, 1),
            ),
        )
    if gradient.norms:
        yield _figure(
            "Gradient, pass by pass",
            "Its norm over all parameters at the initial weights. Dashed: the median.",
            lambda: figures.norms(
                gradient.norms,
                f"{len(gradient.norms)} gradient norms from {min(gradient.norms):.3g} to {max(gradient.norms):.3g}",
            ),
            _table(
                "Norm of the gradient by pass",
                ("pass", "norm"),
                [(str(number), f"{norm:.4g}") for number, norm in enumerate(gradient.norms, start=1)],
                numbers=(0, 1),
            ),
        )
    relative = {name: value for name, value in gradient.relative_norms.items() if value > 0}
    if relative:
        evenly = {round(each * (len(relative) - 1) / max(_LAYERS - 1, 1)) for each in range(_LAYERS)}
        drawn = {name: value for number, (name, value) in enumerate(relative.items()) if number in evenly}
        some = f" {len(drawn)} of {len(relative)} are drawn." if len(drawn) < len(relative) else ""
        yield _figure(
            "Gradient, layer by layer",
            f"Its norm as a share of the weights', from input to output.{some}",
            lambda: figures.layers(
                drawn,
                f"Gradient norm over weight norm in {len(drawn)} layers, "
                f"from {min(drawn.values()):.3g} to {max(drawn.values()):.3g}",
            ),
            _table(
                "Gradient norm over weight norm",
                ("parameter", "share"),
                [(name, f"{value:.3g}") for name, value in gradient.relative_norms.items()],
                numbers=(1,),
            ),
        )


# --- the proposals --------------------------------------------------------------------------------

_SEATS = {
    "baseline": "the one to beat",
    "evidence": "the measured rules' pick",
    "classic": "the textbook's pick",
    "candidate": "a candidate",
}


def _proposals(proposals: Sequence[Proposal]) -> Iterator[Html]:
    yield element("p", "Every proposal with what speaks for it and against it; the trials decide.")
    yield element("div", *map(_proposal, proposals), class_="grid")
    rules = [(element("dt", vote.rule), element("dd", _rule(vote))) for vote in speakers(proposals)]
    if rules:
        summary = element("summary", "The rules that spoke, with their sources")
        yield element("details", summary, element("dl", *rules, class_="facts"))


def _proposal(proposal: Proposal) -> Html:
    settings = [f"{name} {format_value(value)}" for name, value in proposal.hyperparameters.items()]
    said = element("p", ", ".join([*settings, proposal.schedule.describe()]))
    votes = [
        (f"{vote.weight:+.2g}", fragment(vote.rule, element("cite", vote.because.describe())))
        for vote in by_weight(proposal)
    ]
    name = f"{short(proposal.optimizer)}, {_SEATS[proposal.seat]}"
    table = _table(f"Votes, {proposal.score:+.1f} together", ("weight", "rule"), votes, numbers=(0,)) if votes else None
    return element("article", element("h3", name), said, table, class_="card")


def _rule(vote: Vote) -> Html:
    counter = element("cite", f"but: {vote.counter}") if vote.counter else None
    return fragment(vote.mechanism, element("cite", source(vote)), counter)


# --- code, cost -----------------------------------------------------------------------------------


def _code(plan: OptimizerPlan) -> Iterator[Html]:
    try:
        python, yaml = as_python(plan), as_yaml(plan)
    except ConfigurationError as error:
        said = str(error)
        yield element("p", f"{said[:1].upper()}{said[1:].rstrip('.')}.")
        return
    yield element("p", "The same optimizer and schedule, to the last bit, for a project that does not use optselect.")
    for title, language, code in (("Python", "python", python), ("YAML for LightningCLI", "yaml", yaml)):
        yield element("h3", title)
        yield _scrolling(f"{title} code", element("pre", element("code", code, class_=f"language-{language}")))


def _cost(plan: OptimizerPlan) -> Iterator[Html]:
    for sentence in cost(plan):
        yield element("p", f"{sentence[:1].upper()}{sentence[1:]}.")
    facts = [(element("dt", name), element("dd", version)) for name, version in plan.versions.items()]
    if facts:
        yield element("dl", *facts, class_="facts")


def _made_by(plan: OptimizerPlan) -> str:
    version = plan.versions.get("optselect")
    return f"Written by optselect{f' {version}' if version else ''} from a plan of version {plan.version}."


# --- pieces ---------------------------------------------------------------------------------------


def _figure(title: str, caption: str, draw: Callable[[], Html], table: Html | None = None) -> Html:
    """A plot with its numbers; without matplotlib the numbers alone."""
    name = re.sub(r"\W+", "-", title.lower())
    plot = None
    if figures.available():
        try:
            plot = draw()
        # matplotlib gives up on axes from 1e-300 to 1e300, and a diverged trial may be as far off.
        except Exception:  # noqa: BLE001  # whatever it is: the numbers are there
            said = f"{caption} The numbers are too far apart for a plot."
        else:
            said = caption
    else:
        said = f"{caption} The plot needs matplotlib: pip install 'optselect[report]'."
    return element(
        "figure",
        element("figcaption", element("h3", title, id=f"figure-{name}"), element("p", said)),
        plot,
        element("details", element("summary", "The numbers"), table, open=plot is None) if table else None,
        aria_labelledby=f"figure-{name}",
    )


def _table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Iterable[int] = ()) -> Html:
    """A table whose first column heads its rows; `numbers` are the columns to align at the right."""
    right = set(numbers)
    classes = ["number" if column in right else None for column in range(len(header))]
    head = element(
        "tr", *(element("th", each, scope="col", class_=how) for each, how in zip(header, classes, strict=True))
    )
    body = [
        element(
            "tr",
            element("th", row[0], scope="row", class_=classes[0]),
            *(element("td", cell, class_=how) for cell, how in zip(row[1:], classes[1:], strict=True)),
        )
        for row in rows
    ]
    return _scrolling(
        caption,
        element("table", element("caption", element("span", caption)), element("thead", head), element("tbody", *body)),
    )


def _scrolling(label: str, content: Html) -> Html:
    """`content` in a box that scrolls, with the keyboard, too."""
    return element("div", content, class_="scroll", role="region", aria_label=label, tabindex="0")
