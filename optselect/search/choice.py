"""The choice: which configuration replaces the baseline, on what evidence, and why in words."""

from __future__ import annotations

import math
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from optselect.configuration import USER, Configuration
from optselect.plan import TrialRecord
from optselect.rules import Proposal
from optselect.search.arms import configuration_of
from optselect.search.race import NEAR_TIE, SEED_NOISE, Race, as_kept, lead_share, leaders, nominal_cost
from optselect.study.study import Evaluation

# A lead below this share of the baseline's value is a tie: the noise between seeds of short trials is larger.
_TIE = 0.01


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The configuration to train with, the sentences that say why, and its lead over the baseline (None: no trial)."""

    configuration: Configuration
    reasons: tuple[str, ...]
    lead: float | None = None


def first_word(proposals: Sequence[Proposal], base: Configuration) -> Choice:
    """The rules' first choice, taken at their word: what a budget of 0 asks for."""
    first = next((proposal for proposal in proposals if proposal.optimizer != USER), None)
    if first is None:
        return Choice(configuration=base, reasons=("the rules propose nothing, so the baseline stays",))
    return Choice(
        configuration=configuration_of(first),
        reasons=("the budget is 0, so this is the rules' first choice, without evidence from trials", *_spoken(first)),
    )


def choose(race: Race, evaluations: Sequence[Evaluation], proposals: Sequence[Proposal], monitor: str) -> Choice:
    """The best of the configurations at the deepest rung, if it beats the baseline on the same batches.

    Compared are leads: how much lower the loss is, as a share of the larger of the two. The deepest rung decides.
    Only where it shows less than a tenth, which is what seeds differ by on small data, earlier rungs count, too:
    then the leads are averaged. What went further than the baseline is compared there, and its lead is that at the last
    rung they share. The lead must exceed 1 %, and with several seeds its standard error; else the baseline stays.
    """
    evaluations = [as_kept(race, e) for e in evaluations]
    rungs = sorted({rung for e in evaluations for rung in e.values if not e.diverged}, reverse=True)
    nothing: tuple[int, list[tuple[Configuration, float]]] = (0, [])
    deepest, ranked = next(((rung, found) for rung in rungs if (found := leaders(race, evaluations, rung))), nothing)
    if not ranked:
        return Choice(
            configuration=race.baseline,
            reasons=("no trial gave a value within the budget, so the baseline stays",),
        )
    rivals = [configuration for configuration, _ in ranked if configuration != race.baseline]
    if not rivals:
        return Choice(configuration=race.baseline, reasons=tuple(_beaten(race, evaluations, ranked, monitor)))
    leads = [(rival, lead) for rival in rivals if (lead := _lead(race, evaluations, rival)) is not None]
    if not leads and not any(e.configuration.key == race.baseline.key for e in evaluations):
        sentence = (
            f"the budget paid for no trial of the baseline ({race.baseline.describe()}), so nothing shows that "
            f"{rivals[0].describe()} is better: the baseline stays"
        )
        return Choice(configuration=race.baseline, reasons=(sentence,))
    if not leads:
        sentence = (
            f"the baseline ({race.baseline.describe()}) gave no value to compare with; this was the best of the rest"
        )
        return Choice(configuration=rivals[0], reasons=(sentence, *_votes(rivals[0], proposals)))
    went_alone = race.baseline not in [configuration for configuration, _ in ranked]
    if went_alone:
        # What has gone further than the baseline is compared there.
        leads = leads[:1]
    most = max(lead.mean for _, lead in leads)
    # Of near ties the first of the ranking, which puts steady rates first.
    winner, lead = next(item for item in leads if item[1].mean >= most - NEAR_TIE * abs(most))
    if lead.mean <= 0:
        return Choice(configuration=race.baseline, reasons=tuple(_beaten(race, evaluations, ranked, monitor)))
    if lead.mean <= max(_TIE, lead.error):
        sentence = (
            f"{winner.describe()} led the baseline by {lead.describe()} in {monitor}, which is no more than noise: "
            "ties go to the baseline"
        )
        return Choice(configuration=race.baseline, reasons=(sentence,))
    reached, by = ("its best was", "within") if race.keeps_best else ("it reached", "after")
    words = [
        f"{reached} {monitor} {own:.4g} {by} {rung} micro-batches, the baseline ({race.baseline.describe()}) "
        f"{base:.4g} on the same batches"
        for rung, (base, own) in sorted(lead.values.items())
    ]
    further = []
    if went_alone:
        value = next(value for configuration, value in ranked if configuration == winner)
        had = f"{monitor} {value if race.mode == 'min' else -value:.4g}"
        further = [
            f"after {deepest} micro-batches it had {had}; the baseline was taken no further than {max(lead.values)}"
        ]
    return Choice(
        configuration=winner,
        lead=lead.mean,
        reasons=(
            *words,
            f"its lead is {lead.describe()}",
            *further,
            *_runner_up(race, ranked, winner, monitor),
            *_votes(winner, proposals),
        ),
    )


