"""The choice: which configuration replaces the baseline, and on what evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from optselect.configuration import USER, Configuration, Trial
from optselect.plan import Reason
from optselect.rules import Policy, Proposal
from optselect.search import reasons
from optselect.search.board import Board, Ranking, distinct
from optselect.search.race import Race


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The configuration to train with, why, and its lead over the baseline as a share of the baseline's progress.

    lead  None: the baseline stays, nothing was tried, or there is no such progress to measure by
    """

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
    """Choose among what is sure enough to end ahead of the baseline, from those that went furthest on.

    A configuration may replace the baseline where the chance that it ends behind by more than noise is below
    `race.risk`; `forecast` says how that follows from its lead at the last rung the two share. Of those that may, and
    went as far as any of them, the front runner is taken: the first in the prior's order, and another in its place only
    where that is ahead of it by more than an error. A better value can so never make a configuration lose.
    """
    board = Board(race, trials)
    ranked = _deepest(board)
    if not ranked:
        return _baseline(race, reasons.no_value())
    if not board.rivals and any(configuration != race.baseline for configuration, _ in ranked):
        return _without_a_comparison(race, trials, ranked[0][0], proposals)
    winner = board.chosen
    if winner == race.baseline:
        return _baseline(race, *_not_sure(board, ranked, trials, monitor))
    furthest = board.reached(winner)
    lead = next(lead for each, lead in board.rivals if each == winner)
    value = race.goal.loss(board.loss(winner, 0, furthest) or 0.0)
    return Choice(
        configuration=winner,
        lead=lead.share,
        reasons=(
            *reasons.reached(board, winner, monitor),
            reasons.led(race, lead),
            *_over_the_best_of_its_own(board, winner),
            *([reasons.went_further(monitor, value, furthest, lead.rung)] if lead.rung < furthest else []),
            *_passed_over(board, monitor),
            *reasons.runner_up(race, ranked, winner, monitor),
            *reasons.votes(winner, proposals),
        ),
    )


def _deepest(board: Board) -> Ranking:
    """Rank what was judged at the deepest rung where anything is; empty where nothing is."""
    rungs = sorted({rung for trial in board.trials if not trial.diverged for rung in trial.values}, reverse=True)
    return next((ranked for rung in rungs if (ranked := board.leaders(rung))), [])


def _baseline(race: Race, *why: Reason) -> Choice:
    return Choice(configuration=race.baseline, reasons=why)


def _not_sure(board: Board, ranked: Ranking, trials: Sequence[Trial], monitor: str) -> Sequence[Reason]:
    """Say why nothing replaces the baseline: all are behind, or the one most likely to be ahead is not sure enough."""
    ahead = [(board.chance_behind(each, lead), each, lead) for each, lead in board.rivals if lead.difference > 0]
    if not ahead:
        return [*reasons.unbeaten(board.race, trials, ranked, monitor)]
    chance, best, lead = min(ahead, key=lambda item: item[0])
    return [reasons.not_sure(board.race, best, lead, chance, monitor)]


def _over_the_best_of_its_own(board: Board, winner: Configuration) -> Sequence[Reason]:
    """Compare with the best rate tried of the baseline's own optimizer, at the last rung both have been to."""
    base = board.race.baseline
    if winner.optimizer == base.optimizer:
        return []
    found = []
    for other in distinct(trial.configuration for trial in board.trials):
        lead = board.lead(winner, other) if other.optimizer == base.optimizer and other != base else None
        if lead is not None:
            found.append((-lead.rung, lead.difference, other.key, other, lead))
    return [reasons.led_the_best(other, lead) for *_, other, lead in sorted(found, key=lambda item: item[:3])[:1]]


def _passed_over(board: Board, monitor: str) -> Sequence[Reason]:
    """Say what had a better value than what was chosen, and was not ahead of it by more than an error."""
    others = (each for each in board.sure if each != board.chosen)
    leads = [(each, lead) for each in others if (lead := board.lead(each, board.chosen)) is not None]
    return [reasons.passed_over(each, lead, monitor) for each, lead in leads if lead.difference > 0]


def _without_a_comparison(
    race: Race, trials: Sequence[Trial], best: Configuration, proposals: Sequence[Proposal]
) -> Choice:
    """Choose the best of the rest where the baseline failed; the baseline where it was never tried."""
    if not any(trial.configuration.key == race.baseline.key for trial in trials):
        return _baseline(race, reasons.baseline_untried(race, best))
    return Choice(configuration=best, reasons=(reasons.baseline_failed(race), *reasons.votes(best, proposals)))
