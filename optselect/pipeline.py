"""The whole choice on one screen: measure, propose, search, decide."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from optuna.storages import BaseStorage

from optselect import catalogue
from optselect.budget import UNKNOWN_LENGTH_STEPS, VALIDATION_COST, Budget, resolve_budget
from optselect.building.fitting_policy import policy_for
from optselect.building.groups import param_groups
from optselect.configuration import USER, Configuration
from optselect.configuration.policy import FineTuning, FineTuningWord
from optselect.errors import ConfigurationError, UnknownOptimizerError
from optselect.parameters.anatomy import Anatomy, anatomy_of
from optselect.plan import ModelFingerprint, OptimizerPlan
from optselect.profile import Profile
from optselect.profile.measure import measure
from optselect.profile.model import measured_anatomy
from optselect.report.live import default_progress
from optselect.rules import Policy, Proposal, Rule, policies, propose, resolve
from optselect.search.arms import arms, baseline, configuration_of
from optselect.search.choice import Choice, choose, cost_sentence, first_word, records, versions
from optselect.search.parking import states_beside
from optselect.search.progress import Progress, Silent
from optselect.search.race import Race, nominal_cost
from optselect.search.runner import PAUSED_BYTES, TIMING_COST, TrialRunner
from optselect.search.transfer import carried_over, for_the_whole_training, rate_factor, search_horizon
from optselect.search.worker import search
from optselect.study.study import Evaluation, TrialStudy, open_study
from optselect.workload.borrowed_model import training_bytes
from optselect.workload.protocol import Workload

_log = logging.getLogger("optselect")

Storage = str | os.PathLike[str] | BaseStorage | None

_PASSES = 8
_STEPS_FOR_A_PASS = 25
# A trial put aside holds the weights and the optimizer's state, three times as much in the largest of torch's.
_STATES = 4
_MANY_TRIALS, _MOST_TRIALS = 32, 100
# A quarter of a short training is hardly more than its warmup. Two fine-tunings of 75 steps that no rule was set on
# ended with test losses of 1.07 and 1.40 so, and 1.16 and 1.58 by quarters; five short trainings of small nets with
# the same or 4 % less, but one with 1 % more.
_LEAST_STEPS = 50
_RULES_ALONE_PASSES = 5
_BEST_COUNTS = "each trial counts as its best value so far: the training keeps the weights of its best"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user may ask for; the fields are those of `AutoOptimizer`.

    Raises `BudgetError`, `UnknownOptimizerError` and `ConfigurationError` for what cannot be meant.
    """

    budget: float | Budget | None = None
    candidates: Sequence[str] | None = None
    rules: str | Sequence[Rule] = "default"
    storage: Storage = None
    study_name: str | None = None
    seed: int = 0
    fine_tuning: FineTuningWord = "auto"

    def __post_init__(self) -> None:
        if not isinstance(self.budget, Budget | None):
            resolve_budget(self.budget, horizon=1)
        resolve(self.rules)
        if isinstance(self.candidates, str):
            raise ConfigurationError(
                f"candidates is a sequence of names, but got {self.candidates!r}; write [{self.candidates!r}]"
            )
        if self.candidates is not None and not self.candidates:
            raise ConfigurationError("candidates is empty, so there is nothing to choose from; name one or pass None")
        for name in self.candidates or ():
            if name != USER and name not in catalogue.names():
                raise UnknownOptimizerError.named(name, (*catalogue.names(), USER))


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A choice, with the profile it rests on and the study that holds its trials (None: nothing was tried here)."""

    plan: OptimizerPlan
    profile: Profile
    study: TrialStudy | None


def select(
    workload: Workload,
    budget: float | Budget | None = None,
    *,
    candidates: Sequence[str] | None = None,
    rules: str | Sequence[Rule] = "default",
    storage: Storage = None,
    study_name: str | None = None,
    seed: int = 0,
    fine_tuning: FineTuningWord = "auto",
    progress: Progress | None = None,
) -> OptimizerPlan:
    """Choose and tune an optimizer for `workload` within `budget`; the workload comes back as it was.

    The arguments are those of `AutoOptimizer`; `storage=None` keeps the study in memory. Raises
    `BudgetError`, `UnknownOptimizerError` and `ConfigurationError` before anything is run.
    """
    settings = Settings(
        budget=budget,
        candidates=candidates,
        rules=rules,
        storage=storage,
        study_name=study_name,
        seed=seed,
        fine_tuning=fine_tuning,
    )
    return make_selection(workload, settings, progress=progress).plan


def make_selection(
    workload: Workload, settings: Settings, *, progress: Progress | None = None, first_process: bool = True
) -> Selection:
    """`select` for those who also want the profile and the study, or run on several processes."""
    progress = progress or (default_progress() if first_process else Silent())
    study: TrialStudy | None = None
    evaluations: tuple[Evaluation, ...] = ()
    with workload.borrowed():
        fingerprint = ModelFingerprint.of(workload.model)
        horizon = None if workload.steps is None else workload.steps * workload.accumulate
        budget = resolve_budget(settings.budget, horizon)
        if USER in (settings.candidates or ()) and not workload.has_user_optimizer:
            raise ConfigurationError(
                f"{USER!r} is among the candidates, but the training brings no optimizer of its own; give it one or "
                "leave the name out"
            )
        # First: a policy that does not fit the model is to be said before anything is run.
        told = settings.fine_tuning
        policy = policy_for(workload, told, anatomy_of(workload.model)) if isinstance(told, FineTuning) else None
        settings = replace(settings, fine_tuning=policy or settings.fine_tuning)
        profile = workload.agree(_as_told(measure(workload, passes=_passes(budget)), fine_tuning=settings.fine_tuning))
        anatomy = measured_anatomy(profile, workload.model)
        worth_trying = [] if policy else _policies(workload, profile, anatomy)
        proposals = _proposals(profile, anatomy, settings, policy)
        progress.proposed(profile, proposals)
        base = _baseline(workload, policy)
        spent = profile.gradient.passes
        if budget.searches:
            study = _study(workload, settings, profile) if first_process else None
            if budget.seconds is not None:
                timed = _timeable(proposals, base, workload.user_passes)
                spent += TIMING_COST * len(timed)
                pace = _pace(TrialRunner(workload, anatomy=anatomy, seed=settings.seed), timed)
                pace = workload.agree(study.remember("seconds per micro-batch", pace) if study is not None else pace)
                budget = budget.at_pace(pace, spent=spent)
        tried = tuple(each.fine_tuning for each in worth_trying)
        race = _race(workload, profile, proposals, budget, horizon, base=base, spent=spent, tried=tried)
        if budget.searches:
            runner = TrialRunner(
                workload,
                anatomy=anatomy,
                seed=settings.seed,
                initial_loss=profile.gradient.initial_loss,
                steps=race.horizon // workload.accumulate if race.training else None,
                paused_bytes=PAUSED_BYTES if race.takes_further else 0,
                states=states_beside(study) if study is not None else None,
            )
            evaluations = search(workload, race, study, runner, progress=progress)
    if not evaluations:
        race = replace(race, spent=spent)
    choice = (
        choose(race, evaluations, proposals, workload.monitor)
        if budget.searches
        else first_word(proposals, race.baseline)
    )
    choice = _with_reason(choice, worth_trying)
    if race.keeps_best and evaluations:
        choice = replace(choice, reasons=(*choice.reasons, _BEST_COUNTS))
    choice = for_the_whole_training(choice, race, evaluations, profile)
    cost = cost_sentence(race, evaluations)
    plan = _plan(
        workload,
        choice=choice,
        race=race,
        evaluations=evaluations,
        profile=profile,
        anatomy=anatomy,
        proposals=proposals,
        fingerprint=fingerprint,
        cost=cost,
    )
    progress.chosen(plan, cost)
    return Selection(plan=workload.agree(plan), profile=profile, study=study)


def _policies(workload: Workload, profile: Profile, anatomy: Anatomy) -> list[Policy]:
    """The policies that the rules propose, as far as they fit this model and this training."""
    found = []
    for each in policies(profile):
        try:
            found.append(replace(each, fine_tuning=policy_for(workload, each.fine_tuning, anatomy)))
        except ConfigurationError as error:
            _log.info("not tried: %s (%s)", each.fine_tuning.describe(), error)
    return found


def _with_reason(choice: Choice, worth_trying: Sequence[Policy]) -> Choice:
    policy = choice.configuration.fine_tuning
    words = [
        f"{policy.describe()}: {each.mechanism} [{each.cites}]"
        for each in worth_trying
        if policy and policy == each.fine_tuning
    ]
    return replace(choice, reasons=(*choice.reasons, *words))


def _as_told(profile: Profile, *, fine_tuning: FineTuningWord) -> Profile:
    """The profile, with the user's word on whether the model is trained already in place of the measured one."""
    if fine_tuning == "auto":
        return profile
    word = "a fine-tuning policy" if isinstance(fine_tuning, FineTuning) else f"fine_tuning={fine_tuning}"
    told = replace(profile.model, at_initialisation=not fine_tuning, initialisation_evidence=f"{word} was given")
    return replace(profile, model=told)


