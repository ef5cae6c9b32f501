"""The choice: which configuration replaces the baseline, on what evidence, and why in words."""

from __future__ import annotations

import math
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from optselect.arms import configuration_of
from optselect.configuration import USER, Configuration
from optselect.plan import TrialRecord
from optselect.race import Race, leaders, nominal_cost
from optselect.rules import Proposal
from optselect.study import Evaluation

# A lead below this share of the baseline's value is a tie: the noise between seeds of short trials is larger.
_TIE = 0.01


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The configuration to train with and the sentences that say why."""

    configuration: Configuration
    reasons: tuple[str, ...]


def first_word(proposals: Sequence[Proposal], base: Configuration) -> Choice:
    """The rules' first choice, taken at their word: what a budget of 0 asks for."""
    first = next((proposal for proposal in proposals if proposal.optimizer != USER), None)
    if first is None:
        return Choice(configuration=base, reasons=("the rules propose nothing, so the baseline stays",))
    return Choice(
        configuration=configuration_of(first),
        reasons=("the budget is 0, so this is the rules' first choice, without evidence from trials", *_spoken(first)),
    )


def choose(race: Race, evaluations: Sequence[Evaluation], proposals: Sequence[Proposal], monitor: str) -> Choice:
    """The best configuration at the deepest rung, if it beats the baseline on the same batches; else the baseline.

    With one seed the lead must exceed 1 % of the baseline's value; with several, the mean paired lead must
    also exceed its standard error.
    """
    rungs = sorted({rung for e in evaluations for rung in e.values if not e.diverged}, reverse=True)
    ranked = next((standing for rung in rungs if (standing := leaders(race, evaluations, rung))), [])
    if not ranked:
        return Choice(
            configuration=race.baseline,
            reasons=("no trial gave a value within the budget, so the baseline stays",),
        )
    winner = ranked[0][0]
    if winner == race.baseline:
        return Choice(configuration=winner, reasons=tuple(_beaten(race, evaluations, ranked, monitor)))
    leads = _paired_leads(race, evaluations, winner)
    if leads is None and not any(e.configuration.key == race.baseline.key for e in evaluations):
        sentence = (
            f"the budget paid for no trial of the baseline ({race.baseline.describe()}), so nothing shows that "
            f"{winner.describe()} is better: the baseline stays"
        )
        return Choice(configuration=race.baseline, reasons=(sentence,))
    if leads is None:
        sentence = (
            f"the baseline ({race.baseline.describe()}) gave no value to compare with; this was the best of the rest"
        )
        return Choice(configuration=winner, reasons=(sentence, *_votes(winner, proposals)))
    rung, pairs = leads
    differences = [base - own for base, own in pairs]
    base = statistics.fmean([abs(base) for base, _ in pairs])
    lead = statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    if lead <= max(_TIE * base, error):
        sentence = (
            f"{winner.describe()} led the baseline by {lead:.4g} ± {error:.2g} {monitor} after {rung} micro-batches, "
            "which is no more than noise: ties go to the baseline"
        )
        return Choice(configuration=race.baseline, reasons=(sentence,))
    sign = 1.0 if race.mode == "min" else -1.0
    values = [statistics.fmean([sign * pair[side] for pair in pairs]) for side in (0, 1)]
    noise = f", lead {lead:.3g} ± {error:.2g} over {len(pairs)} seeds" if len(pairs) > 1 else ""
    lead_in_words = (
        f"it reached {monitor} {values[1]:.4g} after {rung} micro-batches, the baseline ({race.baseline.describe()}) "
        f"{values[0]:.4g} on the same batches{noise}"
    )
    reasons = (lead_in_words, *_runner_up(race, ranked, monitor), *_votes(winner, proposals))
    return Choice(configuration=winner, reasons=reasons)


def cost_sentence(race: Race, evaluations: Sequence[Evaluation], *, known_length: bool) -> str:
    """What the choice cost, in the training's own steps."""
    spent = race.spent + nominal_cost(race, evaluations)
    share = f", {spent / race.horizon:.2f} of the training" if known_length else ""
    return (
        f"the choice cost {spent:.0f} micro-batches{share}: profile {race.spent:.0f}, "
        f"{len(evaluations)} trials {spent - race.spent:.0f}"
    )


def records(evaluations: Sequence[Evaluation]) -> tuple[TrialRecord, ...]:
    """The trials as the plan keeps them."""
    return tuple(
        TrialRecord(
            configuration=e.configuration,
            seed=e.seed,
            micro_batches=max(e.values, default=0) if not e.diverged else e.reached,
            value=e.values[max(e.values)] if e.values and not e.diverged else None,
            state=e.note or e.state,
        )
        for e in evaluations
    )


def versions() -> Mapping[str, str]:
    """Of what makes the choice; a plan says which."""
    packages = ("optselect", "torch", "lightning", "optuna")
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {**found, "python": platform.python_version()}


def _paired_leads(
    race: Race, evaluations: Sequence[Evaluation], winner: Configuration
) -> tuple[int, list[tuple[float, float]]] | None:
    """(baseline, winner) losses seed by seed at the deepest rung where both have one."""
    sign = 1.0 if race.mode == "min" else -1.0
    table: dict[int, dict[int, dict[str, float]]] = {}
    for e in evaluations:
        if not e.diverged and e.configuration.key in (race.baseline.key, winner.key):
            for rung, value in e.values.items():
                table.setdefault(rung, {}).setdefault(e.seed, {})[e.configuration.key] = sign * value
    for rung in sorted(table, reverse=True):
        pairs = [(seeds[race.baseline.key], seeds[winner.key]) for seeds in table[rung].values() if len(seeds) == 2]
        if pairs:
            return rung, pairs
    return None


def _beaten(
    race: Race, evaluations: Sequence[Evaluation], ranked: list[tuple[Configuration, float]], monitor: str
) -> list[str]:
    tried = len({e.configuration.key for e in evaluations})
    return [
        f"nothing beat it: of {tried} configurations it had the best {monitor}",
        *_runner_up(race, ranked, monitor),
    ]


def _runner_up(race: Race, ranked: list[tuple[Configuration, float]], monitor: str) -> list[str]:
    if len(ranked) < 2:
        return []
    sign = 1.0 if race.mode == "min" else -1.0
    other, value = ranked[1]
    return [f"next came {other.describe()}: {monitor} {sign * value:.4g}"]


def _votes(winner: Configuration, proposals: Sequence[Proposal]) -> list[str]:
    return [word for proposal in proposals if proposal.optimizer == winner.optimizer for word in _spoken(proposal)]


def _spoken(proposal: Proposal) -> list[str]:
    return [f"{vote.rule}: {vote.because.describe()} [{vote.cites}]" for vote in proposal.because]
