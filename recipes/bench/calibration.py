"""What the judgement of a search goes by, fitted on recorded trainings and checked on others.

A rival leads the baseline at a share f of the schedule by d ± se, of losses on the same validation batches, while the
better of the two has gained P on the untrained model. Its share is d / P, and at the end of the training

    share ± hypot(se / P, C (1 - f) / f)

The rules' first choice is known before it is seen, too: its share at the end is m ± s. The two are weighed by their
precisions. A rival may replace the baseline where it leads and the chance is below `RISK` that it ends behind by more
than its noise, which is se / P.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch

from optselect.configuration import Evaluation
from optselect.configuration.evaluation import paired
from optselect.recipes.bench.curves import FRACTIONS, Curve
from optselect.recipes.bench.strange import STRANGE
from optselect.recipes.bench.tasks import TASKS, UNSEEN

RISK = 0.05
"""The chance that a rival ends behind by more than its noise, from which on the baseline stays."""

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
FITTED_AT = tuple(fraction for fraction in FRACTIONS if fraction <= 0.75)
_STEP, _DRIFTS = 0.0005, 200
_TO_DEVIATION = 1.4826
_Z = NormalDist()


@dataclass(frozen=True, kw_only=True)
class Constants:
    """The model's numbers: `drift` is C, and m ± s is the share of the rules' first choice at the end (None: no prior).

    All are shares of the progress that the better of two has made.
    """

    drift: float
    prior: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """A rival beside its baseline at a fraction of the schedule, and how it ended.

    share     of the progress of the better of the two that it leads by
    noise     standard error of that
    end       lead in test loss at the end, as a share of the progress on validation data there; -inf: it diverged
    noise_end standard error of the lead at the end, on validation batches, as the same share
    """

    task: str
    seed: int
    label: str
    fraction: float
    share: float
    noise: float
    end: float
    noise_end: float

    @property
    def behind(self) -> bool:
        """Whether it ends behind the baseline by more than one standard error."""
        return self.end < -self.noise_end


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


def expected(sighting: Sighting, constants: Constants) -> tuple[float, float]:
    """Return the share that a rival is expected to end with, and the standard error of that."""
    f = sighting.fraction
    error = math.hypot(sighting.noise, constants.drift * (1 - f) / f)
    if constants.prior is None or sighting.label != FIRST or not error:
        return sighting.share, error
    mean, spread = constants.prior
    seen, known = error**-2, spread**-2
    return (sighting.share * seen + mean * known) / (seen + known), (seen + known) ** -0.5


def sureness(sighting: Sighting, constants: Constants) -> float:
    """Return the chance that a rival does not end behind by more than its noise; 0 where it does not lead."""
    if not sighting.share > 0:
        return 0.0
    mean, error = expected(sighting, constants)
    return _Z.cdf((mean + sighting.noise) / error) if error else 1.0


# --- what was seen ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Field:
    """All curves of one task and seed."""

    task: str
    seed: int
    baseline: Curve
    curves: Mapping[str, Curve]

    def seen(self, label: str, fraction: float, against: str | None = None) -> Sighting | None:
        """Look at a curve beside the baseline, or beside `against`. None where nothing can be said of the two.

        That is so where one of them has diverged, and where neither has gained anything.
        """
        rival, other = self.curves[label], self.curves[against] if against else self.baseline
        here, there = rival.at(fraction), other.at(fraction)
        if here is None or there is None:
            return None
        progress = self._progress(here, there)
        if progress <= 0:
            return None
        share, noise = _difference(there, here, progress)
        end, noise_end = self._end(rival, other)
        return Sighting(
            task=self.task,
            seed=self.seed,
            label=label,
            fraction=fraction,
            share=share,
            noise=noise,
            end=end,
            noise_end=noise_end,
        )

    def _end(self, rival: Curve, other: Curve) -> tuple[float, float]:
        here, there = rival.at(1.0), other.at(1.0)
        if here is None or there is None or rival.test is None or other.test is None:
            return (-math.inf if rival.test is None else math.inf), 0.0
        # Where neither has gained anything, the plain difference: its sign is all that is asked for.
        progress = max(self._progress(here, there), 0.0) or 1.0
        return (other.test - rival.test) / progress, _difference(there, here, progress)[1]

    def _progress(self, here: Evaluation, there: Evaluation) -> float:
        """Return what the better of the two has gained on the untrained model, in units of the loss."""
        return self.baseline.untrained.value - min(here.value, there.value)


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


def _difference(there: Evaluation, here: Evaluation, progress: float) -> tuple[float, float]:
    found = paired(there, here)
    if found is None:
        raise ValueError("two curves of one task and seed are judged on the same batches, two or more")
    return found[0] / progress, found[1] / progress


# --- to fit -----------------------------------------------------------------------------------------------


def fit(seen: Sequence[Sighting]) -> Constants:
    """Fit the constants on what was seen of some tasks."""
    return Constants(drift=fitted_drift(seen), prior=fitted_prior(seen))


def fitted_drift(seen: Iterable[Sighting]) -> float:
    """Return the C of a grid whose chances have, without a prior, the smallest Brier score (Brier 1950).

    It is the mean square of the chance that a rival does not end behind, less 1 or 0 as it did. Looks at all rivals
    that lead count alike, up to three quarters of the schedule. It is a proper score: no other chances than the true
    ones do better in the long run. The share of sure calls that are wrong would be a nearer thing to ask for, but it
    hardly falls as C grows: what is wrong are large leads.
    """
    leading = [each for each in seen if each.share > 0 and each.fraction in FITTED_AT]
    share, noise, fraction, behind = (
        torch.tensor([float(getattr(each, name)) for each in leading], dtype=torch.float64)
        for name in ("share", "noise", "fraction", "behind")
    )
    drifts = torch.arange(1, _DRIFTS + 1, dtype=torch.float64)[:, None] * _STEP
    errors = torch.hypot(noise, drifts * (1 - fraction) / fraction)
    chances = torch.special.ndtr((share + noise) / errors)
    scores = ((chances - (1 - behind)) ** 2).mean(dim=1)
    return round(float(drifts[int(scores.argmin()), 0]), 4)


def fitted_prior(seen: Iterable[Sighting]) -> tuple[float, float]:
    """Return the median of the first choice's lead on validation data at the end, and its spread (1.4826 MAD)."""
    shares = [each.share for each in seen if each.label == FIRST and each.fraction == 1.0]
    middle = statistics.median(shares)
    return middle, _TO_DEVIATION * statistics.median(abs(share - middle) for share in shares)


