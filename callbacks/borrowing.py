"""What a search borrows from a Lightning trainer, and how it comes back.

The rule everywhere: for the time of the search an object works with stand-ins, and on leaving its own
attributes return, the same objects with the same contents.
"""

from __future__ import annotations

import copy
import logging
import signal
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.loops.progress import _BaseProgress
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection
from lightning.pytorch.utilities.exceptions import SIGTERMException

from optselect.callbacks.clipping import clip_sparse_gradients
from optselect.workload.borrowed_model import attributes_restored

_log = logging.getLogger("optselect")

Progress = tuple[tuple[object, str, Any], ...]

# Lightning puts these on a module itself; trials replace the logging ones, the rest stay as they are.
KEPT_ATTRIBUTES = frozenset({"_trainer", "_fabric", "log", "log_dict", "configure_optimizers", "prepare_data"})


@contextmanager
def trainer_borrowed(trainer: Any) -> Iterator[None]:
    """The trainer with its callbacks, loggers and profiler muted; all of it as it was on leaving."""
    loops = list(_loops(trainer))
    strategy, connector, precision = trainer.strategy, trainer._logger_connector, trainer.precision_plugin
    owners: list[object] = [trainer, trainer.state, *loops, strategy, connector, precision]
    if trainer.datamodule is not None:
        owners.append(trainer.datamodule)
    owners += [callback for callback in trainer.callbacks if hasattr(callback, "__dict__")]
    with ExitStack() as stack:
        for owner in owners:
            stack.enter_context(attributes_restored(owner))
        stack.enter_context(_signals_heeded(trainer))
        trainer.callbacks = [view for callback in trainer.callbacks if (view := _muted(callback)) is not None]
        trainer.loggers = [DummyLogger() for _ in trainer.loggers]
        trainer.profiler = SilentProfiler()
        trainer.save_checkpoint = _keep_no_trial
        # Or else nothing that the module logs would be kept, and trials could not be judged.
        trainer.barebones = False
        # A reload would replace the trials' loaders by the real ones.
        trainer.reload_dataloaders_every_n_epochs = 0
        trainer.fit_loop.epoch_loop._results = _ResultCollection(training=True)
        trainer.fit_loop.epoch_loop.val_loop._results = _TrialResults(training=False)
        if getattr(precision, "scaler", None) is not None:
            precision.scaler = copy.deepcopy(precision.scaler)
        clip_sparse_gradients(precision)
        connector.reset_metrics()
        yield


def _keep_no_trial(filepath: Any, *_: Any, **__: Any) -> None:
    """Write nothing: a run that went on from the weights of a trial would never have chosen.

    Lightning asks for a checkpoint when SLURM takes the machine away; what the search has done is in its study.
    """
    _log.info("no checkpoint is written to %s during the search, which goes on from its study", filepath)


@contextmanager
def _signals_heeded(trainer: Any) -> Iterator[None]:
    """Signals as Lightning heeds them in a training, for which it registers only when the optimizer is there.

    SIGTERM ends the search at its next batch, and SLURM's warning requeues the job. On several processes SIGTERM
    is left alone, which ends each at once: Lightning would tell the others by a collective call, in the middle of
    one of the trial's own.
    """
    connector = trainer._signal_connector
    of_the_process = signal.getsignal(signal.SIGTERM)
    connector.register_signal_handlers()
    if trainer.world_size > 1 and of_the_process is not None:
        connector._register_signal(signal.SIGTERM, of_the_process)
    try:
        yield
        if trainer.received_sigterm:
            raise SIGTERMException
    finally:
        connector.teardown()


# What Lightning calls by itself.
_CALLBACK_HOOKS = [name for name in vars(pl.Callback) if name.startswith("on_")]


