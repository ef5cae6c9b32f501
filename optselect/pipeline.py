"""The whole choice on one screen: measure, propose, search, decide, plan."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from optselect.briefing import (
    METHOD,
    Method,
    briefed,
    laid_out,
    previewed,
    proposed,
    taken_up,
)
from optselect.budget import Budget
from optselect.configuration.goal import Compare
from optselect.configuration.policy import FineTuningWord
from optselect.plan import OptimizerPlan
from optselect.planning import planned
from optselect.profile import Profile
from optselect.report.live import progress_for
from optselect.rules import Rule
from optselect.search.choice import decide
from optselect.search.progress import Progress, Silent
from optselect.search.transfer import for_the_whole_training
from optselect.search.worker import LaidOutOtherwiseError, search
from optselect.settings import RISK, Settings
from optselect.study.artifacts import Artifacts
from optselect.study.storage import Storage
from optselect.study.study import TrialStudy
from optselect.workload.protocol import Workload
from optselect.workload.stopwatch import Stopwatch


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
    risk: float = RISK,
    compare: Compare = "steps",
    artifacts: Artifacts = None,
    progress: Progress | bool = True,
) -> OptimizerPlan:
    """Choose and tune an optimizer for `workload` within `budget`; the workload comes back as it was.

    The arguments are those of `AutoOptimizer`; `storage=None` keeps the study in memory, and `progress` may be an
    object of your own. Raises `BudgetError`, `UnknownOptimizerError` and `ConfigurationError` before anything is run.
    """
    settings = Settings(
        budget=budget,
        candidates=candidates,
        rules=rules,
        storage=storage,
        study_name=study_name,
        seed=seed,
        fine_tuning=fine_tuning,
        risk=risk,
        compare=compare,
        artifacts=artifacts,
    )
    return make_selection(workload, settings, progress=progress).plan


def make_selection(
    workload: Workload,
    settings: Settings,
    *,
    progress: Progress | bool = True,
    first_process: bool = True,
    joins_within: float = 0.0,
    method: Method = METHOD,
) -> Selection:
    """Do what `select` does, for those who also want the profile and the study, or run on several processes.

    For so many seconds as `joins_within` another process is waited for to begin the search.
    """
    progress = progress_for(progress) if first_process else Silent()
    with workload.borrowed():
        brief = briefed(workload, settings)
        watch = Stopwatch(workload.model)
        profile, anatomy, study = taken_up(workload, brief, watch, first_process=first_process, seconds=joins_within)
        proposals, _ = proposed(workload, brief, profile, anatomy, method)
        progress.proposed(previewed(workload, brief, proposals, watch.pace))
        while True:
            laid = laid_out(workload, brief, profile, anatomy, study=study, method=method)
            with suppress(LaidOutOtherwiseError):
                race, trials = search(workload, laid.race, study, laid.runner, progress=progress, stages=method.stages)
                break
    choice = decide(race, trials, laid.proposals, brief.monitor, policies=laid.policies)
    choice = for_the_whole_training(choice, race, trials, laid.profile, method.rate_transfer)
    plan = planned(workload, choice, race, trials, profile=laid.profile, anatomy=anatomy, proposals=laid.proposals)
    progress.chosen(plan)
    return Selection(plan=workload.agree(plan), profile=laid.profile, study=study)
