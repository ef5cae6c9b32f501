"""One trial: a short training of the real schedule, cut off early, judged on validation data."""

from __future__ import annotations

import logging
import math
import statistics
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optselect.budget import VALIDATION_COST
from optselect.building.groups import param_groups
from optselect.building.optimizer import build_groups
from optselect.configuration import USER, Configuration, Evaluation
from optselect.errors import MetricNotLoggedError
from optselect.parameters.anatomy import Anatomy, anatomy_of
from optselect.search.outcome import Outcome
from optselect.search.pace import count_in_time, in_time
from optselect.search.parking import States, states_of, trial_name
from optselect.search.race import Race
from optselect.study.study import TrialStudy
from optselect.workload.own_optimizer import left_out_by
from optselect.workload.protocol import Build, Workload
from optselect.workload.stopwatch import Stopwatch

# Losses are looked at this often: a diverged trial costs at most this many micro-batches more.
_CHUNK = 20
# A loss three times the highest one so far of the baseline, after the warmup, does not come back within a short trial.
_DIVERGED = 3.0
PAUSED_BYTES = 2 * 2**30
TIMING_COST = 4
"""Micro-batches that timing one configuration counts; the first only warms up."""

_log = logging.getLogger("optselect")


class TrialRunner:
    """Runs trials of one workload, inside `workload.borrowed()`.

    A trial that is continued goes on exactly where it stood; trials put aside are kept in memory up to
    `paused_bytes`, beyond which one that is continued starts over (and costs accordingly), and in `states` on disk, for
    another process (`take_up` finds those of a study). Divergence is measured by `initial_loss`, the training loss at
    the borrowed weights, by a trial's own first losses, and in a race by the course of its baseline's, which `guide` is
    told: a loss that rises by design rises there, too. Before the baseline has run, validation tells. Schedules are
    laid out for `steps` optimizer steps (None: those of the workload). `anatomy` is that of the workload's model (None:
    described here, without what a profile has seen).

    `on_advance` is told the micro-batch that a trial has reached, every few of them.

    In a race at equal time a trial of an optimizer that is `k` times as slow trains a `k`-th of the micro-batches that
    it is asked for, on a schedule laid out for a `k`-th of the steps; what it counts is the time.
    """

    def __init__(
        self,
        workload: Workload,
        *,
        anatomy: Anatomy | None = None,
        seed: int = 0,
        initial_loss: float | None = None,
        steps: int | None = None,
        paused_bytes: int = PAUSED_BYTES,
        states: States | None = None,
    ) -> None:
        self._workload = workload
        self._anatomy = anatomy or anatomy_of(workload.model, left_out=left_out_by(workload))
        self._seed = seed
        self.steps = workload.steps if steps is None else steps
        self._limit = paused_bytes
        self._states = states if workload.processes == 1 and paused_bytes else None
        self._paused: dict[tuple[str, int], tuple[Any, int, int]] = {}
        self._initial_loss = initial_loss
        self._first_losses: dict[tuple[str, int], float] = {}
        self._baseline: str | None = None
        self._slowness: Mapping[str, float] = {}
        self.on_advance: Callable[[int], None] = lambda _reached: None
        # Of the baseline: its mean loss over the micro-batches that end at each of these.
        self._course: dict[int, float] = {}

    @contextmanager
    def laid_out_for(self, steps: int) -> Iterator[None]:
        """Lay schedules out for `steps` optimizer steps inside."""
        before, self.steps = self.steps, steps
        try:
            yield
        finally:
            self.steps = before

    def take_up(self, race: Race, study: TrialStudy | None) -> None:
        """Lay schedules out for `race`, and put trials aside only where any goes on; with what belongs to `study`.

        The course of its baseline tells from now on what has diverged.
        """
        self._baseline, self._slowness = race.baseline.key, race.slowness
        self._course = {}
        if race.training is not None:
            self.steps = race.horizon // self._workload.accumulate
        # Asked for in any case: so what lies beside a storage of studies that are no more is cleared away.
        states = states_of(study) if study is not None else None
        if not race.takes_further:
            self._limit = 0
        elif self._workload.processes == 1 and self._limit:
            self._states = states

    def guide(self, course: Mapping[int, float]) -> None:
        """Go by this course of the baseline, whoever has run it, in place of what was run here."""
        self._course = dict(course)

    @property
    def validation_cost(self) -> float:
        """Micro-batches that judging a trial once counts."""
        return self._workload.validation_batches * VALIDATION_COST

    def position(self, configuration: Configuration, seed: int) -> int:
        """Return how many micro-batches a trial need not run again, as its jobs count them."""
        paused = self._paused.get((configuration.key, seed))
        return paused[1] if paused else 0

    def untrained(self) -> Evaluation:
        """Return what the monitor says at the borrowed weights."""
        self._workload.begin(self._builder(None), 0)
        return self._workload.validate()

    def seconds_per_micro_batch(self, configuration: Configuration) -> float | None:
        """Time a few micro-batches and return the median; None where they fail, which a trial will say more about."""
        watch = Stopwatch(self._workload.model)
        try:
            self._workload.begin(self._builder(configuration), self._seed, configuration.scales)
            for _ in range(TIMING_COST):
                with watch.over(1):
                    self._workload.train(1)
        except Exception:
            if self._workload.processes > 1:
                raise  # as in a trial
            return None
        return watch.pace

    def run(self, configuration: Configuration, seed: int, until: int, *, since: int = 0) -> Outcome:
        """Train `configuration` up to micro-batch `until` of the real schedule, or for as long, then judge it.

        `since`: how far it is known to have been trained, perhaps by another process. An exception of the model ends
        the trial, not the search; KeyboardInterrupt and the like pass through. Raises `MetricNotLoggedError` when the
        monitored value never comes.
        """
        before = reached = self.position(configuration, seed)
        slowness = self._slowness_of(configuration)
        watch = Stopwatch(self._workload.model)
        losses: list[float | None] = []
        try:
            before = reached = self._resume_or_begin(configuration, seed, until, since)
            start = done = count_in_time(before, slowness)
            end = count_in_time(until, slowness)
            while done < end:
                count = min(_CHUNK, end - done)
                # Before it is run: an exception in its midst has cost at most that.
                done += count
                reached = until if done == end else min(round(done * slowness), until)
                with watch.over(count):
                    losses += self._workload.train(count)
                self.on_advance(reached)
                self._note_course(configuration, seed, losses[-count:], done)
                if self._workload.agree(self._diverged(configuration, seed, losses, start)):
                    return Outcome(evaluation=None, cost=reached - before, reached=reached, pace=watch.pace)
            reached = until
            evaluation = self._workload.validate()
        except MetricNotLoggedError:
            raise  # no other trial would fare better
        except Exception as error:
            if self._workload.processes > 1:
                # The other processes may be waiting inside a collective: only ending all of them is safe.
                raise
            # Or else it would hold on to the activations: after one out of memory no other trial would fit.
            traceback.clear_frames(error.__traceback__)
            return Outcome(evaluation=None, cost=reached - before, reached=reached, error=error, pace=watch.pace)
        self._pause(configuration, seed, reached)
        cost = reached - before + self.validation_cost
        judged = evaluation if math.isfinite(evaluation.value) else None
        course = self._course if self._is_baseline(configuration, seed) else {}
        return Outcome(
            evaluation=judged,
            cost=cost,
            reached=reached,
            pace=watch.pace,
            course={end: loss for end, loss in course.items() if end > before},
        )

    def end(self) -> None:
        """Let go of the trials put aside: the search is over, and none of them goes on."""
        self._paused.clear()
        if self._states is not None:
            self._states.clear()

    def _resume_or_begin(self, configuration: Configuration, seed: int, until: int, since: int) -> int:
        paused = self._paused.pop((configuration.key, seed), None)
        # Another process may have taken it further meanwhile.
        if paused is not None and paused[1] >= min(since, until):
            self._workload.resume(paused[0])
            return paused[1]
        kept = self._states.load(trial_name(configuration.key, seed)) if self._states is not None else None
        # A search with other limits may have had other rungs.
        if kept is not None and kept[0] <= until and self._restored(configuration, seed, kept[1]):
            return kept[0]
        self._workload.begin(self._builder(configuration), self._seed + seed, configuration.scales)
        return 0

    def _restored(self, configuration: Configuration, seed: int, stored: dict[str, Any]) -> bool:
        try:
            self._workload.restore(stored["training"], self._builder(configuration), configuration.scales)
        except Exception as error:  # noqa: BLE001  # whatever does not fit any more: the trial starts over
            _log.info("the trial of %s starts over: %r", configuration.describe(), error)
            return False
        if stored["first_loss"] is not None:
            self._first_losses[configuration.key, seed] = stored["first_loss"]
        return True

    def _keep(self, configuration: Configuration, seed: int, reached: int, size: int) -> None:
        training = self._workload.store() if self._states is not None and reached else None
        if self._states is not None and training is not None:
            stored = {"training": training, "first_loss": self._first_losses.get((configuration.key, seed))}
            self._states.save(trial_name(configuration.key, seed), reached, stored, about_bytes=size)

    def _pause(self, configuration: Configuration, seed: int, reached: int) -> None:
        size = self._workload.paused_bytes()
        self._keep(configuration, seed, reached, size)
        if size + sum(bytes_ for _, _, bytes_ in self._paused.values()) <= self._limit:
            self._paused[configuration.key, seed] = (self._workload.pause(), reached, size)

    def _builder(self, configuration: Configuration | None) -> Build | None:
        if configuration is None:
            configuration = Configuration(optimizer="sgd", hyperparameters={"lr": 0.0})
        if configuration.optimizer == USER:
            return None
        chosen = configuration

        def build(model: nn.Module) -> tuple[Optimizer, LRScheduler | None]:
            trained = self._in_time(self._squeezed(chosen))
            steps = None if self.steps is None else count_in_time(self.steps, self._slowness_of(chosen))
            return build_groups(param_groups(self._anatomy, trained), trained.schedule, model, steps)

        return build

    def _slowness_of(self, configuration: Configuration) -> float:
        return self._slowness.get(configuration.optimizer, 1.0)

    def _in_time(self, configuration: Configuration) -> Configuration:
        return in_time(configuration, self._slowness_of(configuration))

    def _squeezed(self, configuration: Configuration) -> Configuration:
        """Keep its thaws at their share of the trials' schedule, which may be laid out for fewer steps."""
        policy, whole = configuration.fine_tuning, self._workload.steps
        if policy is None or whole is None or self.steps is None:
            return configuration
        return replace(configuration, fine_tuning=policy.squeezed(self.steps / whole))

    def _diverged(self, configuration: Configuration, seed: int, losses: Sequence[float | None], start: int) -> bool:
        given = [loss for loss in losses if loss is not None]
        recent = [loss for loss in losses[-_CHUNK:] if loss is not None]
        finite = [loss for loss in recent if math.isfinite(loss)]
        if not recent:
            return False  # a training step may keep its loss to itself; validation will tell
        if not finite:
            return True
        if configuration.optimizer == USER or configuration.key == self._baseline:
            return False  # some losses rise by design; what stays unless it is beaten needs a value to compare with
        key = (configuration.key, seed)
        if start == 0 and key not in self._first_losses:
            self._first_losses[key] = statistics.fmean([loss for loss in given if math.isfinite(loss)][:5])
        reached = start + len(losses)
        warm = reached > self._in_time(configuration).schedule.warmup_steps * self._workload.accumulate
        first = max(abs(self._initial_loss or 0.0), abs(self._first_losses.get(key, 0.0)))
        highest = first if self._baseline is None else self._highest(first, reached)
        return warm and highest > 0.0 and statistics.fmean(finite) > highest * _DIVERGED

    def _highest(self, first: float, reached: int) -> float:
        """Find the baseline's highest loss up to `reached`; beyond its course it may have risen in proportion."""
        covered = max(self._course, default=0)
        if not covered:
            return math.inf
        on_the_way = [loss for end, loss in self._course.items() if end < reached + _CHUNK]
        return max(first, *on_the_way) * max(1.0, reached / covered)

    def _is_baseline(self, configuration: Configuration, seed: int) -> bool:
        return seed == 0 and configuration.key == self._baseline

    def _note_course(
        self, configuration: Configuration, seed: int, losses: Sequence[float | None], reached: int
    ) -> None:
        finite = [abs(loss) for loss in losses if loss is not None and math.isfinite(loss)]
        if finite and self._is_baseline(configuration, seed):
            self._course[reached] = statistics.fmean(finite)
