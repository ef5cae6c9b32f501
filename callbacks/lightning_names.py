"""The two names of Lightning: `lightning`, and `pytorch_lightning` with `lightning_fabric`.

They hold the same code twice, so a class of one is none of the other's. Whatever we subclass, raise or ask for with
`isinstance` is therefore looked up here, in the package that the user's trainer or module comes from: nothing else in
callbacks/ imports Lightning, but for type checkers, which see `lightning` alone.
"""

from __future__ import annotations

import functools
import importlib
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from optselect.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from lightning.fabric.utilities import exceptions as fabric_exceptions
    from lightning.fabric.utilities import types as fabric_types
    from lightning.fabric.utilities import warnings as fabric_warnings
    from lightning.pytorch import cli, profilers
    from lightning.pytorch.loggers import logger
    from lightning.pytorch.loops import progress
    from lightning.pytorch.plugins import precision
    from lightning.pytorch.strategies import launchers
    from lightning.pytorch.trainer.connectors import data_connector
    from lightning.pytorch.trainer.connectors.logger_connector import result
    from lightning.pytorch.utilities import combined_loader, exceptions
    from lightning.pytorch.utilities import types as pl_types

T = TypeVar("T")
C = TypeVar("C")


class _From(Generic[T]):
    """What a module of Lightning calls by the same name, looked up when it is first asked for."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._name = ""

    def __set_name__(self, _: type, name: str) -> None:
        self._name = name

    def __get__(self, package: Lightning, _: type) -> T:
        found: T = getattr(package.module(self._module), self._name)
        # Where Python looks first from now on.
        vars(package)[self._name] = found
        return found


@dataclass(frozen=True, kw_only=True)
class Lightning:
    """One of the two packages, and all that we use of it by name.

    name     as users import it
    pytorch  where its trainer is
    fabric   where its Fabric is
    """

    name: str
    pytorch: str
    fabric: str

    Callback: ClassVar[_From[type[pl.Callback]]] = _From("pytorch")
    LightningModule: ClassVar[_From[type[pl.LightningModule]]] = _From("pytorch")
    LightningCLI: ClassVar[_From[type[cli.LightningCLI]]] = _From("pytorch.cli")
    LRSchedulerTypeTuple: ClassVar[_From[tuple[type[Any], ...]]] = _From("pytorch.cli")
    instantiate_class: ClassVar[_From[Callable[..., Any]]] = _From("pytorch.cli")
    _configure_optimizers: ClassVar[_From[Callable[..., Any]]] = _From("pytorch.core.optimizer")
    _init_optimizers_and_lr_schedulers: ClassVar[_From[Callable[..., Any]]] = _From("pytorch.core.optimizer")
    DummyLogger: ClassVar[_From[type[logger.DummyLogger]]] = _From("pytorch.loggers.logger")
    _BaseProgress: ClassVar[_From[type[progress._BaseProgress]]] = _From("pytorch.loops.progress")
    Precision: ClassVar[_From[type[precision.Precision]]] = _From("pytorch.plugins.precision")
    PassThroughProfiler: ClassVar[_From[type[profilers.PassThroughProfiler]]] = _From("pytorch.profilers")
    _MultiProcessingLauncher: ClassVar[_From[type[launchers._MultiProcessingLauncher]]] = _From(
        "pytorch.strategies.launchers"
    )
    _DataLoaderSource: ClassVar[_From[type[data_connector._DataLoaderSource]]] = _From(
        "pytorch.trainer.connectors.data_connector"
    )
    _ResultCollection: ClassVar[_From[type[result._ResultCollection]]] = _From(
        "pytorch.trainer.connectors.logger_connector.result"
    )
    _SUPPORTED_MODES: ClassVar[_From[dict[str, Any]]] = _From("pytorch.utilities.combined_loader")
    CombinedLoader: ClassVar[_From[type[combined_loader.CombinedLoader]]] = _From("pytorch.utilities.combined_loader")
    SIGTERMException: ClassVar[_From[type[exceptions.SIGTERMException]]] = _From("pytorch.utilities.exceptions")
    _TunerExitException: ClassVar[_From[type[exceptions._TunerExitException]]] = _From("pytorch.utilities.exceptions")
    is_overridden: ClassVar[_From[Callable[[str, object], bool]]] = _From("pytorch.utilities.model_helpers")
    is_param_in_hook_signature: ClassVar[_From[Callable[..., bool]]] = _From("pytorch.utilities.signature_utils")
    LRSchedulerConfig: ClassVar[_From[type[pl_types.LRSchedulerConfig]]] = _From("pytorch.utilities.types")
    _set_sampler_epoch: ClassVar[_From[Callable[[Any, int], None]]] = _From("fabric.utilities.data")
    MisconfigurationException: ClassVar[_From[type[fabric_exceptions.MisconfigurationException]]] = _From(
        "fabric.utilities.exceptions"
    )
    _Stateful: ClassVar[_From[type[fabric_types._Stateful[Any]]]] = _From("fabric.utilities.types")
    PossibleUserWarning: ClassVar[_From[type[fabric_warnings.PossibleUserWarning]]] = _From("fabric.utilities.warnings")

    def module(self, path: str) -> types.ModuleType:
        """Import the module at `path`, which begins with `pytorch` or `fabric`."""
        top, dot, rest = path.partition(".")
        return importlib.import_module(f"{getattr(self, top)}{dot}{rest}")


LIGHTNING = Lightning(name="lightning", pytorch="lightning.pytorch", fabric="lightning.fabric")
PYTORCH_LIGHTNING = Lightning(name="pytorch_lightning", pytorch="pytorch_lightning", fabric="lightning_fabric")
_BY_ROOT = {"lightning": LIGHTNING, "pytorch_lightning": PYTORCH_LIGHTNING, "lightning_fabric": PYTORCH_LIGHTNING}


def package_of(kind: type) -> Lightning | None:
    """Find the package that `kind`, or what it inherits from, is a class of; None: it has nothing of Lightning."""
    roots = (each.__module__.partition(".")[0] for each in kind.__mro__)
    return next((_BY_ROOT[root] for root in roots if root in _BY_ROOT), None)


def lightning_of(owner: object) -> Lightning:
    """Find the package of a trainer, a module or what it is made of."""
    # What has nothing of Lightning, a stand-in for one, is treated as the first package that is here.
    return package_of(type(owner)) or installed()[0]


def check_unmixed(trainer: object, other: object, what: str) -> None:
    """Raise `ConfigurationError` unless `other`, called `what` in the message, is of the trainer's package."""
    ours, theirs = package_of(type(trainer)), package_of(type(other))
    if ours is not None and theirs is not None and ours is not theirs:
        raise ConfigurationError(mixed("the Trainer", ours, f"{what} {type(other).__name__}", theirs))


