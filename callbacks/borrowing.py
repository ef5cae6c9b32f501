"""What a search borrows from a Lightning trainer, and how it comes back.

The rule everywhere: for the time of the search an object works with stand-ins, and on leaving its own
attributes return, the same objects with the same contents.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.loops.progress import _BaseProgress
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection
from lightning.pytorch.utilities.combined_loader import _SUPPORTED_MODES, CombinedLoader

from optselect.loaders import loader_generators
from optselect.rng import generators_restored
from optselect.snapshot import attributes_restored

Progress = tuple[tuple[object, str, Any], ...]

# Lightning puts these on a module itself; trials replace the logging ones, the rest stay as they are.
KEPT_ATTRIBUTES = frozenset(
    {"_trainer", "_fabric", "log", "log_dict", "configure_optimizers", "prepare_data"}
)


@contextmanager
def trainer_borrowed(trainer: pl.Trainer) -> Iterator[None]:
    """The trainer with its callbacks, loggers and profiler muted; all of it as it was on leaving."""
    loops = list(_loops(trainer))
    strategy, connector, precision = trainer.strategy, trainer._logger_connector, trainer.precision_plugin
    owners: list[object] = [trainer, trainer.state, *loops, strategy, connector, precision]
    if trainer.datamodule is not None:
        owners.append(trainer.datamodule)
    with ExitStack() as stack:
        for owner in owners:
            stack.enter_context(attributes_restored(owner))
        trainer.callbacks = []
        trainer.loggers = [DummyLogger() for _ in trainer.loggers]
        trainer.profiler = PassThroughProfiler()
        # A reload would replace the trials' loaders by the real ones.
        trainer.reload_dataloaders_every_n_epochs = 0
        trainer.fit_loop.epoch_loop._results = _ResultCollection(training=True)
        trainer.fit_loop.epoch_loop.val_loop._results = _ResultCollection(training=False)
        if getattr(precision, "scaler", None) is not None:
            precision.scaler = copy.deepcopy(precision.scaler)
        connector.reset_metrics()
        yield


def fresh_progress(trainer: pl.Trainer, originals: Progress) -> None:
    """Give the loops copies of the `originals`: counters as they stood when the trainer was borrowed."""
    set_progress(tuple((loop, name, copy.deepcopy(value)) for loop, name, value in originals))


def progress_of(trainer: pl.Trainer) -> Progress:
    """The loops' counters: the objects themselves, by loop and attribute."""
    return tuple(
        (loop, name, value)
        for loop in _loops(trainer)
        for name, value in vars(loop).items()
        if isinstance(value, _BaseProgress) or name == "_batches_that_stepped"
    )


def set_progress(progress: Progress) -> None:
    """Let the loops count with these objects."""
    for loop, name, value in progress:
        setattr(loop, name, value)


class UnopenedLoader(CombinedLoader):
    """A combined loader that Lightning can set up and measure, but whose iteration never starts.

    `FitLoop.setup_data` opens the loader it sets up, which draws random numbers, starts workers and takes
    batches out of streams; none of that may happen to the real one before the real run.
    """

    def __iter__(self) -> UnopenedLoader:
        # Made but not iterated: it knows the length.
        self._iterator = _SUPPORTED_MODES[self._mode]["iterator"](self.flattened, self._limits)
        return self

    def __next__(self) -> Any:
        raise StopIteration


def borrow_loader(loader: Any, stack: ExitStack) -> None:
    """The loader, its samplers, its data set and their generators as they were, when `stack` is left."""
    stack.enter_context(generators_restored(loader_generators(loader)))
    batch_sampler = getattr(loader, "batch_sampler", None)
    parts = (getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    for owner in (loader, getattr(loader, "dataset", None), *parts):
        if hasattr(owner, "__dict__"):
            stack.enter_context(attributes_restored(owner))


class UnopenedSource:
    """A data source for `FitLoop.setup_data` that wraps what the real one gives into an `UnopenedLoader`.

    The loaders, their samplers and data sets are borrowed on `stack` before Lightning sees them: it opens
    a loader of a class that it does not know, to see whether it can.
    """

    def __init__(self, source: Any, stack: ExitStack) -> None:
        self._source = source
        self._stack = stack
        self.instance, self.name = source.instance, source.name

    def dataloader(self) -> UnopenedLoader:
        """The real source's loaders, unopened."""
        loaders = self._source.dataloader()
        combined = isinstance(loaders, CombinedLoader)
        unopened = UnopenedLoader(
            *((loaders.iterables, loaders._mode) if combined else (loaders, "max_size_cycle"))
        )
        for loader in unopened.flattened:
            borrow_loader(loader, self._stack)
        return unopened

    def is_defined(self) -> bool:
        """As the real source."""
        return bool(self._source.is_defined())

    def is_module(self) -> bool:
        """As the real source."""
        return bool(self._source.is_module())


@contextmanager
def logging_replaced(module: pl.LightningModule, log: Callable[..., None]) -> Iterator[None]:
    """`self.log` of `module` and of every LightningModule in it is `log`; `log_dict` calls it for each entry."""

    def log_dict(values: Any, *args: Any, **kwargs: Any) -> None:
        for name, value in values.items():
            log(name, value)

    owners = [part for part in module.modules() if isinstance(part, pl.LightningModule)]
    own = [{name: vars(part)[name] for name in ("log", "log_dict") if name in vars(part)} for part in owners]
    try:
        for part in owners:
            vars(part).update(log=log, log_dict=log_dict)
        yield
    finally:
        for part, before in zip(owners, own, strict=True):
            for name in ("log", "log_dict"):
                vars(part).pop(name, None)
            vars(part).update(before)


def _loops(trainer: pl.Trainer) -> Iterable[object]:
    epoch_loop = trainer.fit_loop.epoch_loop
    return (
        trainer.fit_loop,
        epoch_loop,
        epoch_loop.automatic_optimization,
        epoch_loop.manual_optimization,
        epoch_loop.val_loop,
    )
