"""A choice becomes a plan: laid out on the model, with all that it rests on."""

from __future__ import annotations

from collections.abc import Sequence

from optselect.building.groups import param_groups
from optselect.configuration import USER, Trial
from optselect.parameters.anatomy import Anatomy
from optselect.plan import ModelFingerprint, OptimizerPlan
from optselect.plan.versions import versions
from optselect.profile import Profile
from optselect.rules import Proposal
from optselect.search.choice import Choice
from optselect.search.race import Race
from optselect.search.reasons import cost
from optselect.workload.protocol import Workload


def planned(
    workload: Workload,
    choice: Choice,
    race: Race,
    trials: Sequence[Trial],
    *,
    profile: Profile,
    anatomy: Anatomy,
    proposals: Sequence[Proposal],
) -> OptimizerPlan:
    """Write up the plan for `workload` to train with `choice`."""
    chosen, race = choice.configuration, race if trials else race.untried
    return OptimizerPlan(
        configuration=chosen,
        param_groups=() if chosen.optimizer == USER else param_groups(anatomy, chosen),
        total_steps=workload.steps,
        reasons=(*choice.reasons, cost(race, trials)),
        baseline=race.baseline if trials else None,
        lead=choice.lead,
        profile=profile,
        proposals=tuple(proposals),
        trials=tuple(trials),
        search_steps=round(race.spent_with(trials)),
        model_fingerprint=ModelFingerprint.of(workload.model),
        sparse=profile.gradient.sparse,
        monitor=workload.monitor,
        mode=workload.mode,
        versions=versions(),
    )
