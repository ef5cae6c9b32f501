"""A choice becomes a plan: laid out on the model, with all that it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from optselect.building.groups import param_groups
from optselect.configuration import USER, Trial
from optselect.parameters.anatomy import Anatomy
from optselect.parameters.sharding import whole
from optselect.plan import ModelFingerprint, OptimizerPlan, Reason
from optselect.plan.neighbour import neighbours_of
from optselect.plan.versions import versions
from optselect.profile import Profile
from optselect.rules import Proposal
from optselect.search import reasons
from optselect.search.choice import Choice
from optselect.search.pace import as_trained, count_in_time, in_time
from optselect.search.race import Race
from optselect.workload.protocol import Workload
from optselect.workload.room import obstacle_to_trials


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
    """Write up the plan for `workload` to train with `choice`.

    Where trials were compared at equal time, it is for as many steps as take as long as the baseline's.
    """
    race = race if trials else race.untried
    slowness = race.slowness_of(choice.configuration)
    chosen = in_time(choice.configuration, slowness)
    steps = None if workload.steps is None else count_in_time(workload.steps, slowness)
    return OptimizerPlan(
        configuration=chosen,
        param_groups=() if chosen.optimizer == USER else param_groups(anatomy, chosen),
        total_steps=steps,
        compare=race.compare,
        reasons=(
            *choice.reasons,
            *_remarks(workload, tried=bool(trials)),
            *reasons.pace(choice.configuration, race, trials, workload.accumulate),
            *reasons.equal_time(race, chosen, steps=steps, whole=workload.steps),
            reasons.cost(race, trials),
        ),
        baseline=race.baseline if trials else None,
        lead=choice.lead,
        profile=profile,
        proposals=tuple(proposals),
        neighbours=neighbours_of(profile) if any(each.seat == "portfolio" for each in proposals) else (),
        trials=tuple(as_trained(race, trial) for trial in trials),
        search_steps=round(race.spent_with(trials)),
        search_seconds=round(sum(trial.seconds for trial in trials), 3),
        model_fingerprint=ModelFingerprint.of(whole(workload.model), profile.model.left_out),
        sparse=profile.gradient.sparse,
        monitor=workload.monitor,
        mode=workload.mode,
        versions=versions(),
    )


def _remarks(workload: Workload, *, tried: bool) -> Iterator[Reason]:
    """Say what there is to know of the training, whatever is chosen."""
    yield from reasons.own_optimizer(workload.own_optimizer)
    if tried:
        yield from map(reasons.caveat, workload.caveats)
    elif (obstacle := obstacle_to_trials(workload)) is not None:
        yield reasons.caveat(f"nothing was tried, for {obstacle}")
    if workload.obstacle_to_scheduling is not None:
        yield reasons.no_schedule(workload.obstacle_to_scheduling)
