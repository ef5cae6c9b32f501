"""A plan out of a file, looked through before anything is built of it: types, ranges, and what belongs together."""

from __future__ import annotations

import functools
import json
import math
import types
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from optselect import catalogue
from optselect.configuration import USER, Configuration
from optselect.errors import PlanFormatError, UnknownOptimizerError
from optselect.plan.fingerprint import ModelFingerprint
from optselect.plan.groups import ParamGroup

# Whole numbers beyond this are not exact in the programs that read JSON, and no training is so long.
_LARGEST = 2**53
# A rate that went through JSON, or was multiplied in another order, is the same.
_SAME = 1e-9
_LONGEST_SHOWN = 60


def strict_json(text: str) -> Any:
    """Read what `text` says. Raises `ValueError` for what is no JSON, says one key twice, or holds no number at all."""
    return json.loads(text, object_pairs_hook=_distinct, parse_constant=_refused)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"it says {twice[0]!r} twice, so one of the two would be used without a word")
    return dict(pairs)


def _refused(constant: str) -> None:
    raise ValueError(f"it holds {constant}, which is no number in JSON")


# --- types ----------------------------------------------------------------------------------------


def check_types(value: Any, kind: Any, what: str = "the plan") -> None:
    """Raise `PlanFormatError` for the first part of `value` that is not what its dataclass says."""
    wrong = next(_wrong(value, kind, ""), None)
    if wrong is not None:
        place, came, expected = wrong
        raise PlanFormatError(
            f"{what} is malformed: {place.lstrip('.') or 'it'} is {_shown(came)}, where {expected} belongs; write it "
            "anew with a search, or mend that value"
        )


Wrong = tuple[str, Any, str]
"""A place, what came there, and what belongs there."""


def _wrong(value: Any, kind: Any, place: str) -> Iterator[Wrong]:
    if kind is Any or is_dataclass(kind):
        yield from _wrong_parts(value, kind, place)
        return
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        yield from _wrong_in_union(value, kind, place)
    elif origin is Literal:
        if value not in get_args(kind) or isinstance(value, bool):
            yield place, value, f"one of {', '.join(map(str, get_args(kind)))}"
    elif origin in (None, Callable):
        yield from _wrong_atom(value, kind, place)
    else:
        yield from _wrong_container(value, kind, place)


def _wrong_parts(value: Any, kind: Any, place: str) -> Iterator[Wrong]:
    if kind is Any:
        # Evidence may be anything that JSON can say.
        if isinstance(value, float) and not math.isfinite(value):
            yield place, value, "a finite number"
        elif isinstance(value, str):
            yield from _wrong_atom(value, str, place)
        elif isinstance(value, Mapping | list | tuple):
            for name, each in value.items() if isinstance(value, Mapping) else enumerate(value):
                yield from _wrong_parts(each, Any, f"{place}[{name!r}]")
        return
    if not isinstance(value, kind):
        yield place, value, f"a {kind.__name__}"
        return
    for name, hint in _hints(kind).items():
        yield from _wrong(getattr(value, name), hint, f"{place}.{name}")


