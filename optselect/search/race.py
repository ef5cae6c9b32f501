"""What a search is about, as a value: its arms, its limits, its rungs, and what its jobs cost."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from optselect.catalogue import OptimizerSpec
from optselect.configuration import (
    LR_SCALE,
    USER,
    USER_SPACE,
    Compare,
    Configuration,
    Evaluation,
    FineTuning,
    Goal,
    Trial,
)
from optselect.search.tactics import TACTICS, Tactics
from optselect.settings import RISK
from optselect.space import Dimension, SearchSpace

# Those of torch's LBFGS as it comes: at most 1.25 for each of 20 iterations.
_CLOSURE_PASSES = 25
# Judging the untrained model takes at most a fifth of a search.
_UNTRAINED_SHARE = 5


@dataclass(frozen=True, kw_only=True)
class Job:
    """Train `configuration` with `seed` up to micro-batch `until`, then judge it; `stage` names who asks for it."""

    configuration: Configuration
    seed: int
    until: int
    stage: str


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The first stage: `arms` configurations go to `screen` (None: at once to `rung`), the best to `rung`.

    Of a `pair` nothing goes on where what was seen at `screen` is enough to choose.
    """

    rung: int
    arms: int
    screen: int | None = None
    pair: bool = False


@dataclass(frozen=True, kw_only=True)
class Race:
    """What the search is about.

    Where trials are compared at equal time, every micro-batch here is one of the baseline's, and stands for the time
    that it takes: rungs, lengths and costs mean the same as at equal steps. What runs a trial translates.

    arms             configurations of the first stage, the most wanted first; the baseline is among them
    baseline         what is replaced only on evidence
    horizon          micro-batches of the training that is searched
    steps            micro-batches the search may cost (None: no such limit)
    seconds          wall-clock time its trials may take (None: no such limit)
    trials           trials it may start (None: no such limit)
    spent            micro-batches spent before the first trial
    validation_cost  micro-batches that judging a trial once counts
    continues        whether a trial can go on where it stood (else it starts over, and costs that)
    goal             whether small or large values are good
    specs            catalogue entries of the optimizers in the arms, for their bounds
    training         micro-batches of the training to come, where the one that is searched is shorter
    length_known     whether the training's length is; else the horizon is a guess, and no share of it is told
    untrained        what the untrained model is judged at (None: it was not, or not yet)
    risk             the chance of ending behind the baseline that is accepted
    keeps_best       whether the training keeps the weights of its best value: trials then count as theirs so far
    least_rung       micro-batches that the first rung should have, as far as half of the training and the budget allow
    user_scales      whether trials may have the user's own optimizer at other rates
    user_passes      forward and backward passes of one micro-batch with the user's own optimizer
    first_choices    what the record and the rules put before all others (empty: the first arm)
    recorded         whether the first arm is what recorded trainings like this one put first
    policies         ways to train the parts of a trained model, to try on the leader
    slowness         how many times as long as one of the baseline's a micro-batch takes, by optimizer, at least 1
                     (empty: trials are compared at equal steps)
    tactics          the thresholds it goes by
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
    goal: Goal = field(default_factory=Goal)
    specs: tuple[OptimizerSpec, ...] = field(default=())
    training: int | None = None
    length_known: bool = True
    first_choices: tuple[Configuration, ...] = ()
    recorded: bool = False
    policies: tuple[FineTuning, ...] = ()
    untrained: Evaluation | None = None
    risk: float = RISK
    keeps_best: bool = False
    least_rung: int = 1
    user_passes: int = 1
    user_scales: bool = True
    slowness: Mapping[str, float] = field(default_factory=dict)
    tactics: Tactics = TACTICS

    # --- its size -----------------------------------------------------------------------------------

    @property
    def whole(self) -> int:
        """Micro-batches of the training to come."""
        return self.training or self.horizon

    @property
    def searches(self) -> bool:
        """Whether any trial may run."""
        return 0 not in (self.steps, self.seconds, self.trials)

    @property
    def left(self) -> float:
        """Micro-batches for trials."""
        return math.inf if self.steps is None else self.steps - self.spent

    @property
    def trainings(self) -> float:
        """What is left for trials, in trainings."""
        return self.left / self.horizon

    @property
    def first_arms(self) -> tuple[Configuration, ...]:
        """Those which tell whether the rules are right about this training."""
        return self.arms[: self.tactics.first_arms_trained if self.policies else self.tactics.first_arms]

    @property
    def judges_untrained(self) -> bool:
        """Whether one validation before the trials, of the untrained model, is worth its cost.

        Leads are shares of the progress since then.
        """
        return self.steps is None or self.steps >= _UNTRAINED_SHARE * self.validation_cost

    def fraction(self, rung: int) -> float:
        """Return the share of the training to come that `rung` is; 1 at most."""
        return min(rung / self.whole, 1.0)

    @property
    def compare(self) -> Compare:
        """Whether trials are compared at equal steps, or at equal time."""
        return "seconds" if self.slowness else "steps"

    def slowness_of(self, configuration: Configuration) -> float:
        """Return how many times as long as the baseline's its micro-batches count; 1 at equal steps."""
        return self.slowness.get(configuration.optimizer, 1.0)

    # --- its rungs ----------------------------------------------------------------------------------

    @functools.cached_property
    def rung(self) -> int:
        """Micro-batches at which the first stage is judged."""
        return self.layout.rung

    @property
    def half(self) -> int | None:
        """Micro-batches of half the training; None where that is hardly further than the first rung."""
        half = self.horizon // 2
        return half if self.tactics.further * self.rung <= half < self.horizon else None

    @property
    def rungs(self) -> list[int]:
        """Micro-batches at which trials are judged, but for a screening."""
        return sorted({rung for rung in (self.rung, self.half, self.horizon) if rung is not None})

    @property
    def takes_further(self) -> bool:
        """Whether any trial goes on from where it was judged."""
        to_half = self.half is not None and self.trainings >= self.tactics.halving
        screens = self.layout.screen is not None
        return self.continues and (screens or to_half or self.trainings >= self.tactics.finishing)

    @functools.cached_property
    def layout(self) -> Layout:
        """How far the first stage goes, and with how many arms.

        Where recorded trainings have a first choice, the length is known and the budget is small, that and the baseline
        go as far as it takes them, if that is `least_rung` at least. Else that is a quarter; of a training whose
        quarter is too short to tell anything, `least_rung` or a half, where four arms can go there. It may be a fifth
        short of that when so one more arm gets in. Of more than four arms so many begin as leave what it takes to go
        further with the best.
        """
        tactics, judging = self.tactics, self.validation_cost
        wanted = len(self.first_arms if self.policies else self.arms)
        left = self.left if self.seconds is None else tactics.timed * self.left
        both = min(int(left / 2 - judging), self.horizon) if left < tactics.halving * self.horizon else 0
        if self.recorded and self.length_known and not self.policies and both >= self.least_rung:
            return self._pair(left, both)
        quarter, later = max(self.horizon // 4, 1), min(self.least_rung, self.horizon // 2)
        if later > quarter and left >= tactics.first_arms * (later + judging):
            quarter = later
        if left == math.inf:
            return Layout(rung=quarter, arms=wanted)
        least, screen = max(round(tactics.shortest_rung * quarter), 1), max(self.horizon // 10, 1)
        direct = int(left // (least + judging))
        screened = int((left - tactics.promoted * (least - screen + judging)) // (screen + judging))
        if direct < min(wanted, tactics.first_arms) and self.continues and screened > max(direct, tactics.promoted):
            arms = min(screened, wanted)
            rest = (left - arms * (screen + judging)) / tactics.promoted - judging
            return Layout(rung=min(quarter, screen + int(rest)), arms=arms, screen=screen)
        arms = min(max(direct, 2), wanted)
        if self.trainings >= tactics.finishing and 2 * tactics.further * quarter > self.horizon:
            # Nothing is between this rung and the end, where leader and baseline are to be compared.
            ends = 2 * self.cost_between(quarter, self.horizon)
            arms = min(arms, max(int((left - ends) // (quarter + judging)), 2))
        elif self.continues and self.trainings >= tactics.halving and not self.policies:
            rest = int((left - self._going_further(quarter)) // (quarter + judging))
            arms = min(arms, max(rest, tactics.first_arms))
        longest = quarter if direct >= 2 else max(self.horizon // 8, 1)
        return Layout(rung=max(min(longest, int(left / arms - judging)), 1), arms=arms)

    def _going_further(self, quarter: int) -> float:
        """Count what leader, baseline and a newcomer take to a half, and from the budget for it two to the end."""
        half = self.horizon // 2
        to_half = 2 * self.cost_between(quarter, half) + self.cost_between(0, half)
        to_end = 2 * self.cost_between(half, self.horizon)
        return to_half + (to_end if self.trainings >= self.tactics.finishing else 0)

    def _pair(self, left: float, both: int) -> Layout:
        """Let two arms go as far as `left` takes them, `both`, with a look on the way where that tells something."""
        arms = min(2, len(self.arms))
        look = max(self.horizon // 4, self.least_rung)
        later = min(int(left / 2 - 2 * self.validation_cost), self.horizon)
        if self.continues and later >= self.tactics.further * look:
            return Layout(rung=later, arms=arms, screen=look, pair=True)
        return Layout(rung=both, arms=arms)

    # --- its configurations -------------------------------------------------------------------------

    @property
    def spaces(self) -> dict[str, SearchSpace]:
        """Bounds by optimizer, the user's own among them."""
        own = {USER: USER_SPACE} if self.user_scales else {}
        return {**{spec.name: spec.space for spec in self.specs}, **own}

    def rate_dimension(self, configuration: Configuration) -> Dimension | None:
        """Return the bounds of the configuration's learning rate, or of the factor on the user's own; None: no rate."""
        if configuration.optimizer == USER and not self.user_scales:
            return None
        space = self.spaces.get(configuration.optimizer, SearchSpace())
        return space.get(LR_SCALE if configuration.optimizer == USER else "lr")

    def rescaled(self, configuration: Configuration, factor: float) -> Configuration | None:
        """Move `configuration` to another learning rate; None where it has none or the bounds forbid the move."""
        dimension, here = self.rate_dimension(configuration), configuration.rate
        if dimension is None or here is None:
            return None
        rate = dimension.clip(here * factor)
        near = abs(math.log10(rate / here)) <= self.tactics.same_rate_decades
        return None if near else configuration.at_rate(rate)

    def alike(self, one: Configuration, other: Configuration) -> bool:
        """Tell whether the two are one trial: they differ at most by a little of their rates."""
        if one.rate is None or other.rate is None:
            return one == other
        near = abs(math.log10(one.rate / other.rate)) <= self.tactics.same_rate_decades
        return near and one.at_rate(1.0) == other.at_rate(1.0)

    # --- its costs ----------------------------------------------------------------------------------

    def passes(self, configuration: Configuration) -> int:
        """Count the forward and backward passes of one micro-batch: an optimizer with a closure takes several.

        At equal time each micro-batch is one of the baseline's.
        """
        if self.slowness:
            configuration = self.baseline
        if configuration.optimizer == USER:
            return self.user_passes
        return _CLOSURE_PASSES if configuration.optimizer in self._closures else 1

    @functools.cached_property
    def _closures(self) -> frozenset[str]:
        return frozenset(spec.name for spec in self.specs if spec.closure)

    def cost_of(self, trials: Iterable[Trial]) -> float:
        """Count the micro-batches that an uninterrupted search would have spent on `trials`.

        So a kill changes nothing in what is chosen: what it made run twice is not counted.
        """
        if self.continues:
            return sum(
                trial.reached * self.passes(trial.configuration) + len(trial.judged) * self.validation_cost
                for trial in trials
            )
        # Each rung was begun anew.
        return sum(
            (trial.reached + sum(sorted(trial.judged)[:-1])) * self.passes(trial.configuration)
            + len(trial.judged) * self.validation_cost
            for trial in trials
        )

    def spent_with(self, trials: Iterable[Trial]) -> float:
        """Count the micro-batches of the whole search so far: what came before the first trial, and `trials`."""
        return self.spent + self.cost_of(trials)

    def cost_of_job(self, job: Job, known: Trial | None) -> float:
        """Count the micro-batches of `job`; `known` is what was run of its trial before (None: it is a new one)."""
        done = known.reached if known is not None and self.continues else 0
        return (job.until - done) * self.passes(job.configuration) + self.validation_cost

    def cost_between(self, start: int, end: int) -> float:
        """Count the micro-batches of a trial that goes on from rung `start` to rung `end`, and is judged there."""
        return end - (start if self.continues else 0) + self.validation_cost

    @property
    def untried(self) -> Race:
        """The same where no trial was begun: the untrained model was not judged, either."""
        return replace(self, spent=self.spent - self.validation_cost) if self.judges_untrained else self

    # --- what a value counts as ---------------------------------------------------------------------

    def as_kept(self, trial: Trial) -> Trial:
        """Give `trial` the values of the weights that the training would have kept by then."""
        if not self.keeps_best:
            return trial
        values, batches = dict(trial.values), dict(trial.batches)
        kept: int | None = None
        for rung in self.rungs:
            if rung in trial.values:
                if kept is None or self.goal.better(trial.values[rung], trial.values[kept]):
                    kept = rung
                values[rung], batches[rung] = trial.values[kept], trial.batches.get(kept, ())
        return replace(trial, values=values, batches=batches)
