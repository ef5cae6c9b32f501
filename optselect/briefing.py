"""What happens before the first trial: the limits, the profile, the proposals, the study and the pace."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from optselect.budget import Budget, resolve_budget
from optselect.building.fitting_policy import fitting, policy_for, with_policy
from optselect.configuration import USER, Configuration, FineTuning, Goal, Schedule
from optselect.errors import ConfigurationError, OptselectError
from optselect.parameters.anatomy import Anatomy, anatomy_of
from optselect.profile import Profile
from optselect.profile.measure import measure
from optselect.profile.model import measured_anatomy
from optselect.rules import Policy, Prior, Proposal, configuration, propose
from optselect.rules import policies as policies_for
from optselect.rules.length import rate_factor
from optselect.search.brief import Brief
from optselect.search.progress import Preview
from optselect.search.race import Race
from optselect.search.race_for import arms_of, baseline_of, race_for, timeable
from optselect.search.runner import PAUSED_BYTES, TIMING_COST, TrialRunner
from optselect.search.stages import STAGES, Stage
from optselect.search.tactics import TACTICS, Tactics
from optselect.settings import Settings
from optselect.study.identity import Identity, digest_of, measured_figures
from optselect.study.opening import find_study, is_of, open_study, says_that_it_goes_on
from optselect.study.study import TrialStudy
from optselect.workload.borrowed_model import requires_grad_restored, training_bytes
from optselect.workload.own_optimizer import left_out_by
from optselect.workload.protocol import Workload
from optselect.workload.rng import rng_isolated
from optselect.workload.room import obstacle_to_trials, room_of
from optselect.workload.stopwatch import Stopwatch

# Backward passes of the profile; one for so many micro-batches where the whole search is short; without any trial.
_PASSES, _STEPS_FOR_A_PASS, _RULES_ALONE_PASSES = 8, 25, 5
# Of the memory that is free where the model lives: the training itself, its data and its workers need the rest.
_SHARE_OF_FREE = 0.125
# Of the budget, for timing the optimizers that are to be compared at equal time.
_SHARE_OF_TIMING = 0.1
# A model that takes so much of that room is a large one.
_WORTH_SAYING = 1 / 64
# What was measured, in the study and in what its race was laid out by.
_PROFILE = "profile"

_log = logging.getLogger("optselect")


@dataclass(frozen=True, kw_only=True)
class Method:
    """How a choice is made. Users leave it alone; an ablation takes another part.

    prior          where an optimizer starts, by its name and the profile
    stages         of the search, in their order
    tactics        its thresholds
    runner         what runs its trials
    paused_bytes   memory for trials that are put aside, at most
    rate_transfer  what a training so many times as long does to a configuration's rate
    """

    prior: Prior = configuration
    stages: tuple[Stage, ...] = STAGES
    tactics: Tactics = TACTICS
    runner: type[TrialRunner] = TrialRunner
    paused_bytes: int = PAUSED_BYTES
    rate_transfer: Callable[[Configuration, Profile, float], float] = rate_factor


METHOD = Method()


def briefed(workload: Workload, settings: Settings) -> Brief:
    """Gather the facts and limits of a search on `workload`, which is borrowed.

    Raises `BudgetError` and `ConfigurationError` for what does not fit this training, before anything is run.
    """
    horizon = None if workload.steps is None else workload.steps * workload.accumulate
    budget = resolve_budget(settings.budget, horizon)
    if budget.searches and (obstacle := obstacle_to_trials(workload)):
        _log.warning("the rules' choice is taken without trials: %s", obstacle)
        budget = replace(budget, steps=0)
    if USER in (settings.candidates or ()) and not workload.has_user_optimizer:
        raise ConfigurationError(
            f"{USER!r} is among the candidates, but the training brings no optimizer of its own; give it one or "
            "leave the name out"
        )
    told, own = settings.fine_tuning, workload.own_optimizer
    anatomy = anatomy_of(workload.model, left_out=left_out_by(workload))
    policy = policy_for(workload, told, anatomy) if isinstance(told, FineTuning) else None
    return Brief(
        # In terms of this training: a study is known by the names that a policy means, not by its functions.
        settings=settings if policy is None else replace(settings, fine_tuning=policy),
        budget=budget,
        horizon=horizon,
        accumulate=workload.accumulate,
        goal=Goal(workload.mode),
        monitor=workload.monitor,
        validation_batches=workload.validation_batches,
        has_user_optimizer=workload.has_user_optimizer,
        user_passes=own.passes if own is not None else 1,
        user_scales=own is None or not own.one,
        user_called="" if own is None else own.called,
        keeps_best=workload.keeps_best,
        # Parts of a model differ a little from process to process, and all lay out the same race.
        training_bytes=workload.agree(training_bytes(workload.model)),
        policy=policy,
    )


def taken_up(
    workload: Workload,
    brief: Brief,
    watch: Stopwatch | None = None,
    *,
    first_process: bool = True,
    seconds: float = 0.0,
) -> tuple[Profile, Anatomy, TrialStudy | None]:
    """Join the search that another process has begun, waiting for it for so many `seconds`, or begin it.

    Return what the training was measured to be, by whoever began, and the study; None on other processes than the
    first, and where nothing is tried.
    """
    identity = study = None
    if first_process and brief.budget.searches:
        # Before anything is measured: a pass moves BatchNorm's statistics.
        identity = workload.identity.joined(brief.settings.facts)
        study = begun(brief, identity, seconds=seconds)
    known = joined(workload, brief, study, identity, watch)
    if known is not None:
        return *known, study
    profile, anatomy = measured(workload, brief, watch)
    return profile, anatomy, None if identity is None else opened(brief, identity, profile)


def begun(brief: Brief, identity: Identity, *, seconds: float = 0.0) -> TrialStudy | None:
    """Find the study that another process has begun for this training, waiting for it for so many `seconds`.

    None where there is none yet; it is that of this training as far as `identity` tells.
    """
    settings = brief.settings
    return find_study(
        storage=settings.storage,
        name=_name_of(identity, settings),
        identity=identity,
        exact_name=settings.study_name is not None,
        artifacts=settings.artifacts,
        seconds=seconds,
    )


def joined(
    workload: Workload,
    brief: Brief,
    study: TrialStudy | None,
    identity: Identity | None,
    watch: Stopwatch | None = None,
) -> tuple[Profile, Anatomy] | None:
    """Return what was measured for the search of `study`, once a single pass has shown that it is of this training.

    A search is measured once, however many join it: what each of them measures is spent beyond the budget. `study` and
    `identity` are of the first process alone. None where the training has to be measured.
    """
    known = workload.agree(None if study is None else _profile_in(study))
    if known is None:
        return None
    with rng_isolated():  # where it is of another training after all, that is measured as if nothing had been before
        one, _ = measured(workload, brief, watch, passes=min(known.gradient.passes, 1))
    differs = study is not None and identity is not None and not is_of(study, _with_figures(identity, one))
    if workload.agree(differs):
        return None
    if study is not None:
        says_that_it_goes_on(study)
    return known, measured_anatomy(known, workload.model)


def _profile_in(study: TrialStudy) -> Profile | None:
    """Read what was measured for a search before; None where that does not stand there, or not as it is written now."""
    kept: Any = (study.basis or {}).get(_PROFILE) or study.study.user_attrs.get(_PROFILE)
    with suppress(OptselectError, LookupError, TypeError, ValueError, AttributeError):
        return Profile.from_dict(kept)
    return None


def measured(
    workload: Workload, brief: Brief, watch: Stopwatch | None = None, *, passes: int | None = None
) -> tuple[Profile, Anatomy]:
    """Measure the workload, timed by `watch`, and describe the model's parameters with what was measured.

    The user's word on whether the model is trained already stands in place of the measured one. `passes`: None, as many
    as the budget bears.
    """
    # A module's own hooks may freeze and unfreeze as its epochs go by: what counts is what the training begins with.
    with requires_grad_restored(workload.model):
        profile = measure(workload, passes=_passes(brief.budget) if passes is None else passes, watch=watch)
    told = brief.settings.fine_tuning
    if told != "auto":
        word = "a fine-tuning policy" if isinstance(told, FineTuning) else f"fine_tuning={told}"
        model = replace(profile.model, at_initialisation=not told, initialisation_evidence=f"{word} was given")
        profile = replace(profile, model=model)
    profile = workload.agree(profile)
    return profile, measured_anatomy(profile, workload.model)


def _passes(budget: Budget) -> int:
    if not budget.searches:
        return _RULES_ALONE_PASSES
    return _PASSES if budget.steps is None else min(_PASSES, max(budget.steps // _STEPS_FOR_A_PASS, 1))


def proposed(
    workload: Workload, brief: Brief, profile: Profile, anatomy: Anatomy, method: Method = METHOD
) -> tuple[list[Proposal], list[Policy]]:
    """Return what the rules propose, and policies to try on the leader: none where the user has given one.

    Where no schedule would move, rates are constant.
    """
    settings = brief.settings
    found = propose(profile, rules=settings.rules, candidates=settings.candidates, prior=method.prior)
    found = [replace(each, configuration=baseline_of(brief)) if each.optimizer == USER else each for each in found]
    if workload.obstacle_to_scheduling is not None:
        found = [replace(each, configuration=replace(each.configuration, schedule=Schedule())) for each in found]
    if brief.policy is None:
        return found, fitting(policies_for(profile), workload, anatomy)
    asked_for = settings.candidates is not None
    return with_policy(found, brief.policy, anatomy, asked_for=asked_for), []


def previewed(workload: Workload, brief: Brief, proposals: Sequence[Proposal], pace: float | None) -> Preview:
    """Gather what is known before the first trial, for whoever is told; `pace` in seconds per micro-batch."""
    monitor, goal, room = brief.monitor, brief.goal, room_of(workload)
    return Preview(proposals=proposals, monitor=monitor, goal=goal, pace=pace, room=room)


def opened(brief: Brief, identity: Identity, profile: Profile) -> TrialStudy:
    """Open the study of this training; one of another training, other candidates or another seed is never continued."""
    settings, identity = brief.settings, _with_figures(identity, profile)
    return open_study(
        storage=settings.storage,
        name=_name_of(identity, settings),
        identity=identity,
        mode=brief.goal.mode,
        facts={"monitor": brief.monitor, _PROFILE: profile.to_dict(), "budget": asdict(brief.budget)},
        exact_name=settings.study_name is not None,
        artifacts=settings.artifacts,
    )


def _with_figures(identity: Identity, profile: Profile) -> Identity:
    gradient = profile.gradient
    # Their mean: of other batches it is another.
    loss = {f"loss of {gradient.passes} batches": measured_figures([gradient.initial_loss])}
    return identity.joined({}, {**loss, "gradients": measured_figures(gradient.norms)})


def _name_of(identity: Identity, settings: Settings) -> str:
    return settings.study_name or f"optselect-{digest_of([identity.digest, repr(settings.budget)])}"


@dataclass(frozen=True, kw_only=True)
class LaidOut:
    """A race, what runs its trials, and what it was laid out by."""

    race: Race
    runner: TrialRunner
    profile: Profile
    proposals: Sequence[Proposal]
    policies: Sequence[Policy]


def laid_out(
    workload: Workload,
    brief: Brief,
    profile: Profile,
    anatomy: Anatomy,
    *,
    study: TrialStudy | None,
    method: Method = METHOD,
) -> LaidOut:
    """Lay out the race by what the first worker of the search has measured; where nobody has, by what this one has.

    Another machine adds up in another order, has other memory that is free, and another pace.
    """
    if study is not None:
        profile = Profile.from_dict(study.keep(_PROFILE, profile.to_dict()))
    profile = workload.agree(profile)
    proposals, policies = proposed(workload, brief, profile, anatomy, method)
    brief = with_room(workload, brief, profile, study, method)
    runner = runner_for(workload, brief, profile, anatomy, method)
    brief = at_pace(workload, brief, profile, proposals, runner=runner, study=study)
    room = brief.paused_bytes
    race = race_for(brief, profile, proposals, policies, paused_bytes=room, tactics=method.tactics)
    return LaidOut(race=race, runner=runner, profile=profile, proposals=proposals, policies=policies)


def with_room(
    workload: Workload, brief: Brief, profile: Profile, study: TrialStudy | None, method: Method = METHOD
) -> Brief:
    """Give `brief` the memory that trials may take which are put aside: a share of what is free, up to a bound.

    What an earlier process of the same search had counts, so that it goes on in the same way.
    """
    free = profile.model.memory_free
    room = method.paused_bytes if free is None else min(method.paused_bytes, int(_SHARE_OF_FREE * free))
    if (own := room_of(workload)) is not None:
        room = own.aside_bytes
    if study is not None:
        room = int(study.remember("bytes for trials put aside", room))
    room = workload.agree(room)
    if own is None and brief.budget.searches and study is not None and brief.training_bytes > room * _WORTH_SAYING:
        _log.info(
            "trials that are put aside take up to %.2f GiB of memory (at most %.0f %% of what is free, the model %.2f)",
            room / 2**30,
            100 * _SHARE_OF_FREE,
            brief.training_bytes / 2**30,
        )
    return replace(brief, paused_bytes=room)


def runner_for(
    workload: Workload, brief: Brief, profile: Profile, anatomy: Anatomy, method: Method = METHOD
) -> TrialRunner:
    """Make what runs the trials."""
    return method.runner(
        workload,
        anatomy=anatomy,
        seed=brief.settings.seed,
        initial_loss=profile.gradient.initial_loss,
        paused_bytes=brief.paused_bytes,
    )


def at_pace(
    workload: Workload,
    brief: Brief,
    profile: Profile,
    proposals: Sequence[Proposal],
    *,
    runner: TrialRunner,
    study: TrialStudy | None,
) -> Brief:
    """Express the seconds of `brief` as micro-batches, too, at the pace of the first two arms, if it has any.

    Where trials are compared at equal time, at the pace of the baseline. The pace that an earlier process of the same
    search measured counts.
    """
    if brief.settings.compare == "seconds" and brief.budget.searches:
        return _at_equal_time(workload, brief, profile, proposals, runner=runner, study=study)
    if brief.budget.seconds is None or not brief.budget.searches:
        return brief
    timed = timeable(brief, profile, proposals)
    timing = TIMING_COST * len(timed)
    pace = max((runner.seconds_per_micro_batch(each) or 0.0 for each in timed), default=0.0)
    pace = workload.agree(pace if study is None else study.remember("seconds per micro-batch", pace))
    spent = profile.gradient.passes + timing
    return replace(brief, budget=brief.budget.at_pace(pace, spent=spent), timing=timing)


def _at_equal_time(
    workload: Workload,
    brief: Brief,
    profile: Profile,
    proposals: Sequence[Proposal],
    *,
    runner: TrialRunner,
    study: TrialStudy | None,
) -> Brief:
    """Measure how many times as long as the baseline's a micro-batch takes with each optimizer among the arms.

    In their order, for a share of the budget; those beyond it take no part. A time that cannot be measured counts as
    the baseline's, and so does a shorter one: a training has no more steps than it was given.
    """

    def pace(timed: Configuration) -> float:
        measured = runner.seconds_per_micro_batch(timed) or 0.0
        name = f"seconds per micro-batch with {timed.optimizer}"
        return workload.agree(measured if study is None else study.remember(name, measured))

    base = baseline_of(brief)
    passes = brief.user_passes if base.optimizer == USER else 1
    unit = pace(base)
    limit = brief.budget.at_pace(unit / passes, spent=0).steps
    slowness, timing = {base.optimizer: 1.0}, float(TIMING_COST)
    left_out: list[str] = []
    for arm in arms_of(brief, profile, proposals):
        if arm.optimizer in slowness or arm.optimizer in left_out:
            continue
        # The first in any case: there would be nothing to compare.
        if limit is not None and len(slowness) > 1 and (timing + TIMING_COST) * passes > _SHARE_OF_TIMING * limit:
            left_out.append(arm.optimizer)
            continue
        own = pace(arm)
        slowness[arm.optimizer] = max(own / unit, 1.0) if own and unit else 1.0
        timing += TIMING_COST * slowness[arm.optimizer]
    if left_out:
        _log.info("not compared, for timing them would take too much of the budget: %s", ", ".join(left_out))
    timing = math.ceil(timing * passes)
    spent = profile.gradient.passes + timing
    return replace(brief, budget=brief.budget.at_pace(unit / passes, spent=spent), timing=timing, slowness=slowness)