def _proposals(profile: Profile, anatomy: Anatomy, settings: Settings, policy: FineTuning | None) -> list[Proposal]:
    """What the rules propose; each with the user's `policy`, where there is one and the optimizer can follow it."""
    proposed = propose(profile, rules=settings.rules, candidates=settings.candidates)
    if policy is None:
        return proposed
    found, refused = [], []
    for proposal in proposed:
        if proposal.optimizer == USER:
            found.append(proposal)
            continue
        told = replace(proposal, fine_tuning=policy)
        try:
            param_groups(anatomy, configuration_of(told))
        except ConfigurationError as error:
            if settings.candidates is not None:
                raise
            refused.append(error)
        else:
            found.append(told)
    if not found:
        raise refused[0]
    return found


def _passes(budget: Budget) -> int:
    """Backward passes for the profile: few where the whole search is short."""
    if not budget.searches:
        return _RULES_ALONE_PASSES
    return _PASSES if budget.steps is None else min(_PASSES, max(budget.steps // _STEPS_FOR_A_PASS, 1))


def _baseline(workload: Workload, policy: FineTuning | None) -> Configuration:
    base = baseline(has_user_optimizer=workload.has_user_optimizer)
    # Whoever says what is to be frozen means it whichever optimizer is chosen.
    return base if base.optimizer == USER else replace(base, fine_tuning=policy)


def _timeable(proposals: Sequence[Proposal], base: Configuration, user_passes: int) -> list[Configuration]:
    """The two arms that every search begins with, as far as a micro-batch is one pass for them."""

    def is_one_pass(configuration: Configuration) -> bool:
        name = configuration.optimizer
        return user_passes == 1 if name == USER else not catalogue.get(name).closure

    return [each for each in arms(proposals, base)[:2] if is_one_pass(each)]


def _pace(runner: TrialRunner, configurations: Sequence[Configuration]) -> float:
    """Seconds for a micro-batch of the slowest of `configurations`; 0 where none can be timed."""
    return max((runner.seconds_per_micro_batch(each) or 0.0 for each in configurations), default=0.0)


def _race(
    workload: Workload,
    profile: Profile,
    proposals: Sequence[Proposal],
    budget: Budget,
    horizon: int | None,
    *,
    base: Configuration,
    spent: int,
    tried: tuple[FineTuning, ...],
) -> Race:
    contenders = arms(proposals, base)
    validation_cost = workload.validation_batches * VALIDATION_COST
    searched = horizon or budget.steps or UNKNOWN_LENGTH_STEPS
    if horizon is not None and budget.searches and (searched := search_horizon(horizon, budget.steps)) < horizon:
        ratio = searched / horizon
        contenders = tuple(
            c if c == base else carried_over(c, ratio, rate_factor(c, profile, ratio)) for c in contenders
        )
    race = Race(
        arms=contenders,
        baseline=base,
        horizon=searched,
        training=horizon if horizon is not None and searched < horizon else None,
        length_known=horizon is not None,
        steps=budget.steps,
        seconds=budget.seconds,
        trials=budget.trials,
        spent=spent,
        policies=tried,
        validation_cost=validation_cost,
        mode=workload.mode,
        specs=tuple(catalogue.get(c.optimizer) for c in contenders if c.optimizer != USER),
        user_passes=workload.user_passes,
        least_rung=_LEAST_STEPS * workload.accumulate,
    )
    if race.judges_untrained:
        race = replace(race, spent=race.spent + validation_cost)
    most = budget.trials or min(math.ceil((budget.steps or _MANY_TRIALS * race.rung) / race.rung), _MOST_TRIALS)
    continues = most * _STATES * training_bytes(workload.model) <= PAUSED_BYTES
    # Where a trial starts over for every rung, looking at it more often is too dear.
    return replace(race, continues=continues, keeps_best=workload.keeps_best and continues)


def _study(workload: Workload, settings: Settings, profile: Profile) -> TrialStudy:
    """The study of this training: another one, other candidates or another seed never continue it."""
    rules = settings.rules if isinstance(settings.rules, str) else [rule.name for rule in settings.rules]
    word = settings.fine_tuning
    told = word.to_dict() if isinstance(word, FineTuning) else word
    parts = [workload.identity, list(settings.candidates or ()), rules, settings.seed, told]
    identity, limited = (
        hashlib.sha256(json.dumps(each).encode()).hexdigest()[:12] for each in (parts, [*parts, repr(settings.budget)])
    )
    return open_study(
        storage=settings.storage,
        name=settings.study_name or f"optselect-{limited}",
        identity=identity,
        mode=workload.mode,
        facts={"monitor": workload.monitor, "profile": profile.to_dict()},
        exact_name=settings.study_name is not None,
    )


def _plan(
    workload: Workload,
    *,
    choice: Choice,
    race: Race,
    evaluations: Sequence[Evaluation],
    profile: Profile,
    anatomy: Anatomy,
    proposals: Sequence[Proposal],
    fingerprint: ModelFingerprint,
    cost: str,
) -> OptimizerPlan:
    chosen = choice.configuration
    groups = () if chosen.optimizer == USER else param_groups(anatomy, chosen)
    return OptimizerPlan(
        optimizer=chosen.optimizer,
        hyperparameters=dict(chosen.hyperparameters),
        param_groups=groups,
        schedule=chosen.schedule,
        fine_tuning=chosen.fine_tuning,
        total_steps=workload.steps,
        reasons=(*choice.reasons, cost),
        baseline=race.baseline if evaluations else None,
        lead=choice.lead,
        profile=profile,
        proposals=tuple(proposals),
        trials=records(evaluations),
        search_steps=round(race.spent + nominal_cost(race, evaluations)),
        model_fingerprint=fingerprint,
        sparse=profile.gradient.sparse,
        monitor=workload.monitor,
        mode=workload.mode,
        versions=versions(),
    )
