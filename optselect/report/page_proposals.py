"""The sections of a page that show what was proposed: by the rules, and for what recorded trainings showed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from optselect.plan import Neighbour
from optselect.report.explanation import by_weight, claim, source, speakers
from optselect.report.markup import Html, element, fragment
from optselect.report.pieces import cited, table
from optselect.report.trials import short
from optselect.rules import Proposal, Vote
from optselect.words import format_value

_SEATS = {
    "baseline": "the one to beat",
    "portfolio": "recorded trainings' pick",
    "evidence": "the measured rules' pick",
    "classic": "the textbook's pick",
    "candidate": "a candidate",
}


def proposals_section(proposals: Sequence[Proposal]) -> Iterator[Html]:
    """Show each proposal with its votes, and the rules behind these."""
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
        (f"{vote.weight:+.2g}", fragment(claim(vote, proposal.optimizer), element("cite", vote.because.describe())))
        for vote in by_weight(proposal)
    ]
    name = f"{short(proposal.optimizer)}, {_SEATS[proposal.seat]}"
    tally = table(f"Votes, {proposal.score:+.1f} together", ("weight", "rule"), votes, numbers=(0,)) if votes else None
    return element("article", element("h3", name), said, tally, class_="card")


def _rule(vote: Vote) -> Html:
    counter = cited(f"but: {vote.counter}") if vote.counter else None
    return fragment(vote.mechanism, cited(source(vote)), counter)


def neighbours_section(neighbours: Sequence[Neighbour]) -> Iterator[Html]:
    """Show the recorded trainings that are most like this one, how much each counts, and what did best there."""
    share = math.fsum(each.weight for each in neighbours)
    yield element(
        "p",
        f"What goes first was picked by how whole configurations ended on recorded trainings. "
        f"The more one is like this training, the more it counts: the {len(neighbours)} most like it {share:.0%} "
        "together, all the others the rest.",
    )
    rows = [
        (
            each.name,
            f"{each.family}: {each.summary}",
            f"{each.weight:.1%}",
            "; ".join(f"{ended.describe()} ({ended.regret:.2f})" for ended in each.best),
        )
        for each in neighbours
    ]
    caption = "In brackets: how far behind the best of all it ended, where plain AdamW at 0.001 ended at 1"
    yield table(caption, ("training", "what it is", "counts", "best there"), rows, numbers=(2,), cards=True)
