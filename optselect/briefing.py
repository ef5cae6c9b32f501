"""What happens before the first trial: the limits, the profile, the proposals, the study and the pace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from optselect.budget import Budget, resolve_budget
from optselect.building.fitting_policy import fitting, policy_for, with_policy
from optselect.configuration import USER, Configuration, FineTuning, Goal
from optselect.errors import ConfigurationError
from optselect.parameters.anatomy import Anatomy, anatomy_of
from optselect.profile import Profile
from optselect.profile.measure import measure
from optselect.profile.model import measured_anatomy
from optselect.rules import Policy, Prior, Proposal, configuration, propose
from optselect.rules import policies as policies_for
from optselect.search.brief import Brief
from optselect.search.race_for import timeable
from optselect.search.runner import PAUSED_BYTES, TIMING_COST, TrialRunner
from optselect.search.stages import STAGES, Stage
from optselect.search.tactics import TACTICS, Tactics
from optselect.search.transfer import rate_factor
from optselect.settings import Settings
from optselect.study.opening import open_study
from optselect.study.study import TrialStudy
from optselect.workload.borrowed_model import requires_grad_restored, training_bytes
from optselect.workload.protocol import Workload

# Backward passes of the profile; one for so many micro-batches where the whole search is short; without any trial.
_PASSES, _STEPS_FOR_A_PASS, _RULES_ALONE_PASSES = 8, 25, 5


@dataclass(frozen=True, kw_only=True)
class Method:
    """How a choice is made. Users leave it alone; an ablation takes another part.

    prior          where an optimizer starts, by its name and the profile
    stages         of the search, in their order
    tactics        its thresholds
    runner         what runs its trials
    paused_bytes   memory for trials that are put aside
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
    if USER in (settings.candidates or ()) and not workload.has_user_optimizer:
        raise ConfigurationError(
            f"{USER!r} is among the candidates, but the training brings no optimizer of its own; give it one or "
            "leave the name out"
        )
    told = settings.fine_tuning
    policy = policy_for(workload, told, anatomy_of(workload.model)) if isinstance(told, FineTuning) else None
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
        user_passes=workload.user_passes,
        keeps_best=workload.keeps_best,
        training_bytes=training_bytes(workload.model),
        policy=policy,
    )


def measured(workload: Workload, brief: Brief) -> tuple[Profile, Anatomy]:
    """Measure the workload, and describe the model's parameters with what was measured.

    The user's word on whether the model is trained already stands in place of the measured one.
    """
    # A module's own hooks may freeze and unfreeze as its epochs go by: what counts is what the training begins with.
    with requires_grad_restored(workload.model):
        profile = measure(workload, passes=_passes(brief.budget))
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
    """Return what the rules propose, and policies to try on the leader: none where the user has given one."""
    settings = brief.settings
    found = propose(profile, rules=settings.rules, candidates=settings.candidates, prior=method.prior)
    if brief.policy is None:
        return found, fitting(policies_for(profile), workload, anatomy)
    asked_for = settings.candidates is not None
    return with_policy(found, brief.policy, anatomy, asked_for=asked_for), []


def opened(workload: Workload, brief: Brief, profile: Profile) -> TrialStudy | None:
    """Open the study of this training; one of another training, other candidates or another seed is never continued.

    None where nothing is tried.
    """
    if not brief.budget.searches:
        return None
    settings = brief.settings
    identity, limited = settings.identities(workload.identity)
    return open_study(
        storage=settings.storage,
        name=settings.study_name or f"optselect-{limited}",
        identity=identity,
        mode=brief.goal.mode,
        facts={"monitor": brief.monitor, "profile": profile.to_dict()},
        exact_name=settings.study_name is not None,
    )


def runner_for(
    workload: Workload, brief: Brief, profile: Profile, anatomy: Anatomy, method: Method = METHOD
) -> TrialRunner:
    """Make what runs the trials."""
    return method.runner(
        workload,
        anatomy=anatomy,
        seed=brief.settings.seed,
        initial_loss=profile.gradient.initial_loss,
        paused_bytes=method.paused_bytes,
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

    The pace that an earlier process of the same search measured counts.
    """
    if brief.budget.seconds is None or not brief.budget.searches:
        return brief
    timed = timeable(brief, proposals)
    timing = TIMING_COST * len(timed)
    pace = max((runner.seconds_per_micro_batch(each) or 0.0 for each in timed), default=0.0)
    pace = workload.agree(pace if study is None else study.remember("seconds per micro-batch", pace))
    spent = profile.gradient.passes + timing
    return replace(brief, budget=brief.budget.at_pace(pace, spent=spent), timing=timing)
