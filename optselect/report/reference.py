"""The catalogue and the rules as tables: for a terminal, and for docs/reference/.

    python -m optselect.report.reference docs/reference

writes `catalogue.md` and `rules.md` into that folder, so that the pages cannot drift from the code.
"""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from optselect import catalogue
from optselect.catalogue import OptimizerSpec
from optselect.catalogue.registry import OURS
from optselect.report.markdown import escaped, table
from optselect.report.text import wrapped
from optselect.rules import CLASSIC, DEFAULT, FACTS, POLICIES, REGIMES, Regime, Rule
from optselect.space import Dimension
from optselect.words import format_value

_GROUPS: tuple[tuple[str, str, tuple[Rule, ...]], ...] = (
    ("Facts", "they forbid, whatever speaks for an optimizer", FACTS),
    ("Measured rules", "they go by measurements", tuple(each for each in DEFAULT if each not in CLASSIC)),
    ("Classic rules", "the textbook's, each with what has been found since", CLASSIC),
)
_GENERATED = "This page is generated from the code by `make docs`."


# --- the catalogue --------------------------------------------------------------------------------


def facts(spec: OptimizerSpec) -> dict[str, str]:
    """Say in words what `spec` says, by title; without the summary, the space and the sources."""
    extra = f", pip install 'optselect[{spec.extra}]'" if spec.extra else ""
    found = {
        "class": f"{spec.factory}{extra}",
        "fixed": ", ".join(f"{name}={value!r}" for name, value in spec.fixed.items()),
        "trains": _trains(spec),
        "needs": _needs(spec),
        "state": f"{_state(spec)} bytes a number in a float32 matrix (1,024 × 1,024) and vector",
        "step": _STEPS[spec.cost],
        "decay": _decay(spec),
        "schedule": "" if spec.schedulable else "none: decaying its learning rate is of no use",
    }
    return {title: text for title, text in found.items() if text}


def catalogue_lines(names: Iterable[str]) -> Iterator[str]:
    """Yield one line for each optimizer of `names`: name, bytes of state, what it is."""
    for spec in map(catalogue.get, names):
        extra = f" [extra: {spec.extra}]" if spec.extra else ""
        yield f"{spec.name:<20} {_state(spec):>11} bytes a number  {spec.summary}{extra}"


def entry_lines(spec: OptimizerSpec) -> Iterator[str]:
    """Yield all about one optimizer, for a terminal."""
    lines = {**facts(spec), **{name: _range(dimension) for name, dimension in spec.space.items()}}
    yield from wrapped(f"{spec.name}: {spec.summary}")
    for title, text in (*lines.items(), *(("source", source) for source in spec.cites)):
        yield from wrapped(f"{title:<14} {text}", "  ")


def catalogue_page() -> str:
    """Write `docs/reference/catalogue.md`: our own entries, and the regimes that move their priors."""
    return _page(
        "# The optimizers",
        f"{_GENERATED}\n"
        "`optselect catalogue` prints the same, with the entries of installed packages; "
        "[a package adds its own](../how-to/own-optimizer.md).\n"
        "Every fact below is run by `optselect.testing.check_optimizer`, but for the sources and what is said of "
        "schedules.",
        "State is in bytes for each number of a float32 parameter: in a matrix of 1,024 × 1,024, and in a "
        "vector of 1,024 where that differs.",
        table(
            ("name", "what it is", "gradients", "state", "installed by"),
            (
                (f"[`{spec.name}`](#{spec.name})", escaped(spec.summary), _layouts(spec), _state(spec), _extra(spec))
                for spec in OURS
            ),
        ),
        *(block for spec in OURS for block in _entry(spec)),
        "## Where to start, by regime",
        "The first regime that holds moves the centres above; a search then starts there.\n"
        "A longer training than 800 steps starts lower, a shorter one higher, where the regime says so "
        "(`optselect.rules.prior`).",
        table(
            ("regime", "learning rate", "decoupled weight decay", "β₂", "warmup", "moves with the length", "source"),
            map(_regime, REGIMES),
        ),
    )


def _entry(spec: OptimizerSpec) -> Iterator[str]:
    yield f"## {spec.name}"
    yield f"{escaped(spec.summary)}."
    yield _bullets(f"{title}: {escaped(text)}" for title, text in facts(spec).items())
    yield table(
        ("hyperparameter", "bounds", "centre"),
        ((f"`{name}`", *_cells(dimension)) for name, dimension in spec.space.items()),
    )
    yield _bullets(escaped(source) for source in spec.cites)


_STEPS: Mapping[str, str] = {
    "elementwise": "a few operations on each number",
    "matrix": "products of matrices as large as the parameter",
    "closure": "several evaluations of the loss",
}


def _trains(spec: OptimizerSpec) -> str:
    parts = [f"{_layouts(spec)} gradients"]
    if spec.ndim is not None:
        parts.append(f"of {spec.ndim}-dimensional parameters")
    if not spec.complex:
        parts.append("of real numbers")
    rest = f"; {spec.partner} takes the rest" if spec.partner else ""
    return f"{' '.join(parts)}{rest}"


def _layouts(spec: OptimizerSpec) -> str:
    return " and ".join(layout for layout in ("dense", "sparse") if getattr(spec, layout))


