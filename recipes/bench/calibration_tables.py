"""The calibration as tables and a picture: `optselect bench --calibration`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optselect.errors import ConfigurationError, MissingExtraError
from optselect.recipes.bench import curves, plot
from optselect.recipes.bench.calibration import (
    DESIGNS,
    FAMILIES,
    FIRST,
    FITTED_AT,
    FITTED_ON,
    OTHERS,
    RISK,
    Choice,
    Constants,
    Count,
    Design,
    Field,
    Sighting,
    chosen,
    constants_by_task,
    fields,
    fit,
    left_out,
    of,
    sightings,
    sureness,
)
from optselect.recipes.bench.curves import Curve

FRACTIONS = (0.02, 0.05, 0.125, 0.25, 0.5, 1.0)
BINS = ((0.5, 0.8), (0.8, 0.9), (0.9, 0.95), (0.95, 0.99), (0.99, 1.0))
DRIFTS = (0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1)
_WORST = 12


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Some tasks, and the constants that each is judged by, which were fitted without it."""

    name: str
    tasks: Sequence[str]
    constants: Callable[[str], Constants]

    def calls(self, seen: Iterable[Sighting]) -> list[tuple[Sighting, float]]:
        """Return what leads on these tasks, with how sure the model is that it does not end behind."""
        leading = (each for each in of(seen, self.tasks) if each.share > 0)
        return [(each, sureness(each, self.constants(each.task))) for each in leading]

    def sure(self, seen: Iterable[Sighting], fraction: float) -> list[Sighting]:
        """Return those which it is sure of at `fraction`."""
        return [each for each, chance in self.calls(seen) if each.fraction == fraction and chance > 1 - RISK]


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

    def trials(self, *, prior: bool = False) -> list[Trial]:
        """Return the tasks nothing was fitted on, and all tasks, each by constants fitted without its family."""
        keep = (lambda each: each) if prior else _without_prior
        fitted, by_task = keep(self.fitted), {task: keep(each) for task, each in self.by_task.items()}
        return [
            Trial(name="other kinds", tasks=OTHERS, constants=lambda _: fitted),
            Trial(name="all, without their family", tasks=self.tasks, constants=by_task.__getitem__),
        ]

    @functools.cached_property
    def fitted(self) -> Constants:
        """The constants, of the home and unseen tasks."""
        return fit(of(self.seen, FITTED_ON))

    @functools.cached_property
    def by_task(self) -> Mapping[str, Constants]:
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
    made = {"What was recorded": _recorded(found), "Constants": _constants(found), "Sure calls by C": _drifts(found)}
    for trial in found.trials():
        made[f"Reliability: {trial.name}"] = _reliability(found, trial)
        made[f"Sure calls: {trial.name}"] = _sure_calls(found, trial)
    made["Sure calls by rival"] = _rivals(found)
    made["Choices by budget"] = _choices(found, found.trials())
    made["Choices by budget, with the prior"] = _choices(found, found.trials(prior=True))
    made["The worst sure calls"] = _worst(found)
    return made


