"""`AutoOptimizer`: the choice as a Lightning callback."""

from __future__ import annotations

import functools
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import lightning.pytorch as pl
import optuna
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.utilities.model_helpers import is_overridden
from optuna.storages import BaseStorage
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optselect.budget import Budget
from optselect.building.groups import param_groups
from optselect.building.optimizer import build_groups
from optselect.callbacks.borrowing import is_named
from optselect.callbacks.clipping import clip_sparse_gradients, unclip_sparse_gradients
from optselect.callbacks.continuation import (
    PLAN_FILE,
    Continuation,
    checkpoint_folders,
    continuation,
    continuation_of,
    evaluate_in,
    forget_optimizers,
    optimizers_in,
    schedulers_in,
    write_sidecar,
)
from optselect.callbacks.randomness import RandomNumbers, standing
from optselect.callbacks.sharding import build_on, check_fits, fits
from optselect.callbacks.spawned import Letter
from optselect.callbacks.thawing import later_parameters, observe, obstacle_to_thawing
from optselect.callbacks.workload import LightningWorkload
from optselect.configuration import USER
from optselect.configuration.goal import Mode
from optselect.configuration.policy import FineTuning
from optselect.errors import ConfigurationError, OptselectError, PlanMismatchError, UnsupportedModuleError
from optselect.optim.implementation import implementations
from optselect.optim.modes import has_modes, to_evaluation, to_training
from optselect.optim.rescaling import scaled
from optselect.optim.scheduler import ScheduledLR
from optselect.parameters.anatomy import anatomy_of
from optselect.pipeline import make_selection
from optselect.plan import OptimizerPlan
from optselect.profile import Profile
from optselect.report import as_html, can_draw, is_page_of, logged_facts, write_report
from optselect.rules import Rule
from optselect.search.arms import baseline
from optselect.settings import Settings
from optselect.study.study import TrialStudy
from optselect.workload.rng import rng_state

_log = logging.getLogger("optselect")

REPORT_FILE = "report.html"
STUDY_FILE = "optselect_study.journal"


class SearchFallbackWarning(UserWarning):
    """This module cannot be searched; it trains with its own optimizer (or plain AdamW)."""