def without(seen: Iterable[Sighting], tasks: Collection[str]) -> list[Sighting]:
    """Leave `tasks` out."""
    return [each for each in seen if each.task not in tasks]


def of(seen: Iterable[Sighting], tasks: Collection[str]) -> list[Sighting]:
    """Keep `tasks` alone."""
    return [each for each in seen if each.task in tasks]


def left_out(seen: Sequence[Sighting]) -> dict[str, Constants]:
    """Fit the constants for each family on all tasks of the others."""
    return {family: fit(without(seen, tasks)) for family, tasks in FAMILIES.items() if of(seen, tasks)}


def constants_by_task(seen: Sequence[Sighting]) -> dict[str, Constants]:
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
        arms=(FIRST, _BASELINE, "own x3.16", "arm2", "arm3", "own x10", "arm4"),
        stages=((7, 0.25), (3, 0.5), (2, 1.0)),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a search would have chosen (None: the baseline stays), seen where that was judged."""

    field: Field
    label: str | None
    end: Sighting | None


def choose(field: Field, design: Design, constants: Constants) -> Choice:
    """Go through the stages of `design`, and choose by the model among all that were trained."""
    own = field.baseline.label
    going = [own if arm == _BASELINE else arm for arm in design.arms]
    going = [arm for arm in going if arm in field.curves]
    reach: dict[str, float] = {}
    for count, fraction in design.stages:
        if reach:
            ranked = sorted(going, key=lambda arm: _value(field, arm, reach[arm]))
            best = ranked[:count]
            going = best if own in best else [*best[:-1], own]
        reach |= dict.fromkeys(going, fraction)
    label = _champion(field, [arm for arm in design.arms if arm in reach and arm != own], reach, constants)
    return Choice(field=field, label=label, end=field.seen(label, reach[label]) if label else None)


def _champion(field: Field, rivals: Sequence[str], reach: Mapping[str, float], constants: Constants) -> str | None:
    """Of what may replace the baseline, and went furthest, take the first.

    A later one takes its place where it leads by more than the error.
    """
    looks = {arm: look for arm in rivals if (look := field.seen(arm, reach[arm])) is not None}
    sure = [arm for arm, look in looks.items() if sureness(look, constants) > 1 - RISK]
    furthest = max((reach[arm] for arm in sure), default=0.0)
    champion: str | None = None
    for arm in (each for each in sure if reach[each] == furthest):
        if champion is None:
            champion = arm
            continue
        apart = field.seen(arm, furthest, against=champion)
        if apart is not None and apart.share > expected(apart, Constants(drift=constants.drift))[1]:
            champion = arm
    return champion


def _value(field: Field, arm: str, fraction: float) -> float:
    judged = field.curves[arm].at(fraction)
    return math.inf if judged is None else judged.value


def chosen(found: Iterable[Field], design: Design, constants: Callable[[str], Constants]) -> list[Choice]:
    """Choose in every field, by the constants that its task is given."""
    return [choose(field, design, constants(field.task)) for field in found]
