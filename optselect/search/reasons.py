"""Why a choice was made: each reason with its sentence, its source and the figure in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from optselect.configuration import USER, Configuration, Trial
from optselect.configuration.own_optimizer import OwnGroup, OwnOptimizer
from optselect.plan import Reason
from optselect.rules import Policy, Proposal
from optselect.search.board import Board, Ranking
from optselect.search.lead import Lead
from optselect.search.race import Race
from optselect.words import format_seconds, format_times, format_value, some

BEST_COUNTS = Reason(
    kind="best counts",
    text="each trial counts as its best value so far: the training keeps the weights of its best",
)


# A step so many times as long is worth a word on how to count time.
_SLOW = 1.5


# --- the rules alone ------------------------------------------------------------------------------


def nothing_proposed() -> Reason:
    """Say that no rule speaks for anything."""
    return Reason(kind="rules", text="the rules propose nothing, so the baseline stays")


def without_trials() -> Reason:
    """Say that a budget of 0 allows no trials."""
    return Reason(
        kind="rules", text="the budget is 0, so this is the rules' first choice, without evidence from trials"
    )


def votes(winner: Configuration, proposals: Sequence[Proposal]) -> Iterator[Reason]:
    """Yield what the rules say for the optimizer of `winner`; each of its proposals brings the same votes."""
    proposal = next((each for each in proposals if each.optimizer == winner.optimizer), None)
    if proposal is not None:
        yield from votes_for(proposal)


def votes_for(proposal: Proposal) -> Iterator[Reason]:
    """Yield the votes that speak for `proposal`."""
    for vote in proposal.because:
        yield Reason(
            kind="vote", text=f"{vote.rule}: {vote.because.describe()}", cites=vote.cites, value=float(vote.weight)
        )


# --- the baseline stays ---------------------------------------------------------------------------


def no_value() -> Reason:
    """Say that nothing was judged."""
    return Reason(kind="baseline", text="no trial gave a value within the budget, so the baseline stays")


def unbeaten(race: Race, trials: Sequence[Trial], ranked: Ranking, monitor: str) -> Iterator[Reason]:
    """Say that the baseline had the best value, and what came next."""
    tried = len({trial.configuration.key for trial in trials})
    yield Reason(kind="baseline", text=f"nothing beat it: of {tried} configurations it had the best {monitor}")
    yield from runner_up(race, ranked, race.baseline, monitor)


def baseline_untried(race: Race, best: Configuration) -> Reason:
    """Say that the budget was too small for the baseline."""
    return Reason(
        kind="baseline",
        text=f"the budget paid for no trial of the baseline ({race.baseline.describe()}), so nothing shows that "
        f"{best.describe()} is better: the baseline stays",
    )


def not_sure(race: Race, best: Configuration, lead: Lead, chance: float, monitor: str) -> Reason:
    """Say that what is ahead is not sure enough to stay so, and what would tell."""
    enough = 2 * race.horizon + race.spent
    if lead.rung >= race.whole:
        more = "; more validation data would tell"
    elif race.length_known and race.left < enough:
        more = f"; a budget of {enough / race.whole:.2g} trainings takes both to their end"
    else:
        more = ""
    doubt = (
        f"the chance that it ends behind is {chance:.0%}, where {race.risk:.0%} is accepted"
        if chance >= race.risk
        else "that is no more than the error of what it says of the end"
    )
    return Reason(
        kind="baseline",
        text=f"this search cannot tell: {best.describe()} led the baseline by {lead.describe(_whose(race))} in "
        f"{monitor} after {lead.rung} micro-batches, and {doubt}, so the baseline stays{more}",
        value=lead.share,
    )


# --- the baseline is replaced ---------------------------------------------------------------------


def baseline_failed(race: Race) -> Reason:
    """Say that the baseline diverged or failed."""
    return Reason(
        kind="trial",
        text=f"the baseline ({race.baseline.describe()}) gave no value to compare with; this was the best of the rest",
    )


def reached(board: Board, winner: Configuration, monitor: str) -> Iterator[Reason]:
    """Say what `winner` was judged at beside the baseline, rung by rung."""
    race = board.race
    did, by = ("its best was", "within") if race.keeps_best else ("it reached", "after")
    for rung in sorted({rung for trial in board.trials for rung in trial.values}):
        lead = board.lead(winner, race.baseline, rung)
        if lead is not None:
            base, own = lead.values
            yield Reason(
                kind="trial",
                text=f"{did} {monitor} {own:.4g} {by} {rung} micro-batches, the baseline "
                f"({race.baseline.describe()}) {base:.4g} on the same batches",
                value=own,
            )


def led(race: Race, lead: Lead) -> Reason:
    """Say by how much the winner led."""
    return Reason(
        kind="lead",
        text=f"its lead is {lead.describe(_whose(race))} after {lead.rung} micro-batches",
        value=lead.share,
    )


def led_the_best(other: Configuration, lead: Lead) -> Reason:
    """Say by how much the winner led the best rate of the baseline's optimizer that was tried."""
    return Reason(
        kind="lead",
        text=f"over the best rate of that optimizer that was tried ({other.describe()}) its lead is "
        f"{lead.describe('its')} after {lead.rung} micro-batches",
        value=lead.share,
    )