class AutoOptimizer(pl.Callback):
    """Chooses, tunes and explains the optimizer of a training, then trains with it.

    Add it to a trainer; everything has a default. The module may lack `configure_optimizers`; one that it
    has is the candidate called `"user"`, replaced only on evidence. The decision is part of every
    checkpoint, so a resumed run goes on with the same optimizer and searches nothing.

    Args:
        monitor: the logged value a trial is judged by; None: `val_loss`, else the training loss on batches held back.
        mode: whether `monitor` should be small ("min") or large ("max").
        budget: None: 2,000 steps, at most four trainings, at least a quarter of one; a number: a share of the
            training; a `Budget`: limits on steps, seconds, trials; 0: the rules alone.
        candidates: catalogue names (or "user") to choose from; None: what the rules propose.
        rules: "default", "classic" or a sequence of rules.
        fine_tuning: "auto", True or False: whether the model counts as trained already; or a `FineTuning`: how its
            parts are trained on, whichever optimizer is chosen.
        plan: an `OptimizerPlan` or a path to one: nothing is searched.
        storage: an Optuna storage, its URL or a path; None: a file under the trainer's default_root_dir.
        study_name: in that storage; None: a name made of model, data, length, candidates and seed.
        seed: of the trials.
        report: whether to write report.html beside plan.json; its plots need matplotlib.
        on_mismatch: "error" or "search": what to do when a checkpoint has no plan, or one for another model.

    `plan`, `profile` and `study` hold the results. Raises `UnknownOptimizerError`, `BudgetError` and
    `ConfigurationError` at once for arguments that cannot be meant.
    """

    def __init__(
        self,
        *,
        monitor: str | None = None,
        mode: Mode = "min",
        budget: float | Budget | None = None,
        candidates: Sequence[str] | None = None,
        rules: str | Sequence[Rule] = "default",
        fine_tuning: bool | Literal["auto"] | FineTuning = "auto",
        plan: OptimizerPlan | str | os.PathLike[str] | None = None,
        storage: str | BaseStorage | os.PathLike[str] | None = None,
        study_name: str | None = None,
        seed: int = 0,
        report: bool = True,
        on_mismatch: str = "error",
    ) -> None:
        _one_of("mode", mode, ("min", "max"))
        _one_of("on_mismatch", on_mismatch, ("error", "search"))
        if not isinstance(fine_tuning, FineTuning):
            _one_of("fine_tuning", fine_tuning, ("auto", True, False))
        self._settings = Settings(
            budget=budget,
            candidates=tuple(candidates) if candidates is not None else None,
            rules=rules,
            storage=storage,
            study_name=study_name,
            seed=seed,
            fine_tuning=fine_tuning,
        )
        self.monitor = monitor
        self.mode: Mode = mode
        self.report = report
        self.on_mismatch = on_mismatch
        self._plan: OptimizerPlan | None = None
        self._letter = Letter()
        self.profile: Profile | None = None
        self.study: optuna.Study | None = None
        self.plan_path: Path | None = None
        self.report_path: Path | None = None
        self._given = plan if plan is None or isinstance(plan, OptimizerPlan) else OptimizerPlan.load(plan)
        self._optimizers: list[Optimizer] = []
        self._schedulers: list[str] | None = None
        self._later: list[Parameter] = []
        self._scheduler: LRScheduler | None = None
        self._random = RandomNumbers()
        self._attached: tuple[pl.LightningModule, Any] | None = None
        self._configured = False
        self._trial_study: TrialStudy | None = None

    @property
    def plan(self) -> OptimizerPlan | None:
        """What was chosen; None: nothing, or not yet. After `ddp_spawn` what its processes chose."""
        if self._plan is None and (sent := self._letter.read()) is not None:
            self._plan, self.plan_path = sent
            self.profile = self._plan.profile
        return self._plan

    @plan.setter
    def plan(self, plan: OptimizerPlan | None) -> None:
        self._plan = plan

    # --- attachment -------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        # Lightning refuses a module without configure_optimizers before it calls any hook. The one thing
        # it does to callbacks earlier is this assignment, the same in all versions from 2.0 to 2.6.
        if name == "log" and hasattr(value, "__self__"):
            module = value.__self__
            if module._trainer is not None and module.trainer.state.fn == "fit":
                self.attach(module)

    def attach(self, module: pl.LightningModule) -> None:
        """Provide `configure_optimizers` to `module`; fitting does so by itself."""
        if self._attached is not None and self._attached[0] is module:
            return
        self.detach()
        own = vars(module).get("configure_optimizers")
        if isinstance(own, functools.partial) and own.func is type(module).configure_optimizers:
            own = None  # what a copy of an attached module has
        self._attached = (module, own)
        vars(module)["configure_optimizers"] = _Provided(_provide, self, module, own, "configure_optimizers")

    def _attach_saving(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Schedule-free weights are saved in evaluation mode; the next batch switches back.

        Through the module, whose hook is called after those of all callbacks, for checkpoints of weights alone, too.
        """
        if self._attached is not None and any(map(has_modes, self._chosen(trainer))):
            own = vars(module).get("on_save_checkpoint")
            vars(module)["on_save_checkpoint"] = _Provided(
                _save_evaluated, self._chosen, module, own, "on_save_checkpoint"
            )

    def detach(self) -> None:
        """Take what `attach` provided off the module again."""
        if self._attached is None:
            return
        module, own = self._attached
        if isinstance(saving := vars(module).get("on_save_checkpoint"), _Provided):
            saving.take_off()
        if module._trainer is not None:
            unclip_sparse_gradients(module.trainer.precision_plugin)
        vars(module).pop("configure_optimizers", None)
        if own is not None:
            vars(module)["configure_optimizers"] = own
        self._attached = None
        for parameter in self._later:
            parameter.requires_grad_(True)
        # The next fit resumes from what it loads itself.
        self._later = []
        self._configured = False
        self._random = RandomNumbers()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave the module as it came."""
        if stage == "fit":
            self.detach()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the module as it came, with the weights to use."""
        to_evaluation(self._chosen(trainer))
        # teardown is not called when fit raises
        self.detach()

    # --- optimizers with modes --------------------------------------------------------------------

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Schedule-free optimizers step in training mode."""
        to_training(self._chosen(trainer))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Schedule-free weights are judged in evaluation mode; the next batch switches back."""
        to_evaluation(self._chosen(trainer))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Parts may join the training when it no longer improves."""
        if self.plan is not None and trainer.state.fn == "fit" and not trainer.sanity_checking:
            observe(trainer, self.plan, self.monitor, self.mode)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """To evaluation and back rounds: at each epoch's end, so that a run goes on from there as if it had not ended.

        Whether it validates or saves there, or not.
        """
        to_evaluation(self._chosen(trainer))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Random numbers are those of every process."""
        checkpoint["callbacks"][self.state_key]["rng"] = standing(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The weights are the ones to use; a later run of the same training searches anew."""
        to_evaluation(self._chosen(trainer))
        if self._trial_study is not None:
            self._trial_study.mark_used()

    def _chosen(self, trainer: pl.Trainer) -> list[Optimizer]:
        """The optimizers built from the plan: a user's own switches its modes itself."""
        return [] if self.plan is None or self.plan.optimizer == USER else trainer.optimizers

    # --- the choice -------------------------------------------------------------------------------

    def optimizers_for(self, module: pl.LightningModule) -> Any:
        """What `configure_optimizers` returns: the chosen optimizer and scheduler, in Lightning's form."""
        trainer: Any = module.trainer
        user = self._users_own(module)
        self._configured = True
        steps_done = 0
        try:
            going_on = continuation(trainer, self.state_key, self._given)
            if going_on is not None:
                self._random.go_on_from(going_on.rng, trainer)
                if not going_on.is_a_beginning:
                    return self._continued(trainer, module, user, going_on)
        except OptselectError as error:
            if self.on_mismatch == "error" or trainer.strategy.restore_checkpoint_after_setup:
                raise
            self.plan, steps_done = None, forget_optimizers(trainer)
            _log.warning("a new optimizer goes on from the weights in %s: %s", trainer.ckpt_path, error)
        self.plan = self._decided(trainer, module, user, steps_done)
        return self._configured_by(self.plan, trainer, module, user)

    def _continued(
        self, trainer: Any, module: pl.LightningModule, user: Callable[[], Any] | None, going_on: Continuation
    ) -> Any:
        """As the checkpoint's run was configured. Raises an `OptselectError` where that is impossible."""
        plan = going_on.plan_to_go_on_with(self._given)
        if plan is not None:
            check_fits(plan, module)
        configured = self._configured_by(plan, trainer, module, user, thawed=going_on.thawed)
        schedulers = self._schedulers or []
        going_on.check_built(optimizers_in(configured), schedulers, asked_for=self._given is not None)
        self.plan = plan
        return configured

    def _configured_by(
        self,
        plan: OptimizerPlan | None,
        trainer: Any,
        module: pl.LightningModule,
        user: Callable[[], Any] | None,
        *,
        thawed: int = 0,
    ) -> Any:
        configured = self._built_from(plan, trainer, module, user, thawed=thawed)
        # As they were built: others may take their place later, as StochasticWeightAveraging's does.
        self._schedulers = schedulers_in(configured)
        return configured

    def _built_from(
        self,
        plan: OptimizerPlan | None,
        trainer: Any,
        module: pl.LightningModule,
        user: Callable[[], Any] | None,
        *,
        thawed: int,
    ) -> Any:
        if plan is None:
            return self._unsearched(module, user)
        self._write(trainer, plan)
        if plan.optimizer == USER:
            if user is None:
                raise PlanMismatchError(
                    "the plan keeps the module's own optimizer, but this module has no configure_optimizers; "
                    "define it, or search anew without the plan"
                )
            return scaled(user(), **plan.configuration.scales)
        if plan.sparse:
            clip_sparse_gradients(trainer.precision_plugin)
        self._later = later_parameters(plan, module)
        if self._later and (obstacle := obstacle_to_thawing(trainer, module)):
            raise ConfigurationError(f"the plan freezes parts of the module, but {obstacle}")
        optimizer, scheduler = build_on(plan, module, thawed=thawed)
        self._scheduler = scheduler
        if scheduler is None:
            return {"optimizer": optimizer}
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _decided(
        self, trainer: Any, module: pl.LightningModule, user: Callable[[], Any] | None, steps_done: int
    ) -> OptimizerPlan | None:
        if self._given is not None:
            if self.on_mismatch == "error":
                check_fits(self._given, module)
            if fits(self._given, module):
                return self._given
        elif self.plan is not None and fits(self.plan, module):
            return self.plan
        if trainer.fast_dev_run or any(map(_is_tuning, trainer.callbacks)):
            return None
        if trainer.max_epochs == 0 or trainer.max_steps == 0:
            return None  # nothing will be trained
        return self._search(trainer, module, user, steps_done)

    def _search(
        self, trainer: Any, module: pl.LightningModule, user: Callable[[], Any] | None, steps_done: int
    ) -> OptimizerPlan | None:
        if any(is_named(callback, "BatchSizeFinder") for callback in trainer.callbacks):
            raise ConfigurationError(
                "BatchSizeFinder changes the batch size after the optimizer was chosen for the present one; "
                "find it first with Tuner(trainer).scale_batch_size(model), then fit without the callback"
            )
        workload = LightningWorkload(
            trainer, module, user=user, monitor=self.monitor, mode=self.mode, steps_done=steps_done
        )
        settings = self._settings
        if settings.storage is None:
            settings = replace(settings, storage=Path(trainer.default_root_dir) / STUDY_FILE)
        try:
            selection = make_selection(workload, settings, first_process=trainer.is_global_zero)
        except UnsupportedModuleError as error:
            own = "its own optimizers" if user is not None else "plain AdamW(1e-3)"
            warnings.warn(
                f"AutoOptimizer cannot search here: {str(error).rstrip('.')}. The training runs with {own}.",
                SearchFallbackWarning,
                stacklevel=2,
            )
            return None
        self.profile = selection.profile
        self._trial_study = selection.study
        self.study = selection.study.study if selection.study else None
        return selection.plan

    def _write(self, trainer: pl.Trainer, plan: OptimizerPlan) -> None:
        folder = trainer.log_dir or trainer.default_root_dir
        self.plan_path = Path(folder) / PLAN_FILE
        if trainer.is_global_zero:
            new = not self.plan_path.exists()
            write_sidecar(plan, [folder])
            self._letter.write(trainer, plan, self.plan_path)
            if new:
                _log.info("plan written to %s", self.plan_path)
            if self.report:
                self._write_report(plan, folder)

    def _write_report(self, plan: OptimizerPlan, folder: str) -> None:
        path = Path(folder) / REPORT_FILE
        try:
            if "://" in folder:
                with get_filesystem(folder).open(f"{folder}/{REPORT_FILE}", "w", encoding="utf-8") as file:
                    file.write(as_html(plan))
            elif not is_page_of(plan, path):
                write_report(plan, path)
                hint = "" if can_draw() else " without plots, for which: pip install 'optselect[report]'"
                _log.info("report written to %s%s", path, hint)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is no reason to end a training
            _log.warning("no report is written to %s (%s: %s)", path, type(error).__name__, error)
        else:
            self.report_path = path

    def _unsearched(self, module: pl.LightningModule, user: Callable[[], Any] | None) -> Any:
        if user is not None:
            return user()
        plain = baseline(has_user_optimizer=False)
        return {"optimizer": build_groups(param_groups(anatomy_of(module), plain), plain.schedule, module, None)[0]}

    def _users_own(self, module: pl.LightningModule) -> Callable[[], Any] | None:
        if self._attached is None:
            return None
        _, own = self._attached
        if own is not None:
            return own  # type: ignore[no-any-return]  # put on the instance, as LightningCLI does
        bound = functools.partial(type(module).configure_optimizers, module)
        provided = vars(module).pop("configure_optimizers")
        try:
            return bound if is_overridden("configure_optimizers", module) else None
        finally:
            vars(module)["configure_optimizers"] = provided

    # --- checkpoints ------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The plan (None: nothing was chosen), what was built, its thaws so far, and the random numbers.

        Builtins only.
        """
        return {
            "plan": self.plan.to_dict() if self.plan else None,
            # As they are now: a thaw may have brought another one.
            "optimizers": implementations(self._optimizers) or None,
            "schedulers": self._schedulers,
            # From the scheduler, which outlives the attachment: a checkpoint may be saved when the fit is over.
            "thawed": self._scheduler.thawed if isinstance(self._scheduler, ScheduledLR) else 0,
            "rng": rng_state().to_dict(),
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """A strategy that opens the checkpoint only now: the optimizer was built before."""
        if self._configured and trainer.strategy.restore_checkpoint_after_setup and trainer.state.fn == "fit":
            restored = continuation_of(checkpoint, trainer.ckpt_path, self.state_key, readable=False)
            if restored.recorded:
                restored.plan_to_go_on_with(self.plan)
            if not self._random.expects:
                self._random.go_on_from(restored.rng, trainer)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell the loggers; continue the random numbers of the checkpoint, which Lightning does not restore."""
        self._optimizers = trainer.optimizers
        self._attach_saving(trainer, pl_module)
        if self.plan is not None:
            _tell_loggers(trainer, pl_module, self.plan)
        self._random.on_fit_start(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The plan lies beside the checkpoints, too: from now on there may be some."""
        self._random.on_train_start(trainer, trainer.ckpt_path)
        if self.plan is not None and trainer.is_global_zero:
            write_sidecar(self.plan, checkpoint_folders(trainer))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Continue the random numbers of the checkpoint in the epoch that begins."""
        self._random.on_train_epoch_start(trainer)

    # --- copies -----------------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> AutoOptimizer:
        # Lightning's WeightAveraging copies the module, and with it what attach() put on it.
        return self

    def __getstate__(self) -> dict[str, Any]:
        # Studies hold open files; a spawned process opens its own, and attaches to its own module.
        own = {name: value for name, value in vars(self).items() if name not in ("log", "log_dict")}
        return {
            **own,
            "_plan": self.plan,
            "study": None,
            "_trial_study": None,
            "_attached": None,
            "_configured": False,
            "_optimizers": [],
            "_schedulers": None,
            "_later": [],
            "_scheduler": None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


def _provide(callback: AutoOptimizer, module: pl.LightningModule, *_: Any) -> Any:
    # Lightning looks at the function in a partial to see whether configure_optimizers is there.
    return callback.optimizers_for(module)


def _save_evaluated(
    chosen: Callable[[pl.Trainer], list[Optimizer]],
    module: pl.LightningModule,
    own: Any,
    _: str,
    checkpoint: dict[str, Any],
) -> None:
    evaluate_in(checkpoint, module.trainer, chosen(module.trainer))
    own(checkpoint) if own is not None else type(module).on_save_checkpoint(module, checkpoint)


class _Provided(functools.partial[Any]):
    """What `attach` puts on a module; its copies and pickles have the module's own there instead."""

    def take_off(self) -> None:
        """The module has its own again."""
        _, module, own, name = self.args
        del vars(module)[name]
        if own is not None:
            vars(module)[name] = own

    def __reduce__(self) -> tuple[Any, ...]:
        _, module, own, name = self.args
        if own is None:
            return functools.partial, (getattr(type(module), name), module)
        # cast is a function of the standard library that returns what it is given.
        return cast, (object, own)


def _tell_loggers(trainer: Any, module: pl.LightningModule, plan: OptimizerPlan) -> None:
    """The choice as hyperparameters, through the interface that every logger of Lightning has."""
    owners = [owner for owner in (module, trainer.datamodule) if owner is not None and owner._log_hyperparams]
    # TensorBoard shows what it is told first and nothing later, and Lightning tells it these later.
    known = {name: value for owner in owners for name, value in owner.hparams_initial.items() if name != "_class_path"}
    for logger in trainer.loggers:
        try:
            logger.log_hyperparams({**known, **logged_facts(plan)})
        except Exception as error:  # noqa: BLE001  # as with the report
            _log.warning("%s takes no hyperparameters (%s: %s)", type(logger).__name__, type(error).__name__, error)


def _is_tuning(callback: pl.Callback) -> bool:
    """Whether it is the callback of `Tuner.lr_find` or `Tuner.scale_batch_size`, which ends the fit."""
    return bool(getattr(callback, "_early_exit", False))


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ConfigurationError(f"{name} is one of {', '.join(map(repr, allowed))}, but got {value!r}")