def mixed(one: str, ours: Lightning, other: str, theirs: Lightning) -> str:
    """Say of two things of different packages what to change."""
    return (
        f"{one} is of {ours.name} and {other} of {theirs.name}, which hold the same code twice and do not mix; "
        f"import both from {theirs.name}, or both from {ours.name}"
    )


@functools.cache
def installed() -> tuple[Lightning, ...]:
    """Import the packages that are here.

    Both are: what makes Lightning slow to import is what they share, so the second adds a twentieth.
    Raises `MissingExtraError` when there is none.
    """
    packages, refusals = [], []
    for package in (LIGHTNING, PYTORCH_LIGHTNING):
        try:
            package.module("pytorch")
        except Exception as error:  # noqa: BLE001  # one too old for this torch, say, which is not the one in use
            refusals.append(f"{type(error).__name__}: {error}")
        else:
            packages.append(package)
    if not packages:
        raise MissingExtraError(
            f"AutoOptimizer needs Lightning, and it cannot be imported ({'; '.join(refusals)}); pip install lightning"
        )
    return tuple(packages)


if TYPE_CHECKING:
    AnyCallback = pl.Callback
else:
    # Of both at once: which trainer it will meet is known only when it meets it. Users import optselect before or
    # after Lightning, and a library may have imported the other one.
    AnyCallback = types.new_class("AnyCallback", tuple(dict.fromkeys(package.Callback for package in installed())))
    AnyCallback.__module__ = __name__


def made_for(base: type, own: type[C]) -> type[C]:
    """Make `own`, which says what is different, a subclass of `base`, a class of one of the packages."""
    made: type[C] = _subclass(cast("Any", own), base)
    return made


@functools.cache
def _subclass(own: type, base: type) -> Any:
    return types.new_class(own.__name__, (own, base), exec_body=lambda body: body.update(__module__=own.__module__))
