"""What a model itself says of its parameters, in methods that timm and others have agreed on."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from torch import nn

from optselect.parameters.names import named_modules, named_parameters

# What timm's matchers end in for parameters that belong to the layer before them.
_TO_PREVIOUS = 99999


def asked(module: nn.Module, method: str) -> Any:
    """Call the method; None where there is none, or where it cannot be called without arguments."""
    try:
        return getattr(module, method)()
    except Exception:  # noqa: BLE001  # a method of that name may want arguments: then it says nothing
        return None


def undecayed(model: nn.Module) -> set[str]:
    """Collect the names that the model, or a model inside it, lists under timm's `no_weight_decay()` convention."""
    names: set[str] = set()
    for prefix, module in named_modules(model):
        listed = asked(module, "no_weight_decay")
        if isinstance(listed, Iterable):
            names |= {f"{prefix}.{name}" if prefix else str(name) for name in listed}
    return names


def matched_layers(model: nn.Module) -> dict[str, str]:
    """Map parameter names to layers, in sortable form, for a model that gives them by timm's `group_matcher`.

    The protocol: a dict from names to a regular expression, or to pairs of one and a suffix; a parameter's layer
    is the place in the dict, the numbers that the expression's groups match, and the suffix. What nothing
    matches comes last. A function of the name is taken, too.
    """
    for prefix, module in named_modules(model):
        if (matcher := asked(module, "group_matcher")) is None:
            continue
        names = [name for name, _ in named_parameters(module)]
        try:
            ordinals = {name: _ordinal(matcher, name) for name in names}
        except (TypeError, ValueError, AttributeError, re.error):  # something else by that name
            return {}
        ranks: dict[tuple[float, ...], int] = {}
        following = 0
        for ordinal in sorted(set(ordinals.values())):
            joins_previous = following > 0 and ordinal[-1] == _TO_PREVIOUS
            ranks[ordinal] = following - 1 if joins_previous else following
            following = ranks[ordinal] + 1
        dot = f"{prefix}." if prefix else ""
        return {f"{dot}{name}": f"{dot}layer {ranks[ordinal]:06}" for name, ordinal in ordinals.items()}
    return {}


def _ordinal(matcher: Any, name: str) -> tuple[float, ...]:
    if callable(matcher):
        given = matcher(name)
        return tuple(map(float, given)) if isinstance(given, Iterable) else (float(given),)
    for place, patterns in enumerate(matcher.values()):
        pairs = [(patterns, None)] if isinstance(patterns, str) else patterns or ()
        for pattern, suffix in pairs:
            if (found := re.match(pattern, name)) is not None:
                return tuple(map(float, (place, *(each for each in found.groups() if each), *(suffix or ()))))
    return (math.inf,)
