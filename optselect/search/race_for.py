"""The race that a brief, a profile and the proposals make."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from optselect import catalogue
from optselect.budget import UNKNOWN_LENGTH_STEPS
from optselect.configuration import USER, Configuration
from optselect.profile import Profile
from optselect.rules import Policy, Proposal
from optselect.rules.kinds import is_pretrained
from optselect.rules.length import rate_factor, repeats
from optselect.search.arms import arms, baseline, first_choices
from optselect.search.brief import Brief
from optselect.search.race import Race
from optselect.search.tactics import TACTICS, Tactics
from optselect.search.transfer import carried_over, search_horizon

# A trial put aside holds the weights and the optimizer's state, three times as much in the largest of torch's.
_STATES = 4
# How many trials are put aside where the budget says nothing of it, and at most.
_MANY_TRIALS, _MOST_TRIALS = 32, 100


def race_for(
    brief: Brief,
    profile: Profile,
    proposals: Sequence[Proposal],
    policies: Sequence[Policy] = (),
    *,
    paused_bytes: float = math.inf,
    tactics: Tactics = TACTICS,
) -> Race:
    """Set up what the search is about, with at most `paused_bytes` for trials that are put aside.

    Of a training much longer than the budget a shorter one is searched, and rates are moved to its length.
    """
    base = baseline_of(brief)
    contenders, firsts, budget = arms_of(brief, profile, proposals), first_choices(proposals), brief.budget
    searched = brief.horizon or budget.steps or UNKNOWN_LENGTH_STEPS
    if brief.horizon is not None and budget.searches:
        searched = search_horizon(brief.horizon, budget.steps)
        if searched < brief.horizon:
            ratio = searched / brief.horizon
            contenders, firsts = (
                tuple(_at_length(each, base, profile, ratio) for each in some) for some in (contenders, firsts)
            )
    race = Race(
        arms=contenders,
        baseline=base,
        horizon=searched,
        training=brief.horizon if brief.horizon is not None and searched < brief.horizon else None,
        length_known=brief.horizon is not None,
        steps=budget.steps,
        seconds=budget.seconds,
        trials=budget.trials,
        spent=profile.gradient.passes + brief.timing,
        first_choices=firsts,
        recorded=bool(proposals) and proposals[0].seat == "portfolio",
        policies=tuple(each.fine_tuning for each in policies),
        validation_cost=brief.validation_cost,
        goal=brief.goal,
        specs=tuple(catalogue.get(each.optimizer) for each in contenders if each.optimizer != USER),
        user_passes=brief.user_passes,
        least_rung=tactics.least_steps * brief.accumulate,
        risk=float(brief.settings.risk),
        slowness=brief.slowness,
        tactics=tactics,
    )
    if race.judges_untrained:
        race = replace(race, spent=race.spent + brief.validation_cost)
    # Where a trial starts over for every rung, looking at it more often is too dear.
    continues = _most_trials(race) * _STATES * brief.training_bytes <= paused_bytes
    return replace(race, continues=continues, keeps_best=brief.keeps_best and continues)


def arms_of(brief: Brief, profile: Profile, proposals: Sequence[Proposal]) -> tuple[Configuration, ...]:
    """List the configurations of the first stage: other rates of the baseline's optimizer where that is a candidate.

    Where trials are compared at equal time, those whose pace is known.
    """
    base, candidates = baseline_of(brief), brief.settings.candidates
    may_be_chosen = candidates is None or base.optimizer in candidates
    sweeps_own = may_be_chosen and (base.optimizer != USER or brief.user_scales)
    found = arms(proposals, base, sweeps_own=sweeps_own, trained=is_pretrained(profile))
    return tuple(each for each in found if not brief.slowness or each.optimizer in brief.slowness)


def baseline_of(brief: Brief) -> Configuration:
    """Return the configuration that is replaced only on evidence."""
    base = baseline(has_user_optimizer=brief.has_user_optimizer, called=brief.user_called)
    # Whoever says what is to be frozen means it whichever optimizer is chosen.
    return base if base.optimizer == USER else replace(base, fine_tuning=brief.policy)


def timeable(brief: Brief, profile: Profile, proposals: Sequence[Proposal]) -> list[Configuration]:
    """List the two arms that every search begins with, as far as a micro-batch is one pass for them."""

    def is_one_pass(configuration: Configuration) -> bool:
        name = configuration.optimizer
        return brief.user_passes == 1 if name == USER else not catalogue.get(name).closure

    return [each for each in arms_of(brief, profile, proposals)[:2] if is_one_pass(each)]


def _at_length(configuration: Configuration, base: Configuration, profile: Profile, ratio: float) -> Configuration:
    """Move `configuration` to a training `ratio` times as long; the baseline stays as it is."""
    if configuration == base:
        return configuration
    factor = rate_factor(configuration, profile, ratio)
    return carried_over(configuration, ratio, factor, same_rows=repeats(profile, ratio))


def _most_trials(race: Race) -> int:
    rungs = (race.steps or _MANY_TRIALS * race.rung) / race.rung
    return race.trials or min(math.ceil(rungs), _MOST_TRIALS)
