"""The trials of a search as its stages read them: by configuration, seed and rung, ranked, and with what is left."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import replace

from optselect.configuration import Configuration, Trial
from optselect.search.forecast import chance_behind, expected_gain, is_apart, is_sure
from optselect.search.lead import Lead, lead_between
from optselect.search.race import Job, Race

Ranking = list[tuple[Configuration, float]]
"""Configurations with their losses, the best first."""


class Board:
    """What is known of `trials`; a value that no method changes."""

    def __init__(self, race: Race, trials: Sequence[Trial], running: Sequence[Job] = ()) -> None:
        """Read `trials`; of the jobs that are `running` nothing is known but what they may cost."""
        self.race = race
        self.running = tuple(running)
        self._on_its_way = {(job.configuration.key, job.seed): job.until for job in running}
        # By number: their order must not decide between equal values.
        self.trials = sorted(map(race.as_kept, trials), key=lambda trial: trial.number)
        self._seeds: dict[str, list[Trial]] = {}
        for trial in self.trials:
            self._seeds.setdefault(trial.configuration.key, []).append(trial)
        self._by_key = {(trial.configuration.key, trial.seed): trial for trial in self.trials}
        self._unreliable = {trial.configuration.key for trial in trials if trial.diverged}
        self._standings: dict[int, Ranking] = {}

    # --- what was run -------------------------------------------------------------------------------

    def trial(self, configuration: Configuration, seed: int = 0) -> Trial | None:
        """Return the trial of `configuration` with `seed`; None: it was not begun."""
        return self._by_key.get((configuration.key, seed))

    def judged(self, configuration: Configuration, seed: int, rung: int) -> bool:
        """Tell whether nothing more is to be run of the configuration up to `rung`.

        It was there, went past it, or is on its way.
        """
        if self._on_its_way.get((configuration.key, seed), 0) >= rung:
            return True
        trial = self.trial(configuration, seed)
        if trial is None:
            return False
        return max(trial.values, default=0) >= rung or trial.state == "failed" or trial.diverged

    def diverged(self, configuration: Configuration) -> bool:
        """Tell whether the first trial of the configuration diverged."""
        trial = self.trial(configuration)
        return trial is not None and trial.diverged

    def loss(self, configuration: Configuration, seed: int, rung: int) -> float | None:
        """Return what the configuration was judged at, such that less is better; None: it was not."""
        trial = self.trial(configuration, seed)
        return None if trial is None or rung not in trial.values else self.race.goal.loss(trial.values[rung])

    def reached(self, configuration: Configuration) -> int:
        """Return the last rung at which the configuration was judged with the first seed; 0: at none."""
        trial = self.trial(configuration)
        return 0 if trial is None else max(trial.values, default=0)

    def count(self, seed: int, rung: int) -> int:
        """Count the trials with `seed` that have come to `rung`, or diverged on their way there."""
        return sum(rung in trial.judged for trial in self.trials if trial.seed == seed)

    # --- what is left -------------------------------------------------------------------------------

    def fits(self, job: Job, reserve: float, *, begun: int = 0) -> bool:
        """Tell whether the limits allow `job`, when `reserve` micro-batches are kept for what comes later.

        `begun`: trials that count as begun, beside those that are.
        """
        race, known = self.race, self.trial(job.configuration, job.seed)
        if known is None and race.trials is not None and self._begun + begun >= race.trials:
            return False
        return self.spent + self.cost(job) + reserve <= race.left

    def cost(self, job: Job) -> float:
        """Count the micro-batches of `job` at most, with those of the rungs before its end."""
        known = self.trial(job.configuration, job.seed)
        return self.race.cost_of_job(job, known) + len(self.passed_over(job)) * self.race.validation_cost

    @functools.cached_property
    def at_most(self) -> float:
        """Micro-batches that the jobs which are running may take."""
        return sum(map(self.cost, self.running))

    @functools.cached_property
    def _begun(self) -> int:
        """Count the trials, those of which nothing is known yet among them."""
        return len(self._by_key.keys() | self._on_its_way.keys())

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
        """Rank as `standings`, without those nobody confirmed when others were.

        The best of many noisy values is too good to be true. What goes on goes by its value: an order that decides
        between ties is for the choice alone, when more can be known.
        """
        ranked = self.standings(rung)
        confirmed = {trial.configuration.key for trial in self.trials if trial.seed and trial.judged}
        among = [item for item in ranked if item[0].key in confirmed] if confirmed else []
        rivals = any(configuration != self.race.baseline for configuration, _ in among)
        return among if rivals else ranked

    def front_runner(self, configurations: Iterable[Configuration]) -> Configuration | None:
        """Return the first of `configurations` in the prior's order that none after it is ahead of by an error.

        Compared are leads at the last rung that two of them share. None where there are none.
        """
        front: Configuration | None = None
        for each in self.in_order(configurations):
            if front is None or self.is_apart(each, front):
                front = each
        return front

    def lead(self, own: Configuration, other: Configuration, rung: int | None = None) -> Lead | None:
        """Return the lead of `own` over `other` at `rung`, or None: at the last one where both were judged.

        None where one diverged, or they were never judged with the same seed at one rung.
        """
        pairs: dict[int, list[tuple[Trial, Trial]]] = {}
        for trial in self._seeds.get(own.key, ()):
            rival = self.trial(other, trial.seed)
            if rival is not None and not (trial.diverged or rival.diverged):
                for shared in trial.values.keys() & rival.values.keys():
                    pairs.setdefault(shared, []).append((rival, trial))
        at = max(pairs, default=None) if rung is None else rung
        if at is None or at not in pairs:
            return None
        return lead_between(
            [(rival.evaluation(at), trial.evaluation(at)) for rival, trial in pairs[at]],
            rung=at,
            goal=self.race.goal,
            untrained=self.race.untrained,
        )

    def chance_behind(self, configuration: Configuration, lead: Lead) -> float:
        """Return the chance that `configuration`, which leads, ends behind the other by more than noise."""
        return chance_behind(lead, self.race.fraction(lead.rung), first_choice=self._is_first_choice(configuration))

    def is_sure(self, configuration: Configuration, lead: Lead) -> bool:
        """Tell whether that chance is as small as is asked for."""
        race, first_choice = self.race, self._is_first_choice(configuration)
        return is_sure(lead, race.fraction(lead.rung), race.risk, first_choice=first_choice)

    def _is_first_choice(self, configuration: Configuration) -> bool:
        """Tell whether it is what the record or the rules put before all others."""
        return configuration in (self.race.first_choices or self.race.arms[:1])

    def is_apart(self, own: Configuration, other: Configuration) -> bool:
        """Tell whether `own` is ahead of `other` by more than an error, at the last rung that they share."""
        lead = self.lead(own, other)
        return lead is not None and is_apart(lead, self.race.fraction(lead.rung), scheduled=own.rate_falls)

    def in_order(self, configurations: Iterable[Configuration]) -> list[Configuration]:
        """Sort as the prior has it: the arms in their order, then what the search found, the smallest rate first."""
        place = {arm.key: index for index, arm in enumerate(self.race.arms)}
        found = [(place.get(each.key, len(place)), each.optimizer, each.rate or 0.0, each) for each in configurations]
        return [each for *_, each in sorted(found, key=lambda item: item[:3])]

    # --- what would be chosen -----------------------------------------------------------------------

    @functools.cached_property
    def rivals(self) -> list[tuple[Configuration, Lead]]:
        """What may be chosen in place of the baseline, with its lead at the last rung the two share.

        What was judged and did not diverge, and of several seeds only what has them.
        """
        rungs = sorted({rung for trial in self.trials for rung in trial.values})
        tried = distinct(each for rung in rungs for each, _ in self.leaders(rung) if each != self.race.baseline)
        return [(each, lead) for each in tried if (lead := self.lead(each, self.race.baseline)) is not None]

    @functools.cached_property
    def sure(self) -> list[Configuration]:
        """The rivals with so small a chance of ending behind as is asked for, and of them those that went furthest."""
        sure = [each for each, lead in self.rivals if self.is_sure(each, lead)]
        furthest = max(map(self.reached, sure), default=0)
        return [each for each in sure if self.reached(each) == furthest]

    @functools.cached_property
    def chosen(self) -> Configuration:
        """What would be chosen now: the front runner of those that are sure, or the baseline.

        What went as far and is ahead of that by more than an error is as sure to end ahead of the baseline.
        """
        front = self.front_runner(self.sure)
        if front is None:
            return self.race.baseline
        others = [
            each for each, _ in self.rivals if each not in self.sure and self.reached(each) >= self.reached(front)
        ]
        for each in self.in_order(others):
            front = each if self.is_apart(each, front) else front
        return front

    @functools.cached_property
    def is_settled(self) -> bool:
        """Whether nothing that goes on could be expected to gain as much on the choice as is worth its trials."""
        race, chosen = self.race, self.chosen
        if not self.rivals:
            return False
        ahead = next((lead for each, lead in self.rivals if each == chosen), None)
        progress = self.rivals[0][1].progress or (0.0, 0.0)
        share = race.tactics.worth_a_trial
        worth = share**2 * progress[0] if ahead is None else share * ahead.difference
        others = distinct(trial.configuration for trial in self.trials if trial.configuration != chosen)
        leads = (lead for each in others if (lead := self.lead(chosen, each)) is not None)
        return all(expected_gain(lead, race.fraction(lead.rung)) < worth for lead in leads)

    # --- how things stand ---------------------------------------------------------------------------

    @functools.cached_property
    def is_clear(self) -> bool:
        """Whether at the deepest rung before the end a leader is as far ahead as the choice asks for."""
        race = self.race
        rivals = (each for each, _ in self.leaders(self.deepest(race.half, race.rung)) if each != race.baseline)
        leader = next(rivals, None)
        lead = None if leader is None else self.lead(leader, race.baseline)
        return leader is not None and lead is not None and self.is_sure(leader, lead)

    @property
    def is_told_early(self) -> bool:
        """Whether of a pair one is sure enough at the first look."""
        return self.race.layout.pair and bool(self.sure) and not self.standings(self.race.rung)

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
