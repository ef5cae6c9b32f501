"""What the judgement of a search goes by, fitted on recorded trainings and checked on others.

The model is `optselect.search.forecast`, of the leads that a search sees. Its two constants are fitted here: that of
any rival, and that of the rules' first choice. A rival may replace the baseline where it leads, before the end by more
than the error, and the chance is below `RISK` that it ends behind by more than its noise.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch

from optselect.configuration import Evaluation
from optselect.configuration.goal import Goal
from optselect.recipes.bench.curves import FRACTIONS, Curve, step_at
from optselect.recipes.bench.strange import STRANGE
from optselect.recipes.bench.tasks import TASKS, UNSEEN
from optselect.search.forecast import PrefixError, chance_behind, is_apart, is_sure, prefix_error
from optselect.search.lead import Lead, lead_between
from optselect.settings import RISK

FIRST = "arm0"
FITTED_ON = (*TASKS, *UNSEEN)
OTHERS = tuple(STRANGE)
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "tables": ("diabetes", "letter", "magic", "texture", "segment", "chess", "counts", "tail", "noisy", "vehicle"),
    "images": ("digits", "mnist-cnn", "mnist-vit", "optdigits", "shapes", "pairs"),
    "sequences": ("vowels", "penbased", "splice", "seasons"),
    "text": ("kjv", "kjv-gru", "bytes", "minilm"),
    "sparse": ("ml-100k", "reviews"),
    "generative": ("autoencoder", "vae"),
    "physics": ("burgers",),
    "graphs": ("graphs",),
}
PAIRED_AT = (0.05, 0.1, 0.125, 0.25, 0.375, 0.5, 0.75)
FITTED_AT = tuple(fraction for fraction in FRACTIONS if fraction <= 0.75)
_STEP, _HIGHEST = 0.0005, 0.1
_Z = NormalDist()


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """A rival beside its baseline at a fraction of the schedule, and how it ended.

    end       lead in test loss at the end, as a share of the progress on validation data there; -inf: it diverged
    noise_end standard error of the lead at the end, on validation batches, as the same share
    """

    task: str
    seed: int
    label: str
    fraction: float
    lead: Lead
    end: float
    noise_end: float

    @property
    def leads(self) -> bool:
        """Whether it is ahead of the baseline."""
        return self.lead.difference > 0

    @property
    def share(self) -> float:
        """The lead as a share of what leads are measured by; no number where neither has gained anything."""
        return self.lead.difference / self.lead.scale if self.lead.scale else math.nan

    @property
    def behind(self) -> bool:
        """Whether it ends behind the baseline by more than one standard error."""
        return self.end < -self.noise_end

    @property
    def is_first(self) -> bool:
        """Whether it is the rules' first choice."""
        return self.label == FIRST


