"""The end of a training that was compared at equal time: after as many steps as take as long as the baseline's."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from optselect.callbacks.fit_facts import steps_to_come
from optselect.plan import OptimizerPlan

if TYPE_CHECKING:
    import lightning.pytorch as pl

_log = logging.getLogger("optselect")


def end_of(plan: OptimizerPlan | None, *, begun: int = 0) -> int | None:
    """Return the step at which a training with `plan` ends that began after `begun`; None: with the trainer's own."""
    if plan is None or plan.compare == "steps" or plan.total_steps is None:
        return None
    return begun + plan.total_steps


def steps_behind(trainer: Any, module: pl.LightningModule) -> int:
    """Count the optimizer steps of a training; in manual optimization its batches, by which it is laid out there."""
    if module.automatic_optimization:
        return int(trainer.global_step)
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.processed)


class TimeUp:
    """Stops a training at a step, unless the trainer ends it there itself."""

    def __init__(self) -> None:
        self._end: int | None = None

    def begin(self, trainer: Any, module: pl.LightningModule, end: int | None) -> None:
        """Stop the training at step `end` (None: nowhere); at once where that is behind it."""
        self._end = end
        if end is None:
            return
        to_come = steps_to_come(trainer, trainer.callbacks, 0)
        if to_come is not None and trainer.global_step + to_come <= end:
            self._end = None
        self.look(trainer, module)

    def look(self, trainer: Any, module: pl.LightningModule) -> None:
        """Stop the training where its end has come."""
        if self._end is None or steps_behind(trainer, module) < self._end:
            return
        trainer.should_stop = True
        if trainer.is_global_zero:
            # A warning: whoever was promised more steps should see why there are fewer.
            _log.warning(
                "the training ends after %d steps, which take as long as the baseline's whole training: its plan was "
                "chosen with compare='seconds'",
                self._end,
            )
        self._end = None