def _needs(spec: OptimizerSpec) -> str:
    needs = {
        "a closure that evaluates the loss again": spec.closure,
        "a single parameter group": spec.single_group,
        "its train() and eval() modes to be switched": spec.train_eval,
    }
    return ", ".join(need for need, holds in needs.items() if holds)


def _decay(spec: OptimizerSpec) -> str:
    if spec.decay is None:
        return "none"
    form = "decoupled (it shrinks weights by lr · weight_decay)" if spec.decoupled else "added to the gradient (L2)"
    sparse = "" if not spec.sparse or spec.sparse_decay else "; not on sparse gradients"
    return f"{form}{sparse}"


def _state(spec: OptimizerSpec) -> str:
    matrix, vector = (spec.state_bytes(shape) / size for shape, size in (((1024, 1024), 1024**2), ((1024,), 1024)))
    if spec.ndim == 2 or matrix == vector:
        return f"{matrix:.2g}"
    return f"{matrix:.2g} / {vector:.2g}"


def _extra(spec: OptimizerSpec) -> str:
    return f"`optselect[{spec.extra}]`" if spec.extra else "torch"


def _range(dimension: Dimension) -> str:
    bounds, centre = _cells(dimension)
    return f"{bounds}, starting at {centre}"


def _cells(dimension: Dimension) -> tuple[str, str]:
    """Return bounds and centre."""
    centre = format_value(dimension.centre)
    choices = getattr(dimension.distribution, "choices", None)
    if choices is not None:
        return " or ".join(map(str, choices)), centre
    low, high = sorted((dimension.from_unit(0), dimension.from_unit(1)))
    return f"{format_value(low)} to {format_value(high)}", centre


def _regime(regime: Regime) -> tuple[str, ...]:
    own = ", ".join(f"{name} {format_value(value)}" for name, value in regime.lr.items())
    scale = "the centres" if regime.scale == 1 else f"{format_value(regime.scale)} times the centres"
    return (
        escaped(regime.name),
        escaped(f"{scale}{f'; {own}' if own else ''}"),
        "1e-4 / lr" if regime.weight_decay is None else format_value(regime.weight_decay),
        "" if regime.beta2 is None else format_value(regime.beta2),
        f"{regime.warmup:.0%}",
        "yes" if regime.horizon else "no",
        escaped(regime.source),
    )


# --- the rules ------------------------------------------------------------------------------------


def rules_lines(pattern: str = "*") -> Iterator[str]:
    """Yield rules with their mechanism, their source and what speaks against them, for a terminal.

    Those of which anything that is printed holds `pattern`, a word or a wildcard.
    """
    for title, what, every in _GROUPS:
        rules = [rule for rule in every if _matches(rule, pattern)]
        if rules:
            yield f"{title}: {what}"
        for rule in rules:
            yield from wrapped(rule.name, "  ")
            yield from wrapped(rule.mechanism, "      ")
            yield from wrapped(f"[{rule.strength}: {rule.cites}]", "      ")
            if rule.counter:
                yield from wrapped(f"but: {rule.counter}", "      ")


def _matches(rule: Rule, pattern: str) -> bool:
    said = " ".join((rule.name, rule.mechanism, rule.strength, rule.cites, rule.counter or ""))
    return fnmatch.fnmatchcase(said.lower(), f"*{pattern.lower()}*")


def rules_page() -> str:
    """Write `docs/reference/rules.md`."""
    return _page(
        "# The rules",
        f"{_GENERATED}\n`optselect rules` prints the same; [a rule of your own](../how-to/own-rule.md) is a few lines.",
        "A rule's name is its claim.\n"
        "The rules that speak on a profile vote for and against optimizers, the votes are added up, and "
        "the plan shows each with the value that was measured.\n"
        "One proposal is always the classic rules' own pick, and one the measured rules'; the search decides.",
        *(block for group in _GROUPS for block in _group(*group)),
        "## Policies for a trained model",
        "Ways to train its parts, tried where they fit the model; `FineTuning` says one by hand.",
        table(
            ("policy", "mechanism", "source"),
            (tuple(map(escaped, (each.fine_tuning.describe(), each.mechanism, each.cites))) for each in POLICIES),
        ),
    )


def _group(title: str, what: str, rules: Sequence[Rule]) -> Iterator[str]:
    yield f"## {title}"
    yield f"{what[0].upper()}{what[1:]}."
    against = any(rule.counter for rule in rules)
    yield table(
        ("rule", "mechanism", "strength", "source", *(["what speaks against it"] if against else [])),
        (
            (
                *map(escaped, (rule.name, rule.mechanism, rule.strength, rule.cites)),
                *([escaped(rule.counter)] if against else []),
            )
            for rule in rules
        ),
    )


# --- the pages ------------------------------------------------------------------------------------


PAGES = {"catalogue.md": catalogue_page, "rules.md": rules_page}


def write(folder: Path) -> None:
    """Write the pages into `folder`, which must exist."""
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")


def _page(*blocks: str) -> str:
    return "\n\n".join(blocks) + "\n"


def _bullets(texts: Iterable[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)


if __name__ == "__main__":
    write(Path(*(sys.argv[1:] or ["docs/reference"])))