@dataclass(frozen=True, kw_only=True)
class Count:
    """How many of how many, with a 95 % interval of the share (Wilson 1927)."""

    wrong: int
    of: int

    @property
    def share(self) -> float:
        """Wrong ones among all; 0 of none."""
        return self.wrong / self.of if self.of else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Return both ends; 0 and 1 where there is none to count."""
        if not self.of:
            return 0.0, 1.0
        z2 = _Z.inv_cdf(0.975) ** 2
        centre, whole = self.share + z2 / (2 * self.of), 1 + z2 / self.of
        half = math.sqrt(z2 * (self.share * (1 - self.share) / self.of + z2 / (4 * self.of**2)))
        return max((centre - half) / whole, 0.0), min((centre + half) / whole, 1.0)


# --- the model --------------------------------------------------------------------------------------------


def sureness(sighting: Sighting, constants: PrefixError) -> float:
    """Return the chance that a rival does not end behind by more than its noise; 0 where it does not lead."""
    return 1 - chance_behind(sighting.lead, sighting.fraction, first_choice=sighting.is_first, of=constants)


def sure(sighting: Sighting, constants: PrefixError) -> bool:
    """Tell whether a rival may replace the baseline."""
    return is_sure(sighting.lead, sighting.fraction, RISK, first_choice=sighting.is_first, of=constants)


# --- what was seen ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Field:
    """All curves of one task and seed."""

    task: str
    seed: int
    baseline: Curve
    curves: Mapping[str, Curve]

    def seen(self, label: str, fraction: float) -> Sighting | None:
        """Look at a curve beside the baseline. None where one of them has diverged."""
        lead = self.lead(label, self.baseline.label, fraction)
        if lead is None:
            return None
        end, noise_end = self._end(label)
        return Sighting(
            task=self.task,
            seed=self.seed,
            label=label,
            fraction=fraction,
            lead=lead,
            end=end,
            noise_end=noise_end,
        )

    def lead(self, own: str, other: str, fraction: float) -> Lead | None:
        """Return the lead of one curve over another; None where one of them has diverged."""
        here, there = self.judged(own, fraction), self.judged(other, fraction)
        if here is None or there is None:
            return None
        return lead_between(
            [(there, here)],
            rung=step_at(fraction, self.baseline.steps),
            goal=Goal("min"),
            untrained=self.baseline.untrained,
        )

    def judged(self, label: str, fraction: float) -> Evaluation | None:
        """Return what a curve is judged at; None where it has diverged by then."""
        return self.curves[label].at(fraction)

    def _end(self, label: str) -> tuple[float, float]:
        lead, rival, other = self.lead(label, self.baseline.label, 1.0), self.curves[label].test, self.baseline.test
        if lead is None or rival is None or other is None:
            return (-math.inf if rival is None else math.inf), 0.0
        # Where neither has gained anything, the plain difference: its sign is all that is asked for.
        scale = lead.scale or 1.0
        return (other - rival) / scale, lead.error / scale


def fields(curves: Iterable[Curve]) -> list[Field]:
    """Put the curves of each task and seed together."""
    by_search: dict[tuple[str, int], dict[str, Curve]] = {}
    for curve in curves:
        by_search.setdefault((curve.task, curve.seed), {})[curve.label] = curve
    return [
        Field(task=task, seed=seed, baseline=next(each for each in of.values() if each.baseline), curves=of)
        for (task, seed), of in by_search.items()
    ]


def sightings(found: Iterable[Field], fractions: Sequence[float] = FRACTIONS) -> list[Sighting]:
    """Look at every rival of every field at every fraction, as far as anything can be said."""
    looks = (
        field.seen(label, fraction)
        for field in found
        for label, curve in field.curves.items()
        if not curve.baseline
        for fraction in fractions
    )
    return [look for look in looks if look is not None]


# --- to fit -----------------------------------------------------------------------------------------------


def fit(seen: Sequence[Sighting]) -> PrefixError:
    """Fit the constants on what was seen of some tasks: that of any rival on all but the first choice, and its own.

    Each is the one of a grid whose chances have the smallest Brier score. Each is fitted alone: that of the first
    choice as if the other were too large to be the less.
    """
    others = [each for each in seen if not each.is_first]
    first = [each for each in seen if each.is_first]
    return PrefixError(
        any_rival=_best(others, lambda constant: PrefixError(any_rival=constant, first_choice=math.inf)),
        first_choice=_best(first, root_alone),
    )


def root_alone(constant: float) -> PrefixError:
    """Let the first choice's own constant count at every fraction before the end."""
    return PrefixError(any_rival=math.inf, first_choice=constant)


def _best(seen: Sequence[Sighting], constants: Callable[[float], PrefixError]) -> float:
    grid = [round(index * _STEP, 4) for index in range(1, round(_HIGHEST / _STEP) + 1)]
    scores = brier_scores(seen, [constants(constant) for constant in grid])
    return min(zip(scores, grid, strict=True))[1]


def fitted_on(seen: Iterable[Sighting]) -> list[Sighting]:
    """Keep what leads, up to three quarters of the schedule, where something has been gained."""
    return [each for each in seen if each.leads and each.fraction in FITTED_AT and each.lead.scale]


def brier_scores(seen: Iterable[Sighting], constants: Iterable[PrefixError]) -> list[float]:
    """Return for each of `constants` the Brier score (Brier 1950) of its chances.

    It is the mean square of the chance that a rival does not end behind, less 1 or 0 as it did. Looks at rivals that
    lead count alike. It is a proper score: no other chances than the true ones do better in the long run. The share of
    sure calls that are wrong would be a nearer thing to ask for, but it hardly falls as the constant grows: what is
    wrong are large leads.
    """
    looks = fitted_on(seen)
    ahead, noise, scale, ended = torch.tensor(
        [(each.lead.difference, each.lead.error, each.lead.scale or 0.0, not each.behind) for each in looks],
        dtype=torch.float64,
    ).T
    kinds = sorted({(each.fraction, each.is_first) for each in looks})
    kind = torch.tensor([kinds.index((each.fraction, each.is_first)) for each in looks])
    scores = []
    for each in constants:
        # As `chance_behind` for one look: the two hundred of the grid would take it minutes.
        by_kind = [prefix_error(fraction, first_choice=first, of=each) for fraction, first in kinds]
        errors = torch.hypot(noise, scale * torch.tensor(by_kind, dtype=torch.float64)[kind])
        scores.append(float(((torch.special.ndtr((ahead + noise) / errors) - ended) ** 2).mean()))
    return scores


def without(seen: Iterable[Sighting], tasks: Collection[str]) -> list[Sighting]:
    """Leave `tasks` out."""
    return [each for each in seen if each.task not in tasks]


def of(seen: Iterable[Sighting], tasks: Collection[str]) -> list[Sighting]:
    """Keep `tasks` alone."""
    return [each for each in seen if each.task in tasks]


def left_out(seen: Sequence[Sighting]) -> dict[str, PrefixError]:
    """Fit the constants for each family on the tasks of the others."""
    return {family: fit(without(seen, tasks)) for family, tasks in FAMILIES.items() if of(seen, tasks)}