def passed_over(other: Configuration, lead: Lead, monitor: str) -> Reason:
    """Say what had a better value, and that this is no more than noise."""
    own, theirs = lead.values
    return Reason(
        kind="tie",
        text=f"{other.describe()} had {monitor} {theirs:.4g} where it had {own:.4g} after {lead.rung} micro-batches, "
        f"no more ahead than the error of a forecast of the end: then the prior's order decides",
        value=lead.difference,
    )


def _whose(race: Race) -> str:
    return "your own optimizer's" if race.baseline.optimizer == USER else "the baseline's"


def went_further(monitor: str, value: float, rung: int, shared: int) -> Reason:
    """Say that the winner had `value` at `rung`, while the baseline was taken to `shared` alone."""
    return Reason(
        kind="further",
        text=f"after {rung} micro-batches it had {monitor} {value:.4g}; the baseline was taken no further than "
        f"{shared}",
        value=value,
    )


def runner_up(race: Race, ranked: Ranking, winner: Configuration, monitor: str) -> Iterator[Reason]:
    """Say what came next, beside the baseline."""
    others = [item for item in ranked if item[0] not in (winner, race.baseline)]
    for other, loss in others[:1]:
        value = race.goal.loss(loss)
        yield Reason(kind="runner-up", text=f"next came {other.describe()}: {monitor} {value:.4g}", value=value)


def policy(configuration: Configuration, tried: Sequence[Policy]) -> Iterator[Reason]:
    """Say why the parts of the model are treated differently."""
    chosen = configuration.fine_tuning
    for each in tried:
        if chosen and chosen == each.fine_tuning:
            yield Reason(kind="policy", text=f"{chosen.describe()}: {each.mechanism}", cites=each.cites)


# --- around the choice ----------------------------------------------------------------------------


def carried_over(race: Race, rate_factor: float) -> Reason:
    """Say that the winner was found on a shorter training."""
    rate = "" if rate_factor == 1.0 else f", its learning rate times {rate_factor:.2g}"
    return Reason(
        kind="transfer",
        text=f"it was chosen on a training of {race.horizon:,} micro-batches and carried over to the {race.whole:,} of "
        f"this one{rate}",
        cites="arXiv:2409.19913",
        value=rate_factor,
    )


def own_optimizer(own: OwnOptimizer | None) -> Iterator[Reason]:
    """Say what the training's own optimizer leaves out, and its groups where it has several."""
    if own is None:
        return
    if own.left_out:
        total = len(own.left_out) + sum(len(group.parameters) for group in own.groups)
        yield Reason(
            kind="own",
            text=f"your own optimizer ({own.name}) leaves {len(own.left_out)} of {total} parameters as they are "
            f"({some(own.left_out)}), and so does every other: they count as frozen",
            value=float(len(own.left_out)),
        )
    if len(own.groups) > 1:
        groups = "; ".join(map(_own_group, own.groups))
        yield Reason(kind="own", text=f"your own optimizer ({own.name}) has {len(own.groups)} groups: {groups}")


