"""The choice: which configuration replaces the baseline, and on what evidence."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from optselect.configuration import USER, Configuration, Trial
from optselect.plan import Reason
from optselect.rules import Policy, Proposal
from optselect.search import reasons
from optselect.search.board import Board, Ranking, lead_share
from optselect.search.lead import Lead
from optselect.search.race import Race


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The configuration to train with, why, and its lead over the baseline (None: it stays, or nothing was tried)."""

    configuration: Configuration
    reasons: tuple[Reason, ...]
    lead: float | None = None

    def because(self, *further: Reason) -> Choice:
        """Add further reasons to the same choice."""
        return replace(self, reasons=(*self.reasons, *further))


def first_proposal(proposals: Sequence[Proposal], baseline: Configuration) -> Choice:
    """Take the rules' first choice at its word: what a budget of 0 asks for."""
    first = next((proposal for proposal in proposals if proposal.optimizer != USER), None)
    if first is None:
        return Choice(configuration=baseline, reasons=(reasons.nothing_proposed(),))
    return Choice(configuration=first.configuration, reasons=(reasons.without_trials(), *reasons.votes_for(first)))


def decide(
    race: Race,
    trials: Sequence[Trial],
    proposals: Sequence[Proposal],
    monitor: str,
    *,
    policies: Sequence[Policy] = (),
) -> Choice:
    """Decide what to train with: the winner of the trials, or with a budget of 0 the rules' first choice."""
    choice = choose(race, trials, proposals, monitor) if race.searches else first_proposal(proposals, race.baseline)
    choice = choice.because(*reasons.policy(choice.configuration, policies))
    return choice.because(reasons.BEST_COUNTS) if race.keeps_best and trials else choice


def choose(race: Race, trials: Sequence[Trial], proposals: Sequence[Proposal], monitor: str) -> Choice:
    """Choose the best configuration at the deepest rung, if it beats the baseline on the same batches.

    Compared are leads (`lead_share`): how much lower the loss is. The deepest rung decides.
    Only where it shows less than a tenth, which is what seeds differ by on small data, earlier rungs count, too:
    then the leads are averaged. What went further than the baseline is compared there, and its lead is that at the last
    rung they share. The lead must exceed 1 %, and with several seeds its standard error; else the baseline stays.
    """
    board = Board(race, trials)
    deepest, ranked = _deepest(board)
    rivals = [configuration for configuration, _ in ranked if configuration != race.baseline]
    if not ranked:
        return _baseline(race, reasons.no_value())
    if not rivals:
        return _baseline(race, *reasons.unbeaten(race, trials, ranked, monitor))
    leads = [(rival, lead) for rival in rivals if (lead := _lead(board, rival)) is not None]
    if not leads:
        return _without_a_comparison(race, trials, rivals[0], proposals)
    # What has gone further than the baseline is compared there.
    beyond_baseline = race.baseline not in [configuration for configuration, _ in ranked]
    winner, lead = leads[0] if beyond_baseline else _of_near_ties(leads, race.tactics.near_tie)
    if lead.mean <= 0:
        return _baseline(race, *reasons.unbeaten(race, trials, ranked, monitor))
    if lead.mean <= max(race.tactics.tie, lead.error):
        return _baseline(race, reasons.tie(winner, lead, monitor))
    further = []
    if beyond_baseline:
        value = race.goal.loss(next(loss for configuration, loss in ranked if configuration == winner))
        further = [reasons.went_further(monitor, value, deepest, max(lead.values))]
    return Choice(
        configuration=winner,
        lead=lead.mean,
        reasons=(
            *reasons.reached(race, lead, monitor),
            reasons.led(lead),
            *further,
            *reasons.runner_up(race, ranked, winner, monitor),
            *reasons.votes(winner, proposals),
        ),
    )


def _deepest(board: Board) -> tuple[int, Ranking]:
    """Find the deepest rung at which anything is ranked, and that ranking; empty where nothing is."""
    rungs = sorted({rung for trial in board.trials if not trial.diverged for rung in trial.values}, reverse=True)
    return next(((rung, ranked) for rung in rungs if (ranked := board.leaders(rung))), (0, []))


def _baseline(race: Race, *why: Reason) -> Choice:
    return Choice(configuration=race.baseline, reasons=why)


def _without_a_comparison(
    race: Race, trials: Sequence[Trial], best: Configuration, proposals: Sequence[Proposal]
) -> Choice:
    """Choose the best of the rest where the baseline failed; the baseline where it was never tried."""
    if not any(trial.configuration.key == race.baseline.key for trial in trials):
        return _baseline(race, reasons.baseline_untried(race, best))
    return Choice(configuration=best, reasons=(reasons.baseline_failed(race), *reasons.votes(best, proposals)))


def _of_near_ties(leads: Sequence[tuple[Configuration, Lead]], near_tie: float) -> tuple[Configuration, Lead]:
    """Pick the first of those nearly as far ahead as the best: the ranking puts steady rates first."""
    most = max(lead.mean for _, lead in leads)
    return next(item for item in leads if item[1].mean >= most - near_tie * abs(most))


def _lead(board: Board, rival: Configuration) -> Lead | None:
    """Compute the lead of `rival` where both have values for the same seed; None where they never do."""
    race = board.race
    pairs: dict[int, list[tuple[float, float]]] = {}
    for trial in board.trials:
        base = board.trial(race.baseline, trial.seed)
        if trial.configuration.key != rival.key or trial.diverged or base is None or base.diverged:
            continue
        for rung, own in trial.values.items():
            if rung in base.values:
                pairs.setdefault(rung, []).append((base.values[rung], own))
    if not pairs:
        return None
    loss = race.goal.loss
    shares = {
        rung: [lead_share(loss(base), loss(own)) for base, own in paired] for rung, paired in sorted(pairs.items())
    }
    means = {rung: statistics.fmean(each) for rung, each in shares.items()}
    deepest = means[max(means)]
    errors = [statistics.stdev(each) / math.sqrt(len(each)) for each in shares.values() if len(each) > 1]
    return Lead(
        mean=deepest if abs(deepest) >= race.tactics.seed_noise else statistics.fmean(means.values()),
        error=max(errors, default=0.0),
        seeds=max(map(len, pairs.values())),
        values={
            rung: (statistics.fmean(base for base, _ in paired), statistics.fmean(own for _, own in paired))
            for rung, paired in sorted(pairs.items())
        },
    )