def cost_sentence(race: Race, evaluations: Sequence[Evaluation]) -> str:
    """What the choice cost, in the training's own steps."""
    spent = race.spent + nominal_cost(race, evaluations)
    share = f", {spent / race.whole:.2f} of the training" if race.length_known else ""
    return (
        f"the choice cost {spent:.0f} micro-batches{share}: profile {race.spent:.0f}, "
        f"{len(evaluations)} trials {spent - race.spent:.0f}"
    )


def records(evaluations: Sequence[Evaluation]) -> tuple[TrialRecord, ...]:
    """The trials as the plan keeps them."""
    return tuple(
        TrialRecord(
            configuration=e.configuration,
            seed=e.seed,
            micro_batches=max(e.values, default=0) if not e.diverged else e.reached,
            value=e.values[max(e.values)] if e.values and not e.diverged else None,
            state=e.note or e.state,
            # The last value of one that diverged is a cap.
            earlier={rung: value for rung, value in sorted(e.values.items()) if rung < max(e.values)},
        )
        for e in evaluations
    )


def versions() -> Mapping[str, str]:
    """Of what makes the choice; a plan says which."""
    packages = ("optselect", "torch", "lightning", "optuna")
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {**found, "python": platform.python_version()}


@dataclass(frozen=True, kw_only=True)
class _Lead:
    """How far a configuration is ahead of the baseline.

    mean    at the deepest rung, over seeds, as a share of the larger loss; over all rungs where that is small
    error   standard error over seeds (0: one seed)
    seeds   paired seeds at the rung that has most
    values  mean (baseline, own) value by rung, as logged
    """

    mean: float
    error: float
    seeds: int
    values: Mapping[int, tuple[float, float]]

    def describe(self) -> str:
        """`23 % ± 4 % over 2 seeds`."""
        noise = f" ± {self.error:.0%} over {self.seeds} seeds" if self.seeds > 1 else ""
        return f"{self.mean:.0%}{noise}"


def _lead(race: Race, evaluations: Sequence[Evaluation], rival: Configuration) -> _Lead | None:
    """The lead of `rival` where both have values for the same seed; None where they never do."""
    sign = 1.0 if race.mode == "min" else -1.0
    table: dict[int, dict[int, dict[str, float]]] = {}
    for e in evaluations:
        if not e.diverged and e.configuration.key in (race.baseline.key, rival.key):
            for rung, value in e.values.items():
                table.setdefault(rung, {}).setdefault(e.seed, {})[e.configuration.key] = value
    means: dict[int, float] = {}
    errors, values, most = [0.0], {}, 0
    for rung, seeds in table.items():
        pairs = [(pair[race.baseline.key], pair[rival.key]) for pair in seeds.values() if len(pair) == 2]
        if not pairs:
            continue
        shares = [lead_share(sign * base, sign * own) for base, own in pairs]
        means[rung] = statistics.fmean(shares)
        if len(shares) > 1:
            errors.append(statistics.stdev(shares) / math.sqrt(len(shares)))
        values[rung] = (statistics.fmean(base for base, _ in pairs), statistics.fmean(own for _, own in pairs))
        most = max(most, len(pairs))
    if not means:
        return None
    deepest = means[max(values)]
    mean = deepest if abs(deepest) >= SEED_NOISE else statistics.fmean(means.values())
    return _Lead(mean=mean, error=max(errors), seeds=most, values=values)


def _beaten(
    race: Race, evaluations: Sequence[Evaluation], ranked: list[tuple[Configuration, float]], monitor: str
) -> list[str]:
    tried = len({e.configuration.key for e in evaluations})
    return [
        f"nothing beat it: of {tried} configurations it had the best {monitor}",
        *_runner_up(race, ranked, race.baseline, monitor),
    ]


def _runner_up(race: Race, ranked: list[tuple[Configuration, float]], winner: Configuration, monitor: str) -> list[str]:
    others = [item for item in ranked if item[0] not in (winner, race.baseline)]
    if not others:
        return []
    sign = 1.0 if race.mode == "min" else -1.0
    other, value = others[0]
    return [f"next came {other.describe()}: {monitor} {sign * value:.4g}"]


def _votes(winner: Configuration, proposals: Sequence[Proposal]) -> list[str]:
    return [word for proposal in proposals if proposal.optimizer == winner.optimizer for word in _spoken(proposal)]


def _spoken(proposal: Proposal) -> list[str]:
    return [f"{vote.rule}: {vote.because.describe()} [{vote.cites}]" for vote in proposal.because]