def _own_group(group: OwnGroup) -> str:
    values = " ".join(f"{name}={format_value(value)}" for name, value in group.hyperparameters.items())
    return f"{values} on {some(group.parameters)}" if values else some(group.parameters)


def no_schedule(obstacle: str) -> Reason:
    """Nothing but constant rates were proposed."""
    return Reason(kind="schedule", text=f"only constant learning rates were proposed, for {obstacle}")


def caveat(said: str) -> Reason:
    """Trials were not judged quite as the training is."""
    return Reason(kind="caveat", text=said)


def pace(chosen: Configuration, race: Race, trials: Sequence[Trial], accumulate: int) -> Iterator[Reason]:
    """Say how long a step takes beside the baseline's, where both are known; a step is `accumulate` micro-batches.

    Nothing of the baseline's own optimizer on the same parts: a rate takes no time, and the difference is noise.
    """
    alike = chosen.optimizer == race.baseline.optimizer and chosen.fine_tuning == race.baseline.fine_tuning
    base, own = (pace_of(each, trials) for each in (race.baseline, chosen))
    if not alike and base and own:
        slower = own / base >= _SLOW and race.compare == "steps"
        yield Reason(
            kind="pace",
            text=f"a step with it takes {format_times(own / base)} times as long as with the baseline "
            f"({format_seconds(own * accumulate)}, {format_seconds(base * accumulate)})"
            + ('; compare="seconds" compares at equal time' if slower else ""),
            value=own / base,
        )


def pace_of(configuration: Configuration, trials: Sequence[Trial]) -> float | None:
    """Return the seconds per micro-batch in the last trial of `configuration`, or else of its optimizer.

    None where no trial says it.
    """
    known = [trial for trial in trials if trial.pace is not None]
    own = [trial.pace for trial in known if trial.configuration.key == configuration.key]
    alike = [trial.pace for trial in known if trial.configuration.optimizer == configuration.optimizer]
    return next(reversed(own or alike), None)


def equal_time(race: Race, chosen: Configuration, *, steps: int | None, whole: int | None) -> Iterator[Reason]:
    """Say that trials were compared at equal time, and that the training of `whole` steps ends after `steps` then."""
    if race.compare == "steps":
        return
    ends = ""
    if steps is not None and whole is not None and steps < whole:
        ends = f", so its training ends after {steps:,} of {whole:,} steps, which take as long"
    times = race.slowness_of(chosen)
    slower = f": a micro-batch with it counts as {format_times(times)} of the baseline's" if times > 1 else ""
    yield Reason(kind="pace", text=f"trials were compared at equal time{slower}{ends}", value=times)


def cost(race: Race, trials: Sequence[Trial]) -> Reason:
    """Say what the choice cost, in the training's own steps."""
    spent = race.spent_with(trials)
    share = spent / race.whole if race.length_known else None
    said = "" if share is None else f", {share:.2f} of the training"
    left = 0.0 if race.steps is None else race.steps - spent
    board, unspent = Board(race, trials), ""
    if board.is_told_early:
        unspent = (
            f"; {left:.0f} more were left, but a look after {race.layout.screen} micro-batches was enough to choose"
        )
    elif left >= race.rung and board.is_settled:
        unspent = (
            f"; {left:.0f} more were left, but nothing that goes on could be expected to change the choice by enough"
        )
    return Reason(
        kind="cost",
        text=f"the choice cost {spent:.0f} micro-batches{said}: profile {race.spent:.0f}, "
        f"{len(trials)} trials {spent - race.spent:.0f}{unspent}",
        value=share,
    )