@functools.cache
def _hints(kind: Any) -> Mapping[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _wrong_in_union(value: Any, kind: Any, place: str) -> Iterator[Wrong]:
    members = get_args(kind)
    found = [next(_wrong(value, each, place), None) for each in members]
    if all(found):
        # That of the part which came nearest: it names a place inside.
        deepest = max((each for each in found if each), key=lambda each: len(each[0]))
        if deepest[0] != place:
            yield deepest
        else:
            yield place, value, " or ".join(each[2] for each in found if each)


def _wrong_atom(value: Any, kind: Any, place: str) -> Iterator[Wrong]:
    if kind in _ATOMS:
        holds, expected = _ATOMS[kind]
        if not holds(value):
            yield place, value, expected
    elif not isinstance(kind, type):
        # A function, which no file holds.
        yield place, value, "a pattern"
    elif not isinstance(value, kind):
        yield place, value, f"a {kind.__name__}"


def _is_text(value: Any) -> bool:
    """Whether it is text that can be written down: half of a surrogate pair cannot."""
    try:
        return isinstance(value, str) and bool(value.encode() or True)
    except UnicodeEncodeError:
        return False


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


_ATOMS: Mapping[Any, tuple[Callable[[Any], bool], str]] = {
    str: (_is_text, "text"),
    bool: (lambda value: isinstance(value, bool), "true or false"),
    int: (_is_whole, "a whole number"),
    float: (_is_number, "a finite number"),
    types.NoneType: (lambda value: value is None, "null"),
}


def _wrong_container(value: Any, kind: Any, place: str) -> Iterator[Wrong]:
    origin, arguments = get_origin(kind), get_args(kind)
    if not isinstance(value, origin) or isinstance(value, str):
        yield place, value, "a mapping" if issubclass(origin, Mapping) else "a list"
    elif issubclass(origin, Mapping):
        for name, each in value.items():
            yield from _wrong(name, arguments[0], f"{place} key {_shown(name)}")
            yield from _wrong(each, arguments[1], f"{place}.{name}")
    elif issubclass(origin, tuple) and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            yield place, value, f"a list of {len(arguments)}"
            return
        for number, (each, inner) in enumerate(zip(value, arguments, strict=True)):
            yield from _wrong(each, inner, f"{place}[{number}]")
    else:
        for number, each in enumerate(value):
            yield from _wrong(each, arguments[0], f"{place}[{number}]")


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _LARGEST:
        return "a number of too many digits"
    said = repr(value)
    return said if len(said) <= _LONGEST_SHOWN else f"{said[:_LONGEST_SHOWN]}…"


# --- what belongs together ------------------------------------------------------------------------


def check_ranges(numbers: Mapping[str, tuple[float | None, float]]) -> None:
    """Raise `PlanFormatError` for the first number below what it may be at least (None: there is none)."""
    for name, (value, least) in numbers.items():
        if value is not None and value < least:
            raise PlanFormatError(f"the plan is malformed: {name} is {value}, and {least:g} is the least it may be")


def check_groups(chosen: Configuration, groups: Sequence[ParamGroup], model: ModelFingerprint) -> None:
    """Raise `PlanFormatError` unless the groups train what they should, at the hyperparameters that are shown.

    Each parameter of the model that is not frozen is in exactly one of them; and those of the chosen optimizer have
    its hyperparameters: the rate times that of the group, the weight decay, or none of it.
    """
    if chosen.optimizer == USER:
        return
    named = Counter(name for group in groups for name in group.parameters)
    where = {
        "in no group, so that they would never train": [
            name for name in model.shapes if name not in model.untrained and name not in named
        ],
        "in several groups": [name for name, count in named.items() if count > 1],
        "in a group, but not among the model's parameters": [name for name in named if name not in model.shapes],
        "in a group, but frozen or left out": [name for name in named if name in model.untrained],
    }
    for why, names in where.items():
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise PlanFormatError(
                f"the plan's groups do not fit its model: {', '.join(names[:5])}{more} are {why}; put each parameter "
                "into exactly one group (one that never joins keeps it frozen), or search anew"
            )
    for group in groups:
        if group.optimizer == chosen.optimizer:
            _check_shown(chosen, group)


def _check_shown(chosen: Configuration, group: ParamGroup) -> None:
    try:
        decay = catalogue.get(chosen.optimizer).decay
    except UnknownOptimizerError:
        decay = "weight_decay"  # of a package that is not installed here
    for name, shown in chosen.hyperparameters.items():
        used = group.hyperparameters.get(name, shown)
        expected = float(shown) * group.rate if name == "lr" else shown
        undecayed = name == decay and used == 0
        if undecayed or used == expected:
            continue
        numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (used, expected))
        if not numbers or not math.isclose(float(used), float(expected), rel_tol=_SAME):
            raise PlanFormatError(
                f"the plan shows {name}={shown!r} and its group {group.name!r} trains with {used!r}"
                f"{f' at {group.rate:g} times the rate' if group.rate != 1 else ''}; write the same in both"
            )
