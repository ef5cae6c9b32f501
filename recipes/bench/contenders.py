"""The names of the methods: what `--methods` takes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

from optselect.errors import ConfigurationError, nearest
from optselect.recipes.bench.ablations import ABLATIONS
from optselect.recipes.bench.methods import (
    Choice,
    Method,
    classic_rules,
    default,
    lr_find,
    ours,
    prodigy,
    random_search,
    rules_alone,
    schedule_free,
    sweep,
    tpe,
)

FIXED: Mapping[str, Method] = {
    "default": default,
    "sweep": sweep,
    "lr_find": lr_find,
    "prodigy": prodigy,
    "schedule_free": schedule_free,
}
SCALED: Mapping[str, Callable[..., Choice]] = {
    "random": random_search,
    "tpe": tpe,
    "ours": ours,
    "ours-rules": rules_alone,
    "ours-classic": classic_rules,
    **ABLATIONS,
}
# In the order that a table is read and a run is afforded: cheap ones first.
STANDARD = (
    *FIXED,
    *(f"ours@{amount}" for amount in ("0.25", "1", "4", "8")),
    *(f"{kind}@{trials}" for kind in ("random", "tpe") for trials in (20, 40)),
)


def method(name: str) -> Method:
    """Find the method called `name`: `default`, `tpe@20`, `ours@0.25`, … Raises `ConfigurationError`."""
    kind, separator, amount = name.partition("@")
    if kind in FIXED and not separator:
        return FIXED[kind]
    if kind in SCALED and separator:
        try:
            number = float(amount)
        except ValueError as error:
            raise ConfigurationError(f"{name!r}: after the @ stands a number, but got {amount!r}") from error
        if not (1 if kind in ("random", "tpe") else 0) <= number < math.inf:
            raise ConfigurationError(f"{name!r}: after the @ stands a number: of trainings from 0 on, of trials from 1")
        return functools.partial(SCALED[kind], amount=number)
    known = [*FIXED, *(f"{scaled}@NUMBER" for scaled in SCALED)]
    raise ConfigurationError(f"there is no method {name!r}.{nearest(name, known)} Known: {', '.join(known)}")