def reliability(found: Calibration) -> dict[str, list[tuple[float, Count]]]:
    """Return for each trial the mean chance of each bin, and how many of its calls end behind, over all fractions."""
    made: dict[str, list[tuple[float, Count]]] = {}
    for trial in found.trials():
        calls = [(each, chance) for each, chance in trial.calls(found.seen) if each.fraction in FRACTIONS]
        binned = [[call for call in calls if low < call[1] <= high] for low, high in BINS]
        made[trial.name] = [
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


def _constants(found: Calibration) -> str:
    of_home = left_out(of(found.seen, FITTED_ON))
    pairs = {
        "nothing": (found.fitted, fit(found.seen)),
        **{family: (of_home.get(family), each) for family, each in left_out(found.seen).items()},
    }
    return _table(
        ("left out", "C, home and unseen", "m ± s", "C, all", "m ± s"),
        [(family, *_named(own), *_named(every)) for family, (own, every) in pairs.items()],
    )


def _named(constants: Constants | None) -> tuple[str, str]:
    if constants is None or constants.prior is None:
        return "", ""
    mean, spread = constants.prior
    return f"{constants.drift:.4f}", f"{mean:.3f} ± {spread:.3f}"


def _drifts(found: Calibration) -> str:
    rows = []
    for drift in DRIFTS:
        row = [f"{drift:g}"]
        for tasks in (FITTED_ON, OTHERS):
            leading = [each for each in of(found.seen, tasks) if each.fraction in FITTED_AT]
            sure = [each for each in leading if sureness(each, Constants(drift=drift)) > 1 - RISK]
            count = _behind(sure)
            row += [str(count.of), f"{count.share:.3f}", str(len(_tasks(each for each in sure if each.behind)))]
        rows.append(row)
    columns = ("sure calls", "behind", "of tasks")
    heads = [f"{column}, {group}" for group in ("home and unseen", "other kinds") for column in columns]
    return _table(("C", *heads), rows)


def _reliability(found: Calibration, trial: Trial) -> str:
    calls = trial.calls(found.seen)
    rows = []
    for fraction in FRACTIONS:
        here = [call for call in calls if call[0].fraction == fraction]
        counts = [_behind(each for each, chance in here if low < chance <= high) for low, high in BINS]
        rows.append([f"{fraction:g}", *(f"{count.of - count.wrong} of {count.of}" for count in counts)])
    return _table(("fraction", *(f"{low:g} to {high:g}" for low, high in BINS)), rows)


def _sure_calls(found: Calibration, trial: Trial) -> str:
    rows = []
    for fraction in FRACTIONS:
        sure = trial.sure(found.seen, fraction)
        wrong = _tasks(each for each in sure if each.behind)
        rows.append([f"{fraction:g}", *_counted(_behind(sure)), len(_tasks(sure)), ", ".join(wrong) or "none"])
    return _table(("fraction", "sure", "behind", "share", "95 % interval", "tasks", "behind on"), rows)


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
        for trial in found.trials():
            sure = [each for fraction in FRACTIONS for each in trial.sure(found.seen, fraction) if belongs(each.label)]
            count = _behind(sure)
            row += [f"{count.wrong} of {count.of}", ", ".join(_tasks(each for each in sure if each.behind)) or "none"]
        rows.append(row)
    heads = [f"{column}, {trial.name}" for trial in found.trials() for column in ("behind", "on")]
    return _table(("rival", *heads), rows)


def _choices(found: Calibration, trials: Sequence[Trial]) -> str:
    rows = []
    for trial in trials:
        here = [field for field in found.fields if field.task in trial.tasks]
        for design in DESIGNS:
            made = chosen(here, design, trial.constants)
            count = choices_behind(made)
            wrong = [f"{each.field.task} ({each.end.end:+.2f})" for each in made if each.end and each.end.behind]
            rows.append((trial.name, f"{design.budget:g}", len(made), *_counted(count), ", ".join(wrong) or "none"))
    heads = ("tasks", "budget", "searches", "replaced", "behind", "share", "95 % interval", "behind on (lead)")
    return _table(heads, rows)


def _worst(found: Calibration) -> str:
    trial = found.trials()[1]
    first: dict[tuple[str, int, str], tuple[Sighting, float]] = {}
    for each, chance in trial.calls(found.seen):
        if each.behind and chance > 1 - RISK:
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


def sure_calls(found: Calibration, trial: Trial) -> Mapping[float, Count]:
    """Count the sure calls by fraction, and those of them that end behind."""
    return {fraction: _behind(trial.sure(found.seen, fraction)) for fraction in FRACTIONS}


def budgets(found: Calibration, trial: Trial) -> Mapping[Design, Count]:
    """Count the choices by budget, and those of them that end behind."""
    here = [field for field in found.fields if field.task in trial.tasks]
    return {design: choices_behind(chosen(here, design, trial.constants)) for design in DESIGNS}


def _without_prior(constants: Constants) -> Constants:
    return dataclasses.replace(constants, prior=None)


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
