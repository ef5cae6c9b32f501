"""Which trial comes next: a pure function of the trials so far.

A killed search therefore needs no state of its own: asked again with the same trials, it gives the same
job. Costs are counted as an uninterrupted search would have spent them, so a kill changes nothing in what
is chosen.

The stages, each only as far as the budget goes:

1. *Arms.* A few complementary whole configurations to a quarter of the real schedule. In a simulation on
   measured curves of nine tasks, four arms at a quarter came within .045 of the oracle's regret (mean), and
   so did eight arms of which three went on after a tenth; picking the winner at a tenth cost .72. So where
   not all arms can go to a quarter, more go to a tenth, and the best two and the baseline go on.
   A trained model wants the right rate, and the right share of it for each part, more than another algorithm: there
   three arms begin.
2. *Escape.* Where none of the first arms is ahead of the baseline, the rules are wrong about this training, and
   their other arms are, too. Then the baseline's own optimizer is tried half a decade up, and up again for as long as
   that helps, or else down: the sweep that one would do without rules.
3. *Neighbours.* Half a decade of learning rate up and down around the leader and the runner-up, until the
   leader is no longer at an edge. For a trained model of the leader alone.
4. *Policies*, for a trained model. The leader with each of the ways to train its parts; then the *others*: what the
   two stages before have left out, so the runner-up's rates and more arms.
5. *Refinement*, with a large budget. Optuna's Gaussian process over optimizer, rate, schedule and momentum.
6. *Halves.* The leader, the baseline, the leader at half its rate, the best of another optimizer, to half of the
   schedule: a quarter favours rates that are too high, most where small data are seen many times. Measured on two
   such tasks, half the rate was behind by up to a third at a quarter and ahead by a third or more at a half.
7. *Confirmation*, with a large budget. The three leaders and the baseline once more, on another order of the
   data: the best of many noisy values is too good to be true.
8. *Finish.* The leader and its rival to the end of the schedule, then a third: what will be overfit shows
   only there. Earlier stages keep to what this leaves them.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from optselect.catalogue import OptimizerSpec
from optselect.configuration import LR_SCALE, USER, USER_SPACE, Configuration
from optselect.configuration.goal import Mode
from optselect.configuration.policy import FineTuning
from optselect.search.gaussian_process import suggestion
from optselect.space import Dimension, SearchSpace
from optselect.study.study import Evaluation

HALF_DECADE = 10**0.5
# Two learning rates closer than this are the same trial; the seed noise of short trials hides more.
_SAME_LR_DECADES = 0.05
_CONFIRMATION_SEEDS = (1,)
_CONFIRMED = 3
# Leads over the baseline that differ by less than this share are told apart by their noise.
NEAR_TIE = 0.05
# Two seeds of one configuration differ by about this share of the loss on small data (measured on digits).
SEED_NOISE = 0.1
# Those of torch's LBFGS as it comes: at most 1.25 for each of 20 iterations.
_CLOSURE_PASSES = 25
# Where a Gaussian process has seen this many quarters, more add nothing (and a budget may be endless).
_MOST_JUDGED = 60
# Trainings' worth of budget from which leaders go on to a half, from which the leader and the baseline are run to the
# end, and from which there is also room for refinement and confirmation.
_HALVING, _FINISHING, _THOROUGH = 2.5, 3.5, 6.0
# The best rate at a third was 1.15 times that at the end, the best at a ninth 1.7 times (Spearman .83 and .62).
_STEADIER = 0.5
# Four arms to a quarter came as near as eight of which three went on after a tenth (SEARCH, above).
_ENOUGH = 4
# A later look tells little that is new where it comes less than half as late again.
_FURTHER = 1.5
# On two trained models the algorithms of the first arms ended within .1 of each other (test loss), and rates half a
# decade beside the best one .08 to 1.2 behind it.
_ENOUGH_TRAINED = 3
# A few micro-batches say only roughly how long others take, and the last of the first arms has to fit, too.
_TIMED = 0.8
# Two leaders and the baseline go on from a screening.
_PROMOTED = 3


@dataclass(frozen=True, kw_only=True)
class Race:
    """What the search is about.

    arms             configurations of the first stage, the most wanted first; the baseline is among them
    baseline         what is replaced only on evidence
    horizon          micro-batches of the training that is searched
    steps            micro-batches the search may cost (None: no such limit)
    seconds          wall-clock time its trials may take (None: no such limit)
    trials           trials it may start (None: no such limit)
    spent            micro-batches spent before the first trial
    validation_cost  micro-batches that judging a trial once counts
    continues        whether a trial can go on where it stood (else it starts over, and costs that)
    mode             whether small or large values are good
    specs            catalogue entries of the optimizers in the arms, for their bounds
    training         micro-batches of the training to come, where the one that is searched is shorter
    length_known     whether the training's length is; else the horizon is a guess, and no share of it is told
    keeps_best       whether the training keeps the weights of its best value: trials then count as theirs so far
    least_rung       micro-batches that the first rung should have, as far as half of the training and the budget allow
    user_passes      forward and backward passes of one micro-batch with the user's own optimizer
    policies         ways to train the parts of a trained model, to try on the leader
    """

    arms: tuple[Configuration, ...]
    baseline: Configuration
    horizon: int
    steps: int | None
    seconds: float | None = None
    trials: int | None = None
    spent: float = 0.0
    validation_cost: float = 0.0
    continues: bool = True
    mode: Mode = "min"
    specs: tuple[OptimizerSpec, ...] = field(default=())
    training: int | None = None
    length_known: bool = True
    policies: tuple[FineTuning, ...] = ()
    keeps_best: bool = False
    least_rung: int = 1
    user_passes: int = 1

    @property
    def whole(self) -> int:
        """Micro-batches of the training to come."""
        return self.training or self.horizon

    @property
    def left(self) -> float:
        """Micro-batches for trials."""
        return math.inf if self.steps is None else self.steps - self.spent

    def passes(self, configuration: Configuration) -> int:
        """Forward and backward passes of one micro-batch: an optimizer with a closure takes several."""
        if configuration.optimizer == USER:
            return self.user_passes
        return _CLOSURE_PASSES if configuration.optimizer in self._closures else 1

    @functools.cached_property
    def _closures(self) -> frozenset[str]:
        return frozenset(spec.name for spec in self.specs if spec.closure)

    @property
    def trainings(self) -> float:
        """What is left for trials, in trainings."""
        return self.left / self.horizon

    @property
    def first_arms(self) -> tuple[Configuration, ...]:
        """Those which tell whether the rules are right about this training."""
        return self.arms[: _ENOUGH_TRAINED if self.policies else _ENOUGH]

    @property
    def half(self) -> int | None:
        """Micro-batches of half the training; None where that is hardly further than the first rung."""
        half = self.horizon // 2
        return half if _FURTHER * self.rung <= half < self.horizon else None

    @property
    def takes_further(self) -> bool:
        """Whether any trial goes on from where it was judged."""
        to_half = self.half is not None and self.trainings >= _HALVING
        return self.continues and (self.layout.screen is not None or to_half or self.trainings >= _FINISHING)

    @property
    def rungs(self) -> list[int]:
        """Micro-batches at which trials are judged, but for a screening."""
        return sorted({rung for rung in (self.rung, self.half, self.horizon) if rung is not None})

    @property
    def spaces(self) -> dict[str, SearchSpace]:
        """Bounds by optimizer, the user's own among them."""
        return {**{spec.name: spec.space for spec in self.specs}, USER: USER_SPACE}

    def rate_dimension(self, configuration: Configuration) -> Dimension | None:
        """The bounds of a configuration's learning rate, or of the factor on the user's own; None: it has none."""
        space = self.spaces.get(configuration.optimizer, SearchSpace())
        return space.get(LR_SCALE if configuration.optimizer == USER else "lr")

    @property
    def judges_untrained(self) -> bool:
        """Whether one validation before the trials, of the untrained model, is worth its cost.

        It caps what a diverged trial counts as, which matters where many trials teach a sampler.
        """
        return self.steps is None or self.steps >= self.horizon

    @functools.cached_property
    def layout(self) -> Layout:
        """How far the first stage goes, and with how many arms.

        That is a quarter; of a training whose quarter is too short to tell anything, `least_rung` or a half, where
        four arms can go there. It may be a fifth short of that when so one more arm gets in.
        """
        judging, wanted = self.validation_cost, len(self.first_arms if self.policies else self.arms)
        left = self.left if self.seconds is None else _TIMED * self.left
        quarter, later = max(self.horizon // 4, 1), min(self.least_rung, self.horizon // 2)
        if later > quarter and left >= _ENOUGH * (later + judging):
            quarter = later
        least = max(round(0.8 * quarter), 1)
        if left == math.inf:
            return Layout(rung=quarter, arms=wanted)
        screen = max(self.horizon // 10, 1)
        direct = int(left // (least + judging))
        screened = int((left - _PROMOTED * (least - screen + judging)) // (screen + judging))
        if direct < min(wanted, _ENOUGH) and self.continues and screened > max(direct, _PROMOTED):
            arms = min(screened, wanted)
            rest = (left - arms * (screen + judging)) / _PROMOTED - judging
            return Layout(rung=min(quarter, screen + int(rest)), arms=arms, screen=screen)
        arms = min(max(direct, 2), wanted)
        longest = quarter if direct >= 2 else max(self.horizon // 8, 1)
        return Layout(rung=max(min(longest, int(left / arms - judging)), 1), arms=arms)

    @functools.cached_property
    def rung(self) -> int:
        """Micro-batches at which the first stage is judged."""
        return self.layout.rung


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The first stage: `arms` configurations go to `screen` (None: at once to `rung`), the best to `rung`."""

    rung: int
    arms: int
    screen: int | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """Train `configuration` with `seed` up to micro-batch `until`, then judge it."""

    configuration: Configuration
    seed: int
    until: int
    stage: str


def next_job(race: Race, evaluations: Sequence[Evaluation]) -> Job | None:
    """The next job, or None when the race is over or nothing more fits the budget."""
    table = _Table(race, evaluations)
    for stage in _STAGES.values():
        for job in stage(race, table):
            if table.fits(job):
                return table.first_part(job)
    return None


def as_kept(race: Race, evaluation: Evaluation) -> Evaluation:
    """`evaluation` with the values of the weights that the training would have kept by then."""
    if not race.keeps_best:
        return evaluation
    best = min if race.mode == "min" else max
    values = dict(evaluation.values)
    measured = [rung for rung in race.rungs if rung in values and (rung < max(values) or not evaluation.diverged)]
    for earlier, rung in itertools.pairwise(measured):
        values[rung] = best(values[earlier], values[rung])
    return replace(evaluation, values=values)


def nominal_cost(race: Race, evaluations: Iterable[Evaluation]) -> float:
    """Micro-batches an uninterrupted search would have spent on these trials."""
    if race.continues:
        return sum(e.reached * race.passes(e.configuration) + len(e.values) * race.validation_cost for e in evaluations)
    return sum(
        (e.reached + sum(sorted(e.values)[:-1])) * race.passes(e.configuration) + len(e.values) * race.validation_cost
        for e in evaluations
    )


def job_cost(race: Race, job: Job, known: Evaluation | None) -> float:
    """Micro-batches of `job`, of whose trial `known` is what was run before (None: it is a new one)."""
    done = known.reached if known is not None and race.continues else 0
    return (job.until - done) * race.passes(job.configuration) + race.validation_cost


def leaders(race: Race, evaluations: Sequence[Evaluation], rung: int) -> list[tuple[Configuration, float]]:
    """`standings`, without the configurations that nobody confirmed when others were.

    The best of many noisy values is too good to be true.
    """
    return _Table(race, evaluations).leaders(rung)


def lead_share(base: float, own: float) -> float:
    """How much lower the loss `own` is than `base`, as a share of the larger of the two."""
    return (base - own) / max(abs(base), abs(own), 1e-12)


def standings(race: Race, evaluations: Sequence[Evaluation], rung: int) -> list[tuple[Configuration, float]]:
    """Configurations judged at `rung`, the best first, with the mean of their values over seeds.

    With several seeds the values are first compared within each seed: a configuration's mean is that
    of seed 0 shifted by how it fared against the baseline on the others.
    """
    return list(_Table(race, evaluations).standings(rung))


class _Table:
    """The evaluations by configuration, seed and rung."""

    def __init__(self, race: Race, evaluations: Sequence[Evaluation]) -> None:
        self.race = race
        # By number: their order must not decide between equal values.
        self.evaluations = sorted((as_kept(race, e) for e in evaluations), key=lambda e: e.number)
        self.sign = 1.0 if race.mode == "min" else -1.0
        self.by_trial = {(e.configuration.key, e.seed): e for e in self.evaluations}
        self.unreliable = {e.configuration.key for e in evaluations if e.diverged}
        self._standings: dict[int, list[tuple[Configuration, float]]] = {}

    def fits(self, job: Job) -> bool:
        race = self.race
        known = self.by_trial.get((job.configuration.key, job.seed))
        if known is None and race.trials is not None and len(self.evaluations) >= race.trials:
            return False
        cost = job_cost(race, job, known) + len(self.passed_over(job)) * race.validation_cost
        return self.spent + cost + _kept_for_later(race, self, job.stage) <= race.left

    def passed_over(self, job: Job) -> list[int]:
        """Rungs before the end of `job` that it has to be judged at, too.

        The best of two values looks better than one. Other seeds are compared among themselves, at one rung.
        """
        if not self.race.keeps_best or job.seed:
            return []
        return [r for r in self.race.rungs if r < job.until and not self.judged(job.configuration, job.seed, r)]

    def first_part(self, job: Job) -> Job:
        """`job` as far as the first of the rungs that it has to be judged at."""
        return replace(job, until=min([*self.passed_over(job), job.until]))

    @functools.cached_property
    def spent(self) -> float:
        return nominal_cost(self.race, self.evaluations)

    def judged(self, configuration: Configuration, seed: int, rung: int) -> bool:
        trial = self.by_trial.get((configuration.key, seed))
        return trial is not None and (rung in trial.values or trial.state == "failed" or trial.diverged)

    def diverged(self, configuration: Configuration) -> bool:
        trial = self.by_trial.get((configuration.key, 0))
        return trial is not None and trial.diverged

    def loss(self, configuration: Configuration, seed: int, rung: int) -> float | None:
        trial = self.by_trial.get((configuration.key, seed))
        if trial is None or rung not in trial.values or (trial.diverged and rung == max(trial.values)):
            return None
        return self.sign * trial.values[rung]

    def count(self, seed: int, rung: int) -> int:
        """Trials with that seed that have been judged at `rung`."""
        return sum(rung in e.values for e in self.evaluations if e.seed == seed)

    @functools.cached_property
    def is_clear(self) -> bool:
        """Whether at the deepest rung before the end a leader is further ahead than seeds could explain."""
        rung = self.deepest(self.race.half, self.race.rung)
        base, ranked = self.loss(self.race.baseline, 0, rung), self.leaders(rung)
        return base is not None and bool(ranked) and lead_share(base, ranked[0][1]) >= 2 * SEED_NOISE

    @property
    def finishes(self) -> bool:
        """Whether leaders are run to the end.

        Where a half has been seen already, or a trial would have to start over, there are better uses for a middling
        budget, but none for a choice that is not clear: what leads in the middle of a schedule may lose by its end.
        """
        dear = self.race.half is None or not self.race.continues
        return self.race.trainings >= (_THOROUGH if dear and self.is_clear else _FINISHING)

    def standings(self, rung: int) -> list[tuple[Configuration, float]]:
        if rung not in self._standings:
            self._standings[rung] = self._ranked(rung)
        return self._standings[rung]

    def _ranked(self, rung: int) -> list[tuple[Configuration, float]]:
        found = {}
        baseline = {seed: self.loss(self.race.baseline, seed, rung) for seed in (0, *_CONFIRMATION_SEEDS)}
        confirmed = [seed for seed in _CONFIRMATION_SEEDS if baseline[seed] is not None]
        for evaluation in self.evaluations:
            configuration = evaluation.configuration
            # The same as `loss`, which would look each of thousands up again: what diverged is unreliable.
            if evaluation.seed or rung not in evaluation.values or configuration.key in self.unreliable:
                continue
            mean = self.sign * evaluation.values[rung]
            if confirmed:
                shifts = [mean]
                for seed in confirmed:
                    own = self.loss(configuration, seed, rung)
                    base, base_first = baseline[seed], baseline[0]
                    if own is not None and base is not None and base_first is not None:
                        shifts.append(own - base + base_first)
                mean = sum(shifts) / len(shifts)
            found[configuration.key] = (configuration, mean)
        return sorted(found.values(), key=lambda item: item[1])

    def capped(self, rung: int) -> list[tuple[Configuration, float]]:
        return [
            (e.configuration, self.sign * e.values[rung])
            for e in self.evaluations
            if e.seed == 0 and e.configuration.key in self.unreliable and rung in e.values
        ]

    def deepest(self, *rungs: int | None) -> int:
        """The first of `rungs` at which there is something to compare, or the last."""
        known = [rung for rung in rungs if rung is not None]
        return next((rung for rung in known if len(self.standings(rung)) > 1), known[-1])

    def leaders(self, rung: int) -> list[tuple[Configuration, float]]:
        ranked = self.standings(rung)
        confirmed = {e.configuration.key for e in self.evaluations if e.seed and e.values}
        among = [item for item in ranked if item[0].key in confirmed] if confirmed else []
        rivals = any(configuration != self.race.baseline for configuration, _ in among)
        return _steady_first(among if rivals else ranked, self.loss(self.race.baseline, 0, rung))


def _steady_first(ranked: list[tuple[Configuration, float]], base: float | None) -> list[tuple[Configuration, float]]:
    """Of the leader and its near ties at smaller rates, the smallest rate first; `ranked` has the best first.

    A near tie has nearly the same lead over the baseline, whose loss is `base` (None: there is no lead).

    A quarter of the schedule favours rates that are too high, and the high side of the valley is the steep one:
    measured on one small task, the best rate of a seed fell from .21 to .38 ± .24 on fresh ones.
    """
    if not ranked or base is None or ranked[0][0].rate is None:
        return ranked
    leader, loss = ranked[0]
    near = loss + NEAR_TIE * max(base - loss, 0.0)
    ties = [
        item
        for item in itertools.takewhile(lambda item: item[1] <= near, ranked)
        if (item[0].optimizer, item[0].fine_tuning) == (leader.optimizer, leader.fine_tuning)
        and (item[0].rate or math.inf) <= (leader.rate or 0.0)
    ]
    steady = min(ties, key=lambda item: item[0].rate or math.inf)
    return [steady, *(item for item in ranked if item is not steady)]


def _arms(race: Race, table: _Table) -> Iterable[Job]:
    layout = race.layout
    until = layout.screen or layout.rung
    sound = 0
    for arm in race.arms:
        # One that diverged early left the means for another.
        if sound == layout.arms or (arm not in race.first_arms and _baseline_leads(race, table)):
            return
        if not table.judged(arm, 0, until):
            yield Job(configuration=arm, seed=0, until=until, stage="arms")
        sound += not table.diverged(arm)


def _promotions(race: Race, table: _Table) -> Iterable[Job]:
    layout = race.layout
    if layout.screen is None:
        return
    leaders = [arm for arm, _ in table.standings(layout.screen) if arm != race.baseline]
    for configuration in (*leaders[: _PROMOTED - 1], race.baseline):
        if not table.judged(configuration, 0, layout.rung):
            yield Job(configuration=configuration, seed=0, until=layout.rung, stage="promotion")


def _baseline_leads(race: Race, table: _Table) -> bool:
    """Whether none of the first arms is ahead of the baseline, and the budget is one to do something about it."""
    first = race.first_arms
    if race.trainings < _HALVING or race.layout.screen is not None or all(arm.optimizer == USER for arm in first):
        return False
    base = table.loss(race.baseline, 0, race.rung)
    if base is None or not all(table.judged(arm, 0, race.rung) for arm in first):
        return False
    return not any((loss := table.loss(arm, 0, race.rung)) is not None and loss < base for arm in first)


def _escape(race: Race, table: _Table) -> Iterable[Job]:
    if not _baseline_leads(race, table):
        return
    # A higher rate and a schedule belong together; the user's own optimizer has its own.
    kinds = [arm.schedule for arm in race.arms if arm.schedule.kind == "cosine" and race.baseline.optimizer != USER]
    start = replace(race.baseline, schedule=next(iter(kinds), race.baseline.schedule))
    for factor in (HALF_DECADE, 1 / HALF_DECADE):
        here, loss = start, table.loss(race.baseline, 0, race.rung) or 0.0
        while (there := _scaled(race, here, factor)) is not None:
            if not table.judged(there, 0, race.rung):
                yield Job(configuration=there, seed=0, until=race.rung, stage="escape")
                return
            found = table.loss(there, 0, race.rung)
            if found is None or found >= loss:
                break
            here, loss = there, found
        if here != start:
            return


def _neighbours(race: Race, table: _Table) -> Iterable[Job]:
    """Of the two leaders; of a trained model's one, until it is tried with the first policy."""
    if not race.policies:
        yield from _around(race, table, "neighbours", leaders=2)
    elif not any(e.configuration.fine_tuning for e in table.evaluations):
        yield from _around(race, table, "neighbours", leaders=1)


def _around(race: Race, table: _Table, stage: str, leaders: int) -> Iterable[Job]:
    # Not those a kill left without a value: they are begun again.
    tried = [e.configuration for e in table.evaluations if e.values]
    best: dict[str, Configuration] = {}
    for configuration, _ in table.standings(race.rung):
        best.setdefault(configuration.optimizer, configuration)
    for leader in list(best.values())[:leaders]:
        for factor in (HALF_DECADE, 1 / HALF_DECADE):
            neighbour = _scaled(race, leader, factor)
            if neighbour is not None and not any(_same(neighbour, other) for other in tried):
                yield Job(configuration=neighbour, seed=0, until=race.rung, stage=stage)


def _policies(race: Race, table: _Table) -> Iterable[Job]:
    able = {spec.name for spec in race.specs if spec.group_rates}
    # One leader alone: each further one would cost as many trials again.
    begun = (replace(e.configuration, fine_tuning=None) for e in table.evaluations if e.configuration.fine_tuning)
    ranked = (configuration for configuration, _ in table.standings(race.rung) if configuration.optimizer in able)
    leader = next(itertools.chain(begun, ranked), None)
    if leader is None:
        return
    for policy in race.policies:
        configuration = replace(leader, fine_tuning=policy)
        if not table.judged(configuration, 0, race.rung):
            yield Job(configuration=configuration, seed=0, until=race.rung, stage="policies")


def _others(race: Race, table: _Table) -> Iterable[Job]:
    """For a trained model, what was put off for its policies."""
    if not race.policies:
        return
    yield from _around(race, table, "others", leaders=2)
    if _baseline_leads(race, table):
        return
    for arm in race.arms:
        if not table.judged(arm, 0, race.rung):
            yield Job(configuration=arm, seed=0, until=race.rung, stage="others")


def _refinement(race: Race, table: _Table) -> Iterable[Job]:
    if race.trainings < _THOROUGH or race.left == math.inf:
        return
    sound = table.standings(race.rung)
    if not sound or sum(race.rung in e.values for e in table.evaluations) >= _MOST_JUDGED:
        return
    # Diverged ones count at their cap, so that the process learns where not to look.
    judged = [*sound, *table.capped(race.rung)]
    unscheduled = {USER, *(spec.name for spec in race.specs if not spec.schedulable)}
    configuration = suggestion(judged, race.spaces, unscheduled)
    if configuration is not None and not table.judged(configuration, 0, race.rung):
        yield Job(configuration=configuration, seed=0, until=race.rung, stage="refinement")


def _halves(race: Race, table: _Table) -> Iterable[Job]:
    """The leader, the baseline, the leader at half its rate, another optimizer; then smaller rates while they help."""
    # Without the baseline's own value nothing that goes on can replace it.
    if race.half is None or race.trainings < _HALVING or not table.judged(race.baseline, 0, race.rung):
        return
    ranked = table.leaders(race.rung)
    leader = next((found for found, _ in ranked if found != race.baseline), None)
    if leader is None:
        return
    others = (found for found, _ in ranked if found.optimizer != leader.optimizer and found != race.baseline)
    wanted = [leader, race.baseline, *_steadier(race, table, leader), *itertools.islice(others, 1)]
    best = next((found for found, _ in table.standings(race.half) if found != race.baseline), None)
    if best is not None and (best.rate or 0.0) < (leader.rate or 0.0) and best.optimizer == leader.optimizer:
        wanted += _steadier(race, table, best)
    for configuration in _distinct(wanted):
        if not table.judged(configuration, 0, race.half):
            yield Job(configuration=configuration, seed=0, until=race.half, stage="halves")


def _steadier(race: Race, table: _Table, configuration: Configuration) -> list[Configuration]:
    """`configuration` at half its rate, or what was tried near to that; empty where the bounds forbid it."""
    moved = _scaled(race, configuration, _STEADIER)
    if moved is None:
        return []
    return [next((e.configuration for e in table.evaluations if _same(e.configuration, moved)), moved)]


def _confirmation(race: Race, table: _Table) -> Iterable[Job]:
    if race.trainings < _THOROUGH or race.left == math.inf:
        return
    rung = table.deepest(race.half, race.rung)
    best = [configuration for configuration, _ in table.standings(rung)][:_CONFIRMED]
    for configuration in _distinct([race.baseline, *best]):
        for seed in _CONFIRMATION_SEEDS:
            if not table.judged(configuration, seed, rung):
                yield Job(configuration=configuration, seed=seed, until=rung, stage="confirmation")


def _finish(race: Race, table: _Table) -> Iterable[Job]:
    """The leader and its rival to the end of the schedule, then the third of leader, runner-up and baseline.

    The rival is the baseline, or the runner-up where the baseline is behind by twice what seeds differ by. At a half
    the rate is still high, and what is best there, often half the leader's rate, need not be best at the end: with
    this, four trainings chose the same or better in each of 27 searches, on nine tasks that no rule was set on.
    """
    # Without the baseline's own value nothing that runs to the end can replace it.
    if not table.finishes or not table.judged(race.baseline, 0, race.rung):
        return
    rung = table.deepest(race.half, race.rung)
    best = [configuration for configuration, _ in table.leaders(rung) if configuration != race.baseline][:2]
    wanted = [*best, race.baseline] if table.is_clear else [*best[:1], race.baseline, *best[1:]]
    for configuration in wanted:
        if race.horizon > rung and not table.judged(configuration, 0, race.horizon):
            yield Job(configuration=configuration, seed=0, until=race.horizon, stage="finish")


_STAGES: Mapping[str, Callable[[Race, _Table], Iterable[Job]]] = {
    "arms": _arms,
    "promotion": _promotions,
    "escape": _escape,
    "neighbours": _neighbours,
    "policies": _policies,
    "others": _others,
    "refinement": _refinement,
    "halves": _halves,
    "confirmation": _confirmation,
    "finish": _finish,
}


def _kept_for_later(race: Race, table: _Table, stage: str) -> float:
    """What the stages before leave to the last ones: quarters alone cannot see that data will be overfit.

    What those have had is not kept again, but for the way of one newcomer to the end, without which it is no use.
    """
    # Without arms there is nothing to finish: they may take all.
    if stage in ("arms", "promotion") or race.left == math.inf or race.trainings < _HALVING:
        return 0.0
    names = list(_STAGES)
    later, validation, thorough = names[names.index(stage) + 1 :], race.validation_cost, race.trainings >= _THOROUGH
    quarter, half = race.rung, race.half or race.rung
    newcomer = (1 + race.keeps_best) * validation

    def on(start: int, end: int) -> float:
        return end - (start if race.continues else 0) + validation

    goes_on = on(quarter, half)
    # Without a way out there are no leaders worth a half: only the end is kept for one and the baseline.
    if stage == "escape":
        return 2 * on(quarter, race.horizon) if table.finishes else 0.0
    wanted = {
        "halves": [goes_on, goes_on, half + newcomer, *thorough * [goes_on]] if race.half else [],
        "confirmation": thorough * (_CONFIRMED + 1) * [half + validation],
        "finish": (2 + thorough) * [on(half, race.horizon)] if table.finishes else [],
    }
    had = {
        "halves": table.count(seed=0, rung=half),
        "confirmation": sum(table.count(seed=seed, rung=half) for seed in _CONFIRMATION_SEEDS),
        "finish": table.count(seed=0, rung=race.horizon),
    }
    return sum(sum(costs[had[name] :] or costs[-1:]) for name, costs in wanted.items() if name in later)


def _scaled(race: Race, configuration: Configuration, factor: float) -> Configuration | None:
    """`configuration` at another learning rate; None where it has none or the bounds forbid the move."""
    dimension, here = race.rate_dimension(configuration), configuration.rate
    if dimension is None or here is None:
        return None
    rate = dimension.clip(here * factor)
    return None if abs(math.log10(rate / here)) <= _SAME_LR_DECADES else configuration.at_rate(rate)


def _same(one: Configuration, other: Configuration) -> bool:
    if one.rate is None or other.rate is None:
        return one == other
    return abs(math.log10(one.rate / other.rate)) <= _SAME_LR_DECADES and one.at_rate(1.0) == other.at_rate(1.0)


def _distinct(configurations: Iterable[Configuration]) -> list[Configuration]:
    return list({configuration.key: configuration for configuration in configurations}.values())
