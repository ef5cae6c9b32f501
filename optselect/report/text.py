"""A plan as plain text that fits a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from optselect.configuration import USER, format_value
from optselect.plan import OptimizerPlan, TrialRecord
from optselect.profile.text import describe
from optselect.rules import Proposal, Vote

_WIDTH = 100


def explain(plan: OptimizerPlan) -> str:
    """The profile, the proposals with their reasons, the trials, the choice, its groups, its schedule and its cost."""
    return "\n".join(_lines(plan))


def headline(plan: OptimizerPlan) -> str:
    """The choice in one line: `adamw  lr=0.003  weight_decay=0.01 (0 on norms, biases)`."""
    if plan.optimizer == USER:
        return "your own optimizer, unchanged"
    undecayed = any(group.hyperparameters.get("weight_decay") == 0 for group in plan.param_groups)
    parts = [plan.optimizer]
    for name, value in plan.hyperparameters.items():
        note = " (0 on norms, biases and 1-D parameters)" if name == "weight_decay" and value and undecayed else ""
        parts.append(f"{name}={format_value(value)}{note}")
    return "  ".join(parts)


def proposal_lines(proposals: Iterable[Proposal]) -> Iterator[str]:
    """Each proposal with the votes for and against it."""
    for proposal in proposals:
        lr = proposal.hyperparameters.get("lr")
        rate = f"  lr={format_value(lr)}" if lr is not None else ""
        yield f"  {proposal.optimizer}{rate}  {proposal.schedule.describe()}  [{proposal.seat}, score {proposal.score:+.1f}]"
        for vote in proposal.because:
            yield from _vote("+", vote)
        for vote in proposal.against:
            yield from _vote("-", vote)


def _lines(plan: OptimizerPlan) -> Iterator[str]:
    yield headline(plan)
    for reason in plan.reasons:
        yield from _wrapped(f"because {reason}", "  ")
    if plan.optimizer != USER:
        yield f"  schedule: {plan.schedule.describe()}" + (f", {plan.total_steps} steps" if plan.total_steps else "")
        for group in plan.param_groups:
            values = " ".join(f"{name}={format_value(value)}" for name, value in group.hyperparameters.items())
            yield from _wrapped(f"group {group.name}: {len(group.parameters)} tensors, {values}", "  ")
    if plan.profile is not None:
        yield "profile"
        for line in describe(plan.profile):
            yield from _wrapped(line, "  ")
    if plan.proposals:
        yield "proposals"
        yield from proposal_lines(plan.proposals)
    if plan.trials:
        yield f"trials, judged by {plan.monitor}"
        yield from _trial_lines(plan.trials)


def _trial_lines(trials: Iterable[TrialRecord]) -> Iterator[str]:
    for trial in trials:
        value = "—" if trial.value is None else f"{trial.value:.5g}"
        seed = f" (seed {trial.seed})" if trial.seed else ""
        yield f"  {value:>10}  after {trial.micro_batches:>5}  {trial.configuration.describe()}{seed}  {trial.state}"


def _vote(sign: str, vote: Vote) -> Iterator[str]:
    yield from _wrapped(f"{sign} {vote.rule}: {vote.because.describe()}  [{vote.strength}: {vote.cites}]", "    ")


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent + "  ", break_long_words=False)
