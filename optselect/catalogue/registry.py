"""Which optimizers there are: ours, those registered by hand, and those of installed packages."""

from __future__ import annotations

import fnmatch
import functools
import importlib.metadata
import itertools
import warnings
from collections.abc import Iterable
from typing import cast

from optselect.catalogue import adam, adaptive, full_batch, matrix, plugins, sgd, sparse
from optselect.catalogue.spec import OptimizerSpec
from optselect.configuration import USER
from optselect.errors import ConfigurationError, UnknownOptimizerError

ENTRY_POINT_GROUP = "optselect.optimizers"

_FAMILIES = (sgd, adam, adaptive, sparse, full_batch, matrix, plugins)
# The entries of this package; third parties add theirs to `_SPECS` alone.
OURS: tuple[OptimizerSpec, ...] = tuple(itertools.chain.from_iterable(family.SPECS for family in _FAMILIES))

_SPECS: dict[str, OptimizerSpec] = {spec.name: spec for spec in OURS}


class CatalogueWarning(RuntimeWarning):
    """An installed package's entry point could not be used."""


def names(pattern: str = "*") -> tuple[str, ...]:
    """List the catalogue names that match a shell-style `pattern`, in the order of registration."""
    _load_entry_points()
    return tuple(name for name in _SPECS if fnmatch.fnmatchcase(name, pattern))


def get(name: str) -> OptimizerSpec:
    """Look up what is known about the optimizer `name`. Raises `UnknownOptimizerError` with the nearest name."""
    if name not in _SPECS:
        _load_entry_points()
    if name not in _SPECS:
        raise UnknownOptimizerError.named(name, _SPECS)
    return _SPECS[name]


def register(spec: OptimizerSpec) -> OptimizerSpec:
    """Add `spec` to the catalogue and return it. Registering the same spec again changes nothing.

    Raises `ConfigurationError` when the name is taken, or its partner is not known.
    """
    if spec.name == USER:
        raise ConfigurationError(f"{USER!r} names the user's own optimizer; choose another name")
    if _SPECS.get(spec.name, spec) is not spec:
        raise ConfigurationError(f"an optimizer named {spec.name!r} is in the catalogue already; choose another name")
    if spec.partner is not None and spec.partner not in _SPECS:
        raise ConfigurationError(
            f"the partner {spec.partner!r} of {spec.name!r} is not in the catalogue; register it first"
        )
    return _SPECS.setdefault(spec.name, spec)


@functools.cache
def _load_entry_points() -> None:
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        # Whatever a foreign package raises: one broken package must not take the catalogue with it.
        try:
            for spec in _specs_of(point.load()):
                register(spec)
        except Exception as error:  # noqa: BLE001  # see above
            warnings.warn(
                f"the entry point {point.name!r} ({point.value}) of {ENTRY_POINT_GROUP} was skipped: {error}",
                CatalogueWarning,
                stacklevel=3,
            )


def _specs_of(loaded: object) -> tuple[OptimizerSpec, ...]:
    specs = tuple(loaded) if isinstance(loaded, Iterable) else (loaded,)
    if strangers := [spec for spec in specs if not isinstance(spec, OptimizerSpec)]:
        raise TypeError(f"it must be an OptimizerSpec or a sequence of them, but contains {strangers[0]!r}")
    return cast("tuple[OptimizerSpec, ...]", specs)
