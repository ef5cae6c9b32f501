"""What there is to say about a plan, before it is laid out as text or Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from optselect import catalogue
from optselect.configuration import USER, Trial
from optselect.plan import Neighbour, OptimizerPlan, Reason
from optselect.plan.reason import Kind
from optselect.profile.text import describe
from optselect.report.groups import Table, group_table
from optselect.report.trials import relative_pace
from optselect.rules import Proposal, Vote
from optselect.words import format_duration, format_value

_REMARKS: tuple[Kind, ...] = ("own", "schedule", "caveat", "pace")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One line, and the lines below it."""

    text: str
    below: tuple[Item, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Section:
    """A title with its lines and tables."""

    title: str
    items: tuple[Item | Table, ...]


def sections(plan: OptimizerPlan) -> list[Section]:
    """Explain the whole plan; a section that has nothing to say is left out.

    The first one is the choice in short, with its reasons, schedule, groups and cost. The others are what it
    rests on: the profile, the proposals with every vote, the recorded trainings and the rules behind these, the trials.
    """
    found = [
        Section(title=headline(plan), items=tuple(_choice(plan))),
        Section(title="profile", items=tuple(map(_item, describe(plan.profile) if plan.profile else ()))),
        Section(title="proposals", items=tuple(map(proposal_item, plan.proposals))),
        Section(title="recorded trainings most like it", items=tuple(map(_neighbour, plan.neighbours))),
        Section(title="the rules that spoke", items=tuple(_rules(plan.proposals))),
        Section(title=f"trials, judged by {plan.monitor}{_at(plan)}", items=tuple(_trials(plan))),
    ]
    return [found[0], *(section for section in found[1:] if section.items)]


def headline(plan: OptimizerPlan) -> str:
    """Say the choice in one line: `adamw  lr=0.003  weight_decay=0.01 (0 on norms, biases)`."""
    if plan.optimizer == USER:
        return plan.configuration.describe()
    undecayed = any(group.hyperparameters.get("weight_decay") == 0 for group in plan.param_groups)
    parts = [plan.optimizer]
    for name, value in plan.hyperparameters.items():
        decays = name == "weight_decay" and value and undecayed
        note = " (0 on norms, biases and 1-D parameters)" if decays else ""
        parts.append(f"{name}={format_value(value)}{note}")
    return "  ".join(parts)


def proposal_item(proposal: Proposal) -> Item:
    """Describe a proposal with the votes for and against it, the heaviest first."""
    lr = proposal.hyperparameters.get("lr")
    rate = f"  lr={format_value(lr)}" if lr is not None else ""
    score = f"[{proposal.seat}, score {proposal.score:+.1f}]"
    return Item(
        text=f"{proposal.optimizer}{rate}  {proposal.schedule.describe()}  {score}",
        below=tuple(
            Item(text=f"{_signed(vote)} {claim(vote, proposal.optimizer)}: {vote.because.describe()}")
            for vote in by_weight(proposal)
        ),
    )


def because(plan: OptimizerPlan) -> list[Reason]:
    """List the reasons for the choice: what it cost is none, and no remark."""
    return [reason for reason in plan.reasons if reason.kind not in ("cost", *_REMARKS)]


def remarks(plan: OptimizerPlan) -> list[Reason]:
    """List what there is to know about the training, whatever was chosen."""
    return list(plan.reasons_of(*_REMARKS))


def cost(plan: OptimizerPlan) -> list[str]:
    """Say what the choice cost, and the profile of it."""
    said = [str(reason) for reason in plan.reasons_of("cost")]
    if plan.search_steps and not said:
        said = [f"the choice cost {plan.search_steps:,} micro-batches"]
    if plan.search_seconds and plan.trials:
        said.append(f"the trials took {format_duration(plan.search_seconds)}")
    if plan.profile is not None:
        passes, rows = plan.profile.gradient.passes, plan.profile.data.rows_read
        said.append(f"the profile took {passes} forward and backward passes and read {rows:,} rows")
    return said


def by_weight(proposal: Proposal) -> list[Vote]:
    """Sort the votes for and against a proposal, the heaviest first."""
    return sorted((*proposal.because, *proposal.against), key=lambda vote: -vote.weight)


def speakers(proposals: Iterable[Proposal]) -> list[Vote]:
    """Pick one vote of each rule that says why it holds."""
    votes = {vote.rule: vote for proposal in proposals for vote in proposal.votes if not vote.veto}
    return [vote for vote in votes.values() if vote.cites or vote.mechanism]


def claim(vote: Vote, optimizer: str) -> str:
    """Say the rule's claim as it bears on `optimizer`: one that is made for another speaks for this one, too."""
    words = vote.rule.lower().split()
    another = optimizer not in words and any(name in words for name in catalogue.names())
    return f"{vote.rule}; {optimizer}, too" if another and vote.weight > 0 else vote.rule


def source(vote: Vote) -> str:
    """Say how well the rule is founded, and on what."""
    # "measured here (digits)" says its strength itself.
    strength = "" if vote.cites.startswith(vote.strength) else f"{vote.strength}: "
    return f"{strength}{vote.cites}"


def _neighbour(neighbour: Neighbour) -> Item:
    best = "; ".join(f"{each.describe()} ({each.regret:.2f})" for each in neighbour.best)
    return Item(
        text=f"{neighbour.name} ({neighbour.family}): {neighbour.summary}; it counts {neighbour.weight:.1%}",
        below=(Item(text=f"best there: {best}"),),
    )


def _choice(plan: OptimizerPlan) -> Iterator[Item | Table]:
    for reason in because(plan):
        yield _item(f"because {reason}")
    yield from (_item(str(remark)) for remark in remarks(plan))
    if plan.optimizer != USER:
        length = f", {plan.total_steps:,} steps" if plan.total_steps else ""
        yield _item(f"schedule: {plan.schedule.describe()}{length}")
        if plan.param_groups:
            yield group_table(plan)
    yield from map(_item, cost(plan))


def _at(plan: OptimizerPlan) -> str:
    return " after the time of so many micro-batches of the baseline" if plan.compare == "seconds" else ""


def _trials(plan: OptimizerPlan) -> Iterator[Item]:
    """Yield a line for each trial: its value, how far it went, how long a step took beside the baseline's, the rest."""
    paces = [relative_pace(plan, trial) for trial in plan.trials]
    width = max(map(len, paces), default=0)
    for trial, pace in zip(plan.trials, paces, strict=True):
        yield _trial(trial, f"{pace:>{width}}  " if width else "")


def _trial(trial: Trial, pace: str) -> Item:
    value = "—" if trial.value is None else f"{trial.value:.5g}"
    seed = f" (seed {trial.seed})" if trial.seed else ""
    start = f"{value:>10}  after {trial.micro_batches:>5}"
    return _item(f"{start}  {pace}{trial.configuration.describe()}{seed}  {' '.join(trial.ending.split())}")


def _rules(proposals: Iterable[Proposal]) -> Iterator[Item]:
    """Yield each rule that voted once, with its mechanism, its source, and what speaks against the rule itself."""
    for vote in speakers(proposals):
        counter = [f"but: {vote.counter}"] if vote.counter else []
        below = [f"{vote.mechanism} [{source(vote)}]", *counter]
        yield Item(text=vote.rule, below=tuple(map(_item, below)))


def _signed(vote: Vote) -> str:
    return f"{vote.weight:+.2g}".replace("+", "+ ").replace("-", "- ")


def _item(text: str) -> Item:
    return Item(text=text)
