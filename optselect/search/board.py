"""The trials of a search as its stages read them: by configuration, seed and rung, ranked, and with what is left."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from optselect.configuration import USER, Configuration, Trial
from optselect.search.race import Job, Race

Ranking = list[tuple[Configuration, float]]
"""Configurations with their losses, the best first."""


def lead_share(base: float, own: float) -> float:
    """Return how much lower the loss `own` is than `base`, as a share of the larger of the two.

    Where zero lies between them, as a share of `base`: else an `own` far beyond zero would count as less ahead.
    """
    size = abs(base) if base * own < 0 else max(abs(base), abs(own))
    return (base - own) / max(size, 1e-12)


class Board:
    """What is known of `trials`; a value that no method changes."""

    def __init__(self, race: Race, trials: Sequence[Trial]) -> None:
        self.race = race
        # By number: their order must not decide between equal values.
        self.trials = sorted(map(race.as_kept, trials), key=lambda trial: trial.number)
        self._by_key = {(trial.configuration.key, trial.seed): trial for trial in self.trials}
        self._unreliable = {trial.configuration.key for trial in trials if trial.diverged}
        self._standings: dict[int, Ranking] = {}

    # --- what was run -------------------------------------------------------------------------------

    def trial(self, configuration: Configuration, seed: int = 0) -> Trial | None:
        """Return the trial of `configuration` with `seed`; None: it was not begun."""
        return self._by_key.get((configuration.key, seed))

    def judged(self, configuration: Configuration, seed: int, rung: int) -> bool:
        """Tell whether there is nothing more to learn of the configuration at `rung`."""
        trial = self.trial(configuration, seed)
        return trial is not None and (rung in trial.values or trial.state == "failed" or trial.diverged)

    def diverged(self, configuration: Configuration) -> bool:
        """Tell whether the first trial of the configuration diverged."""
        trial = self.trial(configuration)
        return trial is not None and trial.diverged

    def loss(self, configuration: Configuration, seed: int, rung: int) -> float | None:
        """Return what the configuration was judged at, such that less is better; None: it was not."""
        trial = self.trial(configuration, seed)
        return None if trial is None or rung not in trial.values else self.race.goal.loss(trial.values[rung])

    def count(self, seed: int, rung: int) -> int:
        """Count the trials with `seed` that have come to `rung`, or diverged on their way there."""
        return sum(rung in trial.judged for trial in self.trials if trial.seed == seed)

    # --- what is left -------------------------------------------------------------------------------

    def fits(self, job: Job, reserve: float) -> bool:
        """Tell whether the limits allow `job`, when `reserve` micro-batches are kept for what comes later."""
        race, known = self.race, self.trial(job.configuration, job.seed)
        if known is None and race.trials is not None and len(self.trials) >= race.trials:
            return False
        cost = race.cost_of_job(job, known) + len(self.passed_over(job)) * race.validation_cost
        return self.spent + cost + reserve <= race.left

    @functools.cached_property
    def spent(self) -> float:
        """Micro-batches of the trials."""
        return self.race.cost_of(self.trials)

    def passed_over(self, job: Job) -> list[int]:
        """List the rungs before the end of `job` that it has to be judged at, too.

        The best of two values looks better than one. Other seeds are compared among themselves, at one rung.
        """
        if not self.race.keeps_best or job.seed:
            return []
        rungs = [rung for rung in self.race.rungs if rung < job.until]
        return [rung for rung in rungs if not self.judged(job.configuration, job.seed, rung)]

    def first_part(self, job: Job) -> Job:
        """Cut `job` short at the first of the rungs that it has to be judged at."""
        return replace(job, until=min([*self.passed_over(job), job.until]))

    # --- who is ahead -------------------------------------------------------------------------------

    def standings(self, rung: int) -> Ranking:
        """Rank the configurations judged at `rung`, the best first, with the mean of their losses over seeds.

        With several seeds the values are first compared within each seed: a configuration's mean is that
        of seed 0 shifted by how it fared against the baseline on the others.
        """
        if rung not in self._standings:
            self._standings[rung] = self._ranked(rung)
        return self._standings[rung]

    def _ranked(self, rung: int) -> Ranking:
        seeds, baseline = self.race.tactics.confirmation_seeds, self.race.baseline
        base_first = self.loss(baseline, 0, rung)
        base_by_seed = {seed: loss for seed in seeds if (loss := self.loss(baseline, seed, rung)) is not None}
        found = {}
        for trial in self.trials:
            configuration = trial.configuration
            if trial.seed or rung not in trial.values or configuration.key in self._unreliable:
                continue
            losses = [self.race.goal.loss(trial.values[rung])]
            if base_first is not None:
                for seed, base in base_by_seed.items():
                    if (own := self.loss(configuration, seed, rung)) is not None:
                        losses.append(own - base + base_first)
            found[configuration.key] = (configuration, sum(losses) / len(losses))
        return sorted(found.values(), key=lambda item: item[1])

    def capped(self, rung: int) -> Ranking:
        """List the configurations that diverged, with what they count as at `rung`."""
        return [
            (trial.configuration, self.race.goal.loss(trial.judged[rung]))
            for trial in self.trials
            if trial.seed == 0 and trial.configuration.key in self._unreliable and rung in trial.judged
        ]

    def deepest(self, *rungs: int | None) -> int:
        """Return the first of `rungs` at which there is something to compare, or the last."""
        known = [rung for rung in rungs if rung is not None]
        return next((rung for rung in known if len(self.standings(rung)) > 1), known[-1])

    def leaders(self, rung: int) -> Ranking:
        """Rank as `standings`, without those that nobody confirmed when others were; steady rates come first.

        The best of many noisy values is too good to be true.
        """
        ranked = self.standings(rung)
        confirmed = {trial.configuration.key for trial in self.trials if trial.seed and trial.judged}
        among = [item for item in ranked if item[0].key in confirmed] if confirmed else []
        rivals = any(configuration != self.race.baseline for configuration, _ in among)
        return self._steady_first(among if rivals else ranked, self.loss(self.race.baseline, 0, rung))

    def _steady_first(self, ranked: Ranking, base: float | None) -> Ranking:
        """Put the smallest rate first among the leader and its near ties at smaller rates.

        A near tie has nearly the same lead over the baseline, whose loss is `base` (None: there is no lead).

        A quarter of the schedule favours rates that are too high, and the high side of the valley is the steep one:
        measured on one small task, the best rate of a seed fell from .21 to .38 ± .24 on fresh ones.
        """
        if not ranked or base is None or ranked[0][0].rate is None:
            return ranked
        leader, loss = ranked[0]
        near = loss + self.race.tactics.near_tie * max(base - loss, 0.0)
        ties = [
            item
            for item in itertools.takewhile(lambda item: item[1] <= near, ranked)
            if (item[0].optimizer, item[0].fine_tuning) == (leader.optimizer, leader.fine_tuning)
            and (item[0].rate or math.inf) <= (leader.rate or 0.0)
        ]
        steady = min(ties, key=lambda item: item[0].rate or math.inf)
        return [steady, *(item for item in ranked if item is not steady)]

    # --- how things stand ---------------------------------------------------------------------------

    @functools.cached_property
    def baseline_leads(self) -> bool:
        """Whether none of the first arms is ahead of the baseline, and the budget is one to do something about it."""
        race, first = self.race, self.race.first_arms
        own_alone = all(arm.optimizer == USER for arm in first)
        if race.trainings < race.tactics.halving or race.layout.screen is not None or own_alone:
            return False
        base = self.loss(race.baseline, 0, race.rung)
        if base is None or not all(self.judged(arm, 0, race.rung) for arm in first):
            return False
        return not any((loss := self.loss(arm, 0, race.rung)) is not None and loss < base for arm in first)

    @functools.cached_property
    def is_clear(self) -> bool:
        """Whether at the deepest rung before the end a leader is further ahead than seeds could explain."""
        rung = self.deepest(self.race.half, self.race.rung)
        base, ranked = self.loss(self.race.baseline, 0, rung), self.leaders(rung)
        clear = 2 * self.race.tactics.seed_noise
        return base is not None and bool(ranked) and lead_share(base, ranked[0][1]) >= clear

    @property
    def finishes(self) -> bool:
        """Whether leaders are run to the end.

        Where a trial would have to start over, there are better uses for a middling budget, but none for a choice that
        is not clear: what leads in the middle of a schedule may lose by its end.
        """
        race = self.race
        costly = not race.continues
        return race.trainings >= (race.tactics.thorough if costly and self.is_clear else race.tactics.finishing)


def distinct(configurations: Iterable[Configuration]) -> list[Configuration]:
    """Keep each of `configurations` once, in their order."""
    return list({configuration.key: configuration for configuration in configurations}.values())
