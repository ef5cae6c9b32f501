"""The calibration as tables and a picture: `optselect bench --calibration`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optselect.errors import ConfigurationError, MissingExtraError
from optselect.recipes.bench import curves, plot
from optselect.recipes.bench.calibration import (
    DESIGNS,
    FAMILIES,
    FIRST,
    FITTED_ON,
    OTHERS,
    Choice,
    Count,
    Design,
    Field,
    Sighting,
    brier_scores,
    chosen,
    constants_by_task,
    fields,
    fit,
    fitted_on,
    left_out,
    of,
    pair_score,
    root_alone,
    sightings,
    sure,
    sureness,
)
from optselect.recipes.bench.curves import Curve
from optselect.search.forecast import PREFIX_ERROR, PrefixError

FRACTIONS = (0.02, 0.05, 0.125, 0.25, 0.5, 1.0)
BINS = ((0.5, 0.8), (0.8, 0.9), (0.9, 0.95), (0.95, 0.99), (0.99, 1.0))
CONSTANTS = (0.0005, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.05, 0.1)
KINDS = ("all rivals", "the first choice", "the first choice and the baseline's own optimizer at other rates")
"""Whose calls are counted apart: what a small search tries is of the last two."""
_WORST = 12


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Some tasks, and the constants that each is judged by."""

    name: str
    tasks: Sequence[str]
    constants: Callable[[str], PrefixError]

    def calls(self, seen: Iterable[Sighting]) -> list[tuple[Sighting, float]]:
        """Return what leads on these tasks, with how sure the model is that it does not end behind."""
        leading = (each for each in of(seen, self.tasks) if each.leads)
        return [(each, sureness(each, self.constants(each.task))) for each in leading]

    def sure(self, seen: Iterable[Sighting], fraction: float) -> list[Sighting]:
        """Return those which it is sure of at `fraction`."""
        here = (each for each in of(seen, self.tasks) if each.fraction == fraction)
        return [each for each in here if sure(each, self.constants(each.task))]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A record and what was seen in it."""

    record: Sequence[Curve]
    fields: Sequence[Field]
    seen: Sequence[Sighting]

    @property
    def tasks(self) -> list[str]:
        """Those of the record, in its order."""
        return list(dict.fromkeys(field.task for field in self.fields))

    @functools.cached_property
    def unseen(self) -> Trial:
        """All tasks, each by constants that were fitted without its family."""
        return Trial(name="without their family", tasks=self.tasks, constants=self.by_task.__getitem__)

    @functools.cached_property
    def package(self) -> Trial:
        """All tasks, by the constants of the package, which were fitted on them."""
        return Trial(name="the package's", tasks=self.tasks, constants=lambda _: PREFIX_ERROR)

    @functools.cached_property
    def others(self) -> Trial:
        """The tasks of other kinds, by constants of home and unseen tasks."""
        fitted = fit(of(self.seen, FITTED_ON))
        return Trial(name="home and unseen, on other kinds", tasks=OTHERS, constants=lambda _: fitted)

    @functools.cached_property
    def by_task(self) -> Mapping[str, PrefixError]:
        """For each task those that were fitted on all tasks of other families."""
        return constants_by_task(self.seen)


def calibration(record: Sequence[Curve]) -> Calibration:
    """Look through a record. Raises `ConfigurationError` where there is too little in it to fit anything on."""
    family = {task for tasks in FAMILIES.values() for task in tasks}
    found = [field for field in fields(record) if field.task in family]
    tasks = {field.task for field in found}
    if not tasks & {*FITTED_ON} or not tasks & {*OTHERS}:
        raise ConfigurationError(
            "a calibration needs curves of tasks to fit on and of others to check on, but the record has "
            f"{', '.join(sorted(tasks)) or 'none'}; record more with optselect bench --curves --tasks digits other"
        )
    return Calibration(record=record, fields=found, seen=sightings(found))


def calibrate(folder: Path, say: Callable[[str], None] = print) -> None:
    """Write `calibration.md` and `calibration.svg` into `folder`, of the record there or of the package's own.

    Without matplotlib there is no picture.
    """
    found = calibration(curves.read(folder))
    text = "\n\n".join(f"### {title}\n\n{table}" for title, table in tables(found).items())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "calibration.md").write_text(f"{text}\n", encoding="utf-8")
    say(f"{text}\n\n{folder / 'calibration.md'}")
    try:
        plot.reliability(reliability(found), folder / "calibration.svg")
    except MissingExtraError as error:
        say(f"no picture: {error}")
    else:
        say(str(folder / "calibration.svg"))


def tables(found: Calibration) -> dict[str, str]:
    """Make all tables, by their titles."""
    made = {
        "What was recorded": _recorded(found),
        "What the first choice's constant is fitted on": _first_choice(found),
        "Constants": _constants(found),
        "Scores": _scores(found),
        "Between rivals": _pairs(found),
        "Reliability": _reliability(found),
    }
    made |= {f"Sure calls: {kind}": _sure_calls(found, kind) for kind in KINDS}
    made["Sure calls by rival"] = _rivals(found)
    made["Choices by budget"] = _choices(found, [found.unseen, found.package, found.others])
    made["The worst sure calls"] = _worst(found)
    return made


def reliability(found: Calibration) -> dict[str, list[tuple[float, Count]]]:
    """Return for each kind the mean chance of each bin, and how many of its calls end behind, over all fractions."""
    made: dict[str, list[tuple[float, Count]]] = {}
    for kind in (KINDS[0], KINDS[1]):
        calls = [call for call in found.unseen.calls(_of_kind(found.seen, kind)) if call[0].fraction in FRACTIONS]
        binned = [[call for call in calls if low < call[1] <= high] for low, high in BINS]
        made[kind] = [
            (sum(chance for _, chance in inside) / len(inside), _behind(each for each, _ in inside))
            for inside in binned
            if inside
        ]
    return made


# --- the tables -------------------------------------------------------------------------------------------


def _recorded(found: Calibration) -> str:
    diverged = [curve for curve in found.record if curve.test is None]
    rows = [
        (
            name,
            len({curve.task for curve in of_group}),
            len({curve.seed for curve in of_group}),
            len(of_group),
            sum(curve.test is None for curve in of_group),
        )
        for name, group in (("home and unseen", FITTED_ON), ("other kinds", OTHERS))
        if (of_group := [curve for curve in found.record if curve.task in group])
    ]
    rows.append(
        (
            "all",
            len({curve.task for curve in found.record}),
            len({curve.seed for curve in found.record}),
            len(found.record),
            len(diverged),
        )
    )
    return _table(("tasks", "how many", "seeds", "trainings", "diverged"), rows)


def _first_choice(found: Calibration) -> str:
    rows = []
    for name, tasks in (("home and unseen", FITTED_ON), ("other kinds", OTHERS), ("all", found.tasks)):
        looks = [each for each in fitted_on(of(found.seen, tasks)) if each.is_first]
        wrong = [each for each in looks if each.behind]
        rows.append((name, len(looks), len(wrong), len(_tasks(looks)), ", ".join(_tasks(wrong)) or "none"))
    return _table(("tasks", "looks at which it leads", "behind", "tasks it leads on", "behind on"), rows)


def _constants(found: Calibration) -> str:
    of_home = of(found.seen, FITTED_ON)
    home_without = left_out(of_home)
    pairs = {
        "nothing": (fit(of_home), fit(found.seen)),
        **{family: (home_without.get(family), each) for family, each in left_out(found.seen).items()},
    }
    return _table(
        ("left out", "C, home and unseen", "C1, home and unseen", "C, all", "C1, all"),
        [(family, *_named(own), *_named(every)) for family, (own, every) in pairs.items()],
    )


def _named(constants: PrefixError | None) -> tuple[str, str]:
    return ("", "") if constants is None else (f"{constants.any_rival:.4f}", f"{constants.first_choice:.4f}")


def _scores(found: Calibration) -> str:
    first = [each for each in found.seen if each.is_first]
    others = [each for each in found.seen if not each.is_first]
    cells = []
    for seen, constants in (
        (others, [PrefixError(any_rival=each, first_choice=each) for each in CONSTANTS]),
        (first, [root_alone(each) for each in CONSTANTS]),
    ):
        counts = [_sure(fitted_on(seen), each) for each in constants]
        cells.append(
            [
                (f"{score:.4f}", str(count.of), f"{count.share:.3f}")
                for score, count in zip(brier_scores(seen, constants), counts, strict=True)
            ]
        )
    linear = brier_scores(first, [PrefixError(any_rival=each, first_choice=math.inf) for each in CONSTANTS])
    rows = [
        (f"{each:g}", *of_others, *of_first, f"{score:.4f}")
        for each, of_others, of_first, score in zip(CONSTANTS, *cells, linear, strict=True)
    ]
    heads = (
        *("constant", "C: score", "C: sure", "C: behind"),
        *("C1: score", "C1: sure", "C1: behind", "C1 without the root: score"),
    )
    return _table(heads, rows)


def _sure(looks: Iterable[Sighting], constants: PrefixError) -> Count:
    return _behind(each for each in looks if sure(each, constants))


def _pairs(found: Calibration) -> str:
    """Score constants for the lead of one rival over another whose rate falls."""
    rows = ["| constant | of a rate that falls | looks | of a constant one | looks |", "|---|---|---|---|---|"]
    for constant in (0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05):
        (many, falls), (few, constant_rate) = (pair_score(found.fields, constant, falls=kind) for kind in (True, False))
        rows.append(f"| {constant:g} | {falls:.4f} | {many} | {constant_rate:.4f} | {few} |")
    return "\n".join(rows)


def _reliability(found: Calibration) -> str:
    rows = []
    for kind in (KINDS[0], KINDS[1]):
        calls = found.unseen.calls(_of_kind(found.seen, kind))
        for fraction in FRACTIONS:
            here = [call for call in calls if call[0].fraction == fraction]
            counts = [_behind(each for each, chance in here if low < chance <= high) for low, high in BINS]
            rows.append([kind, f"{fraction:g}", *(f"{count.of - count.wrong} of {count.of}" for count in counts)])
    return _table(("calls", "fraction", *(f"{low:g} to {high:g}" for low, high in BINS)), rows)


def _sure_calls(found: Calibration, kind: str) -> str:
    seen, rows = _of_kind(found.seen, kind), []
    for fraction in FRACTIONS:
        calls = found.unseen.sure(seen, fraction)
        wrong = ", ".join(_tasks(each for each in calls if each.behind)) or "none"
        package = _behind(found.package.sure(seen, fraction))
        rows.append(
            [
                f"{fraction:g}",
                *_counted(_behind(calls)),
                len(_tasks(calls)),
                wrong,
                f"{package.wrong} of {package.of}",
            ]
        )
    heads = ("fraction", "sure", "behind", "share", "95 % interval", "tasks", "behind on", "behind, the package's")
    return _table(heads, rows)


def _of_kind(seen: Iterable[Sighting], kind: str) -> list[Sighting]:
    everything, first, _ = KINDS
    if kind == everything:
        return list(seen)
    return [each for each in seen if each.is_first or (kind != first and each.label.startswith("own"))]


def _rivals(found: Calibration) -> str:
    kinds: dict[str, Callable[[str], bool]] = {
        "first choice": lambda label: label == FIRST,
        "other arms": lambda label: label.startswith("arm") and " " not in label and label != FIRST,
        "own optimizer, other rates": lambda label: label.startswith("own"),
        "arms, half a decade up": lambda label: label.startswith("arm") and label.endswith("x3.16"),
        "arms, half a decade down": lambda label: label.startswith("arm") and label.endswith("x0.316"),
    }
    rows = []
    for kind, belongs in kinds.items():
        row = [kind]
        for trial in (found.unseen, found.package):
            calls = [each for fraction in FRACTIONS for each in trial.sure(found.seen, fraction) if belongs(each.label)]
            count = _behind(calls)
            row += [f"{count.wrong} of {count.of}", ", ".join(_tasks(each for each in calls if each.behind)) or "none"]
        rows.append(row)
    heads = [f"{column}, {trial.name}" for trial in (found.unseen, found.package) for column in ("behind", "on")]
    return _table(("rival", *heads), rows)


def _choices(found: Calibration, trials: Sequence[Trial]) -> str:
    rows = []
    for trial in trials:
        here = [field for field in found.fields if field.task in trial.tasks]
        for design in DESIGNS:
            made = chosen(here, design, trial.constants)
            count = choices_behind(made)
            wrong = [_named_choice(each.end) for each in made if each.end and each.end.behind]
            rows.append((trial.name, f"{design.budget:g}", len(made), *_counted(count), ", ".join(wrong) or "none"))
    heads = ("constants", "budget", "searches", "replaced", "behind", "share", "95 % interval", "behind on")
    return _table(heads, rows)


def _named_choice(end: Sighting) -> str:
    return f"{end.task}, seed {end.seed}: {end.label} ({end.end:+.2f})"


def _worst(found: Calibration) -> str:
    first: dict[tuple[str, int, str], tuple[Sighting, float]] = {}
    for each, chance in found.unseen.calls(found.seen):
        if each.behind and sure(each, found.unseen.constants(each.task)):
            # The latest call of a training: the one that should have known best.
            first[each.task, each.seed, each.label] = each, chance
    ranked = sorted(first.values(), key=lambda call: call[0].end)[:_WORST]
    return _table(
        ("task", "seed", "rival", "last sure at", "lead there", "chance not behind", "lead in test loss at the end"),
        [
            (each.task, each.seed, each.label, f"{each.fraction:g}", f"{each.share:.3f}", f"{chance:.3f}", _end(each))
            for each, chance in ranked
        ],
    )


def choices_behind(made: Iterable[Choice]) -> Count:
    """Count the choices that replace the baseline, and those of them that end behind it."""
    return _behind(each.end for each in made if each.end is not None)


def sure_calls(found: Calibration, trial: Trial, kind: str) -> Mapping[float, Count]:
    """Count the sure calls of `kind` by fraction, and those of them that end behind."""
    seen = _of_kind(found.seen, kind)
    return {fraction: _behind(trial.sure(seen, fraction)) for fraction in FRACTIONS}


def budgets(found: Calibration, trial: Trial) -> Mapping[Design, Count]:
    """Count the choices by budget, and those of them that end behind."""
    here = [field for field in found.fields if field.task in trial.tasks]
    return {design: choices_behind(chosen(here, design, trial.constants)) for design in DESIGNS}


def _behind(seen: Iterable[Sighting]) -> Count:
    ends = [each.behind for each in seen]
    return Count(wrong=sum(ends), of=len(ends))


def _tasks(seen: Iterable[Sighting]) -> list[str]:
    return list(dict.fromkeys(each.task for each in seen))


def _counted(count: Count) -> tuple[str, ...]:
    low, high = count.interval
    shares = (f"{count.share:.3f}", f"{low:.3f} to {high:.3f}") if count.of else ("", "")
    return str(count.of), str(count.wrong), *shares


def _end(sighting: Sighting) -> str:
    return f"{sighting.end:+.3f} ± {sighting.noise_end:.3f}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])
