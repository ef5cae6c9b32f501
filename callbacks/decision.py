"""How a fit comes to its optimizer: by its checkpoint, by a plan at hand, or by a search."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from optselect.building.groups import param_groups
from optselect.building.optimizer import build_groups
from optselect.callbacks.clipping import clip_sparse_gradients
from optselect.callbacks.continuation import Continuation, continuation, optimizers_in, schedulers_in
from optselect.callbacks.deepspeed import check_under_deepspeed
from optselect.callbacks.equal_time import end_of, steps_behind
from optselect.callbacks.fit_state import FitState
from optselect.callbacks.lightning_names import lightning_of
from optselect.callbacks.other_callbacks import is_named, is_tuning
from optselect.callbacks.schedules import looks_schedulers_up, standing_still
from optselect.callbacks.sharding import build_on, check_fits, fits, trained_model
from optselect.callbacks.thawing import later_parameters, obstacle_to_thawing
from optselect.callbacks.workload import LightningWorkload
from optselect.configuration import USER
from optselect.configuration.goal import Mode
from optselect.errors import ConfigurationError, PlanMismatchError, UnsupportedModuleError
from optselect.optim.modes import ready_for_a_step
from optselect.optim.rescaling import scaled
from optselect.parameters.anatomy import anatomy_of
from optselect.pipeline import Selection, make_selection
from optselect.plan import OptimizerPlan
from optselect.report.live import progress_for
from optselect.search.arms import baseline
from optselect.settings import Settings
from optselect.workload.shelf import Place

if TYPE_CHECKING:
    import lightning.pytorch as pl

_log = logging.getLogger("optselect")

STUDY_FILE = "optselect_study.journal"


class SearchFallbackWarning(UserWarning):
    """This module cannot be searched; it trains with its own optimizer (or plain AdamW)."""


@dataclass(frozen=True, kw_only=True)
class FitRequest:
    """A fit that asks for its optimizer, and what its user has said about it; `fit` alone is written to.

    user       the module's own `configure_optimizers` (None: it has none)
    fit        takes what is built, and the random numbers to put back
    given      the plan to use (None: none was given)
    on_mismatch, settings, monitor, mode, copies  as `AutoOptimizer` takes them
    state_key  under which checkpoints hold the callback's state
    announce   is told of a plan before it is built
    progress   whether a search shows what it does
    joins_within  seconds in which another process is waited for to begin the search
    """

    trainer: Any
    module: pl.LightningModule
    user: Callable[[], Any] | None
    fit: FitState
    given: OptimizerPlan | None
    on_mismatch: str
    settings: Settings
    monitor: str | None
    mode: Mode
    copies: Literal["auto"] | Place
    state_key: str
    announce: Callable[[OptimizerPlan], None]
    progress: bool = True
    joins_within: float = 0.0

    @property
    def _model(self) -> Any:
        return trained_model(self.trainer, self.module)

    def continuation(self) -> Continuation | None:
        """Find what the fit goes on from, and put its random numbers back; None: nothing was decided or trained before.

        Raises an `OptselectError` for a checkpoint, or a plan in it, that cannot be read.
        """
        found = continuation(self.trainer, self.state_key, self.given)
        if found is None:
            return None
        self.fit.random.take(found.rng, self.trainer)
        return None if found.is_a_beginning else found

    def configure_like(self, before: Continuation) -> tuple[OptimizerPlan | None, Any]:
        """Return the plan of the checkpoint's run, and its optimizers.

        Raises an `OptselectError` where that is impossible.
        """
        plan = before.plan_to_go_on_with(self.given)
        if plan is not None:
            check_fits(plan, self._model)
        configured = self.configure(plan, thawed=before.thawed)
        self.fit.built.ends_at = end_of(plan) if before.ends_at is None else before.ends_at
        schedulers = self.fit.built.schedulers or []
        optimizers = optimizers_in(configured, lightning_of(self.trainer))
        before.check_built(optimizers, schedulers, asked_for=self.given is not None)
        if plan is not None and plan.optimizer != USER and self.trainer.strategy.restore_checkpoint_after_setup:
            # torch loads shards of states into states that it makes by a step.
            ready_for_a_step(optimizers)
        return plan, configured

    def plan_at_hand(self, earlier: OptimizerPlan | None) -> OptimizerPlan | None:
        """Return the plan that was given, or that of an `earlier` fit; None: neither is there for this module.

        Raises `PlanMismatchError` for a given one that is for another module, unless that is to be searched for anew.
        """
        if self.given is not None and self.on_mismatch == "error":
            check_fits(self.given, self._model)
        plan = earlier if self.given is None else self.given
        return plan if plan is not None and fits(plan, self._model) else None

    def search(self, steps_done: int) -> Selection | None:
        """Search for a choice, `steps_done` optimizer steps after the beginning; None: nothing can be searched for.

        Raises `ConfigurationError` where the choice would soon be wrong.
        """
        trainer = self.trainer
        if any(map(is_tuning, trainer.callbacks)):
            return None
        if trainer.fast_dev_run:
            _log.info("fast_dev_run is a test of the code, so nothing is searched")
            return None
        if trainer.max_epochs == 0 or trainer.max_steps == 0:
            _log.info("nothing is to be trained (max_epochs or max_steps is 0), so nothing is searched")
            return None
        if any(is_named(callback, "BatchSizeFinder") for callback in trainer.callbacks):
            raise ConfigurationError(
                "BatchSizeFinder changes the batch size after the optimizer was chosen for the present one; "
                "find it first with Tuner(trainer).scale_batch_size(model), then fit without the callback"
            )
        workload = LightningWorkload(
            trainer,
            self.module,
            user=self.user,
            monitor=self.monitor,
            mode=self.mode,
            steps_done=steps_done,
            copies=None if self.copies == "auto" else self.copies,
        )
        settings = self.settings
        if settings.storage is None:
            settings = replace(settings, storage=Path(trainer.default_root_dir) / STUDY_FILE)
        try:
            first = trainer.is_global_zero
            progress = progress_for(self.progress, quiet=trainer.progress_bar_callback is None) if first else False
            return make_selection(
                workload, settings, first_process=first, progress=progress, joins_within=self.joins_within
            )
        except UnsupportedModuleError as error:
            own = "its own optimizers" if self.user is not None else "plain AdamW(1e-3)"
            warnings.warn(
                f"AutoOptimizer cannot search here: {str(error).rstrip('.')}. The training runs with {own}.",
                SearchFallbackWarning,
                stacklevel=2,
            )
            return None

    def configure_anew(self, plan: OptimizerPlan | None, steps_done: int) -> Any:
        """Configure as `configure` does for a training that begins now, `steps_done` steps after the beginning."""
        configured = self.configure(plan)
        self.fit.built.ends_at = end_of(plan, begun=steps_behind(self.trainer, self.module) + steps_done)
        return configured

    def configure(self, plan: OptimizerPlan | None, *, thawed: int = 0) -> Any:
        """Configure the optimizers of `plan`, in Lightning's form; None: as if there had been no search."""
        configured = self._unsearched() if plan is None else self._built_from(plan, thawed=thawed)
        self.fit.built.schedulers = schedulers_in(configured, lightning_of(self.trainer))
        return configured

    def _unsearched(self) -> Any:
        if self.user is not None:
            return self.user()
        plain = baseline(has_user_optimizer=False)
        optimizer, _ = build_groups(param_groups(anatomy_of(self._model), plain), plain.schedule, self._model, None)
        return {"optimizer": optimizer}

    def _built_from(self, plan: OptimizerPlan, *, thawed: int) -> Any:
        self.announce(plan)
        if plan.optimizer == USER:
            if self.user is None:
                raise PlanMismatchError(
                    "the plan keeps the module's own optimizer, but this module has no configure_optimizers; "
                    "define it, or search anew without the plan"
                )
            return scaled(self.user(), **plan.configuration.scales)
        if plan.sparse:
            clip_sparse_gradients(self.trainer.precision_plugin)
        self.fit.later = later_parameters(plan, self.module)
        if self.fit.later and (obstacle := obstacle_to_thawing(self.trainer, self.module)):
            raise ConfigurationError(f"the plan freezes parts of the module, but {obstacle}")
        optimizer, scheduler = build_on(plan, self._model, thawed=thawed)
        check_under_deepspeed(self.trainer.strategy, plan, optimizer)
        if scheduler is None and looks_schedulers_up(self.module):
            scheduler = standing_still(optimizer)
        self.fit.built.scheduler = scheduler
        if scheduler is None:
            return {"optimizer": optimizer}
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