def constants_by_task(seen: Sequence[Sighting]) -> dict[str, PrefixError]:
    """Give each task the constants that were fitted without its family."""
    return {task: constants for family, constants in left_out(seen).items() for task in FAMILIES[family]}


# --- to choose --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Design:
    """How a budget is spent: `arms` in the order in which they are wanted, and how many go how far.

    The baseline is `arm1` or wherever the race has it; it is always among those that go on.
    """

    budget: float
    arms: tuple[str, ...]
    stages: tuple[tuple[int, float], ...]


_BASELINE = "baseline"
# A fortieth, of the smallest budget, lies between two fractions that were recorded: the earlier counts.
DESIGNS = (
    Design(budget=0.05, arms=(FIRST, _BASELINE), stages=((2, 0.02),)),
    Design(budget=0.25, arms=(FIRST, _BASELINE), stages=((2, 0.125),)),
    Design(budget=1.0, arms=(FIRST, _BASELINE, "own x3.16", "arm2"), stages=((4, 0.25),)),
    Design(
        budget=4.0,
        arms=(FIRST, _BASELINE, "own x3.16", "arm2", "own x10", "arm3", "arm4"),
        stages=((7, 0.25), (3, 0.5), (2, 1.0)),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a search would have chosen (None: the baseline stays), seen where that was judged."""

    field: Field
    label: str | None
    end: Sighting | None


def choose(field: Field, design: Design, constants: PrefixError) -> Choice:
    """Go through the stages of `design`, and choose among all that were trained, as the board of a search does.

    What leads goes on by its value.
    """
    own = field.baseline.label
    going = [arm for arm in (own if arm == _BASELINE else arm for arm in design.arms) if arm in field.curves]
    rivals = [arm for arm in going if arm != own]
    reach: dict[str, float] = {}
    for count, fraction in design.stages:
        if reach:
            best = sorted(going, key=lambda arm: _value(field, arm, reach[arm]))[:count]
            going = best if own in best else [*best[:-1], own]
        reach |= dict.fromkeys(going, fraction)
    looks = [look for arm in rivals if (look := field.seen(arm, reach[arm])) is not None]
    may = [look.label for look in looks if sure(look, constants)]
    furthest = max((reach[arm] for arm in may), default=0.0)
    label = _front_runner(field, [arm for arm in may if reach[arm] == furthest], reach, constants)
    if label is not None:
        beside = [arm for arm in rivals if arm not in may and reach[arm] == furthest]
        label = _front_runner(field, [label, *beside], reach, constants)
    return Choice(field=field, label=label, end=field.seen(label, reach[label]) if label else None)


def _front_runner(field: Field, arms: Iterable[str], reach: Mapping[str, float], constants: PrefixError) -> str | None:
    """Take the first, or a later one that is ahead of it by more than an error."""
    front: str | None = None
    for arm in arms:
        lead = None if front is None else field.lead(arm, front, min(reach[arm], reach[front]))
        if field.judged(arm, reach[arm]) is not None and (
            front is None
            or (lead is not None and is_apart(lead, reach[arm], scheduled=_falls(field, arm), of=constants))
        ):
            front = arm
    return front


def pair_score(found: Iterable[Field], constant: float, *, falls: bool) -> tuple[int, float]:
    """Count the looks at two rivals of which the one that leads has a rate that falls, or none that does.

    Also return the Brier score of the chances by `constant` that it does not end behind. The other's rate falls.
    """
    errors, squares = PrefixError(any_rival=constant, first_choice=math.inf), []
    for field in found:
        scheduled = [arm for arm in field.curves if _falls(field, arm) and " x" not in arm]
        leaders = scheduled if falls else [arm for arm in field.curves if arm.startswith("own x") and "x0" not in arm]
        for own, other in itertools.product(leaders, scheduled):
            ends = [field.curves[arm].test for arm in (own, other)]
            end = field.lead(own, other, 1.0)
            if own == other or end is None or None in ends:
                continue
            behind = (ends[1] or 0.0) - (ends[0] or 0.0) < -end.error
            for fraction in PAIRED_AT:
                lead = field.lead(own, other, fraction)
                if lead is not None and lead.difference > 0:
                    squares.append((1 - chance_behind(lead, fraction, of=errors) - (not behind)) ** 2)
    return len(squares), statistics.fmean(squares)


def _falls(field: Field, arm: str) -> bool:
    """Tell whether the rate of an arm falls to the end."""
    return field.curves[arm].schedule != "constant"


def _value(field: Field, arm: str, fraction: float) -> float:
    judged = field.judged(arm, fraction)
    return math.inf if judged is None else judged.value


def chosen(found: Iterable[Field], design: Design, constants: Callable[[str], PrefixError]) -> list[Choice]:
    """Choose in every field, by the constants that its task is given."""
    return [choose(field, design, constants(field.task)) for field in found]