def _muted(callback: Any) -> Any:
    """What a module finds in a trial when it looks for `callback`: its attributes, and hooks that do nothing.

    None where its class allows no such view.
    """
    kind = type(callback)
    own: dict[str, Any] = {
        # As properties, which go before hooks that lie on the instance, as those of a LambdaCallback do.
        **dict.fromkeys(_CALLBACK_HOOKS, property(lambda _: _nothing)),
        # Copies are those of the callback.
        "__deepcopy__": lambda _, memo: copy.deepcopy(callback, memo),
        "__reduce_ex__": lambda _, __: (cast, (object, callback)),
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
    }
    try:
        view: Any = object.__new__(types.new_class(kind.__name__, (kind,), exec_body=lambda body: body.update(own)))
        # Shared: what the module reads is what it would read in the training.
        object.__setattr__(view, "__dict__", vars(callback))
    except TypeError:
        return None
    return view


def _nothing(*_: Any, **__: Any) -> None:
    """A hook in a trial."""


class SilentProfiler(PassThroughProfiler):
    """The same empty context for all of the twenty that Lightning opens for every batch."""

    _EMPTY = nullcontext("")

    def profile(self, action_name: str) -> AbstractContextManager[str]:  # type: ignore[override]  # not a generator
        """Whatever the action, nothing is measured."""
        return self._EMPTY


class _TrialResults(_ResultCollection):
    """Logged values that move to a device once.

    Lightning moves each again whenever it is logged, with copies of all it knows about it: half of the time
    that a small validation takes.
    """

    def __setitem__(self, key: str, metric: Any) -> None:
        move = metric.to

        def move_once(device: torch.device) -> None:
            if getattr(metric, "value", None) is None or metric.value.device != device:
                move(device)

        metric.to = move_once
        super().__setitem__(key, metric)


def fresh_progress(originals: Progress) -> None:
    """Give the loops copies of the `originals`: counters as they stood when the trainer was borrowed."""
    set_progress(tuple((loop, name, copy.deepcopy(value)) for loop, name, value in originals))


def progress_of(trainer: Any) -> Progress:
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


def stored_progress(trainer: Any) -> list[Any]:
    """What the loops' counters say, in builtins."""
    return [[name, _counted(value)] for _, name, value in progress_of(trainer)]


def restore_progress(trainer: Any, stored: list[Any]) -> None:
    """Let the counters say what they said."""
    for (loop, name, value), (_, counted) in zip(progress_of(trainer), stored, strict=True):
        if isinstance(value, _BaseProgress):
            value.load_state_dict(counted)
        else:
            setattr(loop, name, counted)


def _counted(value: Any) -> Any:
    return value.state_dict() if isinstance(value, _BaseProgress) else value


@contextmanager
def logging_replaced(module: pl.LightningModule, log: Callable[..., None]) -> Iterator[None]:
    """`self.log` of `module` and of every LightningModule in it is `log`; `log_dict` goes entry by entry."""

    def log_dict(values: Any, *_: Any, **__: Any) -> None:
        for name, value in values.items():
            log(name, value)

    owners = [part for part in module.modules() if isinstance(part, pl.LightningModule)]
    own: list[dict[str, Any]] = [
        {name: vars(part)[name] for name in ("log", "log_dict") if name in vars(part)} for part in owners
    ]
    try:
        for part in owners:
            vars(part).update(log=log, log_dict=log_dict)
        yield
    finally:
        for part, before in zip(owners, own, strict=True):
            for name in ("log", "log_dict"):
                vars(part).pop(name, None)
            vars(part).update(before)


def is_named(callback: object, *names: str) -> bool:
    """Whether `callback` is of a class so named: as `lightning` or as `pytorch_lightning` imports it."""
    return any(kind.__name__ in names for kind in type(callback).__mro__)


def _loops(trainer: Any) -> Iterable[object]:
    epoch_loop = trainer.fit_loop.epoch_loop
    return (
        trainer.fit_loop,
        epoch_loop,
        epoch_loop.automatic_optimization,
        epoch_loop.manual_optimization,
        epoch_loop.val_loop,
    )
