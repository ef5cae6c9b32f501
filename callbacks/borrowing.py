"""What a search borrows from a Lightning trainer, and how it comes back.

The rule everywhere: for the time of the search an object works with stand-ins, and on leaving its own
attributes return, the same objects with the same contents.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from optselect.callbacks.clipping import clip_sparse_gradients
from optselect.callbacks.counters import loops_of
from optselect.callbacks.lightning_names import lightning_of, made_for
from optselect.callbacks.muting import SilentProfiler, TrialResults, muted, silent
from optselect.callbacks.sharding import cuts_the_model
from optselect.workload.borrowed_model import attributes_restored

_log = logging.getLogger("optselect")

# Lightning puts these on a module itself; trials replace the logging ones, the rest stay as they are.
KEPT_ATTRIBUTES = frozenset({"_trainer", "_fabric", "log", "log_dict", "configure_optimizers", "prepare_data"})


@contextmanager
def trainer_borrowed(trainer: Any) -> Iterator[None]:
    """Mute the trainer's callbacks, loggers and profiler inside; leave all of it as it came."""
    lightning, loops = lightning_of(trainer), list(loops_of(trainer))
    strategy, connector, precision = trainer.strategy, trainer._logger_connector, trainer.precision_plugin
    owners: list[object] = [trainer, trainer.state, *loops, strategy, connector, precision]
    if trainer.datamodule is not None:
        owners.append(trainer.datamodule)
    owners += [callback for callback in trainer.callbacks if hasattr(callback, "__dict__")]
    with ExitStack() as stack:
        for owner in owners:
            stack.enter_context(attributes_restored(owner))
        stack.enter_context(_signals_heeded(trainer))
        trainer.callbacks = [view for callback in trainer.callbacks if (view := muted(callback, lightning)) is not None]
        for logger in trainer.loggers:
            stack.enter_context(_logger_restored(logger))
        trainer.loggers = [silent(logger, lightning) for logger in trainer.loggers]
        trainer.profiler = made_for(lightning.PassThroughProfiler, SilentProfiler)()
        trainer.save_checkpoint = _keep_no_trial
        # Or else nothing that the module logs would be kept, and trials could not be judged.
        trainer.barebones = False
        # A reload would replace the trials' loaders by the real ones.
        trainer.reload_dataloaders_every_n_epochs = 0
        trainer.fit_loop.epoch_loop._results = lightning._ResultCollection(training=True)
        trainer.fit_loop.epoch_loop.val_loop._results = made_for(lightning._ResultCollection, TrialResults)(
            training=False
        )
        if not cuts_the_model(strategy):
            # There a norm is one over all processes, as the strategy has it; and no gradient is sparse.
            clip_sparse_gradients(precision)
        connector.reset_metrics()
        yield


@contextmanager
def _logger_restored(logger: Any) -> Iterator[None]:
    """Restore the logger's attributes on leaving, but for a version that it has given itself meanwhile.

    A hook may have made a folder of that version; with another one the run would have two.
    """
    if not hasattr(logger, "__dict__"):
        yield
        return
    with attributes_restored(logger):
        yield
        version = vars(logger).get("_version")
    if version is not None:
        vars(logger)["_version"] = version


def _keep_no_trial(filepath: Any, *_: Any, **__: Any) -> None:
    """Write nothing: a run that went on from the weights of a trial would never have chosen.

    Lightning asks for a checkpoint when SLURM takes the machine away; what the search has done is in its study.
    """
    _log.info("no checkpoint is written to %s during the search, which goes on from its study", filepath)


@contextmanager
def _signals_heeded(trainer: Any) -> Iterator[None]:
    """Heed signals as Lightning does in a training, for which it registers only when the optimizer is there.

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
            raise lightning_of(trainer).SIGTERMException
    finally:
        connector.teardown()
