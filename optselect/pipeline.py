"""The whole choice on one screen: measure, propose, search, decide."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence

from optuna.storages import BaseStorage

from optselect import catalogue
from optselect.arms import arms, baseline, configuration_of
from optselect.budget import VALIDATION_COST, Budget, resolve_budget
from optselect.configuration import USER, Configuration
from optselect.decide import Choice, choose, cost_sentence, records, versions
from optselect.evaluate import TrialRunner
from optselect.grouping import param_groups
from optselect.plan import ModelFingerprint, OptimizerPlan
from optselect.profile import Profile
from optselect.profile.measure import measure
from optselect.progress import Progress, Silent, default_progress
from optselect.race import Race, nominal_cost
from optselect.rules import Proposal, Rule, propose
from optselect.search import SearchResult, search
from optselect.study import Evaluation, TrialStudy, open_study
from optselect.workload import Workload

RulesArgument = str | Sequence[Rule]
Storage = str | os.PathLike[str] | BaseStorage | None

_RULES_ALONE_PASSES = 5
_PASSES = 8


def select(
    workload: Workload,
    budget: float | Budget | None = None,
    *,
    candidates: Sequence[str] | None = None,
    rules: RulesArgument = "default",
    storage: Storage = None,
    study_name: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> OptimizerPlan:
    """Choose and tune an optimizer for `workload` within `budget`; the workload comes back as it was.

    The arguments are those of `AutoOptimizer`; `storage=None` keeps the study in memory. Raises
    `BudgetError` and `UnknownOptimizerError` before anything is run.
    """
    return Selection(
        workload,
        budget,
        candidates=candidates,
        rules=rules,
        storage=storage,
        study_name=study_name,
        seed=seed,
        progress=progress,
    ).plan()


class Selection:
    """One choice in the making; `select` is the short way. Keeps the profile and the study for those who look."""

    def __init__(
        self,
        workload: Workload,
        budget: float | Budget | None = None,
        *,
        candidates: Sequence[str] | None = None,
        rules: RulesArgument = "default",
        storage: Storage = None,
        study_name: str | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        first_process: bool = True,
    ) -> None:
        self.workload = workload
        self.horizon = None if workload.steps is None else workload.steps * workload.accumulate
        self.budget = resolve_budget(budget, self.horizon)
        for name in candidates or ():
            if name != USER:
                catalogue.get(name)
        self.candidates = candidates
        self.rules = rules
        self.storage = storage
        self.study_name = study_name
        self.seed = seed
        self.first_process = first_process
        self.progress = progress or (default_progress() if first_process else Silent())
        self.profile: Profile | None = None
        self.study: TrialStudy | None = None

    def plan(self) -> OptimizerPlan:
        """Measure, propose, search, decide."""
        workload = self.workload
        with workload.borrowed():
            passes = _PASSES if self.budget.searches else _RULES_ALONE_PASSES
            self.profile = profile = workload.agree(measure(workload, passes=passes))
            proposals = propose(profile, rules=self.rules, candidates=self.candidates)
            race = self._race(profile, proposals)
            result = self._search(race, profile)
        evaluations = result.evaluations
        if self.budget.searches:
            choice = choose(race, evaluations, proposals, profile, workload.monitor)
        else:
            choice = _first_word(proposals, race.baseline)
        return self._written(choice, race, evaluations, profile, proposals)

    def _race(self, profile: Profile, proposals: Sequence[Proposal]) -> Race:
        base = baseline(self.workload.has_user_optimizer)
        contenders = arms(proposals, base)
        validation_cost = self.workload.validation_batches * VALIDATION_COST
        return Race(
            arms=contenders,
            baseline=base,
            horizon=self.horizon or self.budget.steps or 1_000,
            steps=self.budget.steps,
            trials=self.budget.trials,
            spent=profile.gradient.passes + validation_cost,
            validation_cost=validation_cost,
            mode=self.workload.mode,
            specs=tuple(catalogue.get(c.optimizer) for c in contenders if c.optimizer != USER),
        )

    def _search(self, race: Race, profile: Profile) -> SearchResult:
        if not self.budget.searches:
            return SearchResult(evaluations=(), cost=0.0, trials_run=0)
        if self.first_process:
            self.study = open_study(
                storage=self.storage,
                name=self.study_name or f"optselect-{self._identity()}",
                mode=self.workload.mode,
                facts={"monitor": self.workload.monitor, "profile": profile.to_dict()},
                exact_name=self.study_name is not None,
            )
        runner = TrialRunner(self.workload, sparse=profile.gradient.sparse, seed=self.seed)
        return search(
            self.workload, race, self.study, runner, seconds=self.budget.seconds, progress=self.progress
        )

    def _identity(self) -> str:
        """Of this search: another training, other candidates or another seed never continue it."""
        rules = self.rules if isinstance(self.rules, str) else [rule.name for rule in self.rules]
        parts = [self.workload.identity, list(self.candidates or ()), rules, self.seed, repr(self.budget)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]

    def _written(
        self,
        choice: Choice,
        race: Race,
        evaluations: Sequence[Evaluation],
        profile: Profile,
        proposals: Sequence[Proposal],
    ) -> OptimizerPlan:
        configuration = choice.configuration
        model = self.workload.model
        groups = () if configuration.optimizer == USER else param_groups(model, configuration, profile.gradient.sparse)
        spent = race.spent if self.budget.searches else profile.gradient.passes
        return OptimizerPlan(
            optimizer=configuration.optimizer,
            hyperparameters=dict(configuration.hyperparameters),
            param_groups=groups,
            schedule=configuration.schedule,
            total_steps=self.workload.steps,
            reasons=(*choice.reasons, cost_sentence(race, evaluations, known_length=self.horizon is not None)),
            profile=profile,
            proposals=tuple(proposals),
            trials=records(evaluations),
            search_steps=round(spent + nominal_cost(race, evaluations)),
            model_fingerprint=ModelFingerprint.of(model),
            sparse=profile.gradient.sparse,
            monitor=self.workload.monitor,
            versions=versions(),
        )


def _first_word(proposals: Sequence[Proposal], base: Configuration) -> Choice:
    first = next((proposal for proposal in proposals if proposal.optimizer != USER), None)
    if first is None:
        return Choice(configuration=base, reasons=("the rules propose nothing, so the baseline stays",))
    votes = tuple(f"{vote.rule}: {vote.because.describe()} [{vote.cites}]" for vote in first.because)
    return Choice(
        configuration=configuration_of(first),
        reasons=("the budget is 0, so this is the rules' first choice, without evidence from trials", *votes),
    )
