"""`AutoOptimizer`: the choice as a Lightning callback."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import optuna
from optuna.storages import BaseStorage
from torch.optim import Optimizer

from optselect.budget import Budget
from optselect.callbacks.attachment import Attachment
from optselect.callbacks.continuation import check_folder, continuation_of, forget_optimizers
from optselect.callbacks.decision import FitRequest, SearchFallbackWarning
from optselect.callbacks.fit_state import FitState
from optselect.callbacks.lightning_names import AnyCallback, check_unmixed
from optselect.callbacks.loading import load_by_own_names
from optselect.callbacks.loggers import tell_loggers
from optselect.callbacks.outputs import (
    PLAN_FILE,
    checkpoint_folders,
    ended,
    run_folder,
    run_of,
    write_page,
    write_plan,
    write_sidecars,
)
from optselect.callbacks.randomness import random_states
from optselect.callbacks.saving import save_evaluated
from optselect.callbacks.spawned import Letter
from optselect.callbacks.thawing import observe
from optselect.callbacks.watching import Watching, rows_of_a_step
from optselect.configuration import USER
from optselect.configuration.goal import Compare, Mode
from optselect.configuration.policy import FineTuning
from optselect.errors import ConfigurationError, OptselectError, PlanError
from optselect.optim.modes import has_modes, to_evaluation, to_training
from optselect.plan import OptimizerPlan
from optselect.profile import Profile
from optselect.report import Run
from optselect.rules import Rule
from optselect.settings import RISK, Settings
from optselect.study.artifacts import ArtifactStore
from optselect.study.study import TrialStudy
from optselect.workload.rng import rng_state

if TYPE_CHECKING:
    import lightning.pytorch as pl

__all__ = ["AutoOptimizer", "SearchFallbackWarning"]

_log = logging.getLogger("optselect")


class AutoOptimizer(AnyCallback):
    """Chooses, tunes and explains the optimizer of a training, then trains with it.

    Add it to a trainer; everything has a default. The module may lack `configure_optimizers`; one that it
    has is the candidate called `"user"`, replaced only on evidence. The decision is part of every
    checkpoint, so a resumed run goes on with the same optimizer and searches nothing.

    Args:
        monitor: the logged value a trial is judged by; None: what ModelCheckpoint or EarlyStopping watches, else
            `val_loss` or the one validation loss, else the loss on training batches held back.
        mode: whether `monitor` should be small ("min") or large ("max").
        budget: None: 2,000 steps, at most four trainings, at least a twentieth of one; a number: a share of the
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
        progress: whether a search shows what it will cost, what it does and what it chose: as a table in a terminal
            and in a notebook, as log lines elsewhere. False: nothing but warnings.
        watch: whether the loggers are told of gradient norms and update-to-weight ratios by what parameters are for,
            and of the gradient noise scale, while it trains, in at most a hundredth of the time.
        risk: the chance of ending behind your own optimizer that is accepted: it is replaced only where the chance
            is smaller.
        compare: what trials are compared at: "steps", equally many of them; "seconds", equal time: a slower optimizer
            gets fewer steps, in its trials and in the training, which ends when the baseline's would have.
        artifacts: where trials are put aside, for all workers of a search to go on with: a folder, s3://bucket/prefix,
            or an artifact store of Optuna's; None: beside the study, where that is a file.
        copies: where the weights of a model that is cut over processes (by FSDP, say) are put aside while trials run:
            "beside" them, in "host" memory or on "disk"; "auto": the first of these that has room.
        on_mismatch: "error" or "search": what to do when a checkpoint has no plan, or one for another model.

    `plan`, `profile` and `study` hold the results, each None before; `chosen` is the plan, or an error. Raises
    `UnknownOptimizerError`, `BudgetError` and `ConfigurationError` at once for arguments that cannot be meant.
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
        progress: bool = True,
        watch: bool = False,
        risk: float = RISK,
        compare: Compare = "steps",
        artifacts: str | os.PathLike[str] | ArtifactStore | None = None,
        copies: Literal["auto", "beside", "host", "disk"] = "auto",
        on_mismatch: str = "error",
    ) -> None:
        _one_of("mode", mode, ("min", "max"))
        _one_of("on_mismatch", on_mismatch, ("error", "search"))
        _one_of("copies", copies, ("auto", "beside", "host", "disk"))
        if not isinstance(fine_tuning, FineTuning):
            _one_of("fine_tuning", fine_tuning, ("auto", True, False))
        self._settings = Settings(
            budget=budget,
            candidates=candidates,
            rules=rules,
            storage=storage,
            study_name=study_name,
            seed=seed,
            fine_tuning=fine_tuning,
            risk=risk,
            compare=compare,
            artifacts=artifacts,
        )
        self.monitor = monitor
        self.mode: Mode = mode
        self.report = report
        self.progress = progress
        self.watch = watch
        self.copies = copies
        self.on_mismatch = on_mismatch
        self.profile: Profile | None = None
        self.study: optuna.Study | None = None
        self.plan_path: Path | None = None
        self._run: Run | None = None
        self.report_path: Path | None = None
        self._given = plan if plan is None or isinstance(plan, OptimizerPlan) else OptimizerPlan.load(plan)
        self._plan: OptimizerPlan | None = None
        self._letter = Letter()
        self._trial_study: TrialStudy | None = None
        self._fit = FitState()

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

    @property
    def chosen(self) -> OptimizerPlan:
        """The plan, where there is one for sure. Raises `PlanError` where nothing was chosen, or not yet."""
        if self.plan is None:
            raise PlanError(
                "there is no plan: nothing was chosen yet, or nothing could be searched for, which a warning tells; "
                "fit first"
            )
        return self.plan

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        # Lightning refuses a module without configure_optimizers before it calls any hook. The one thing
        # it does to callbacks earlier is this assignment, the same in all versions from 2.0 to 2.6.
        if name == "log" and hasattr(value, "__self__"):
            module = value.__self__
            if module._trainer is not None and module.trainer.state.fn == "fit":
                check_unmixed(module.trainer, module.trainer.fit_loop._data_source.instance, "the data source")
                self.attach(module)

    def attach(self, module: pl.LightningModule) -> None:
        """Provide `configure_optimizers` to `module`; fitting does so by itself."""
        attachment = self._fit.attachment
        if attachment is not None and attachment.module is module:
            return
        self.detach()
        attachment = Attachment(module)
        attachment.provide("configure_optimizers", _configure_optimizers, self)
        attachment.provide("on_load_checkpoint", load_by_own_names, self)
        self._fit = FitState(attachment=attachment)

    def detach(self) -> None:
        """Take what `attach` provided off the module again."""
        self._fit = self._fit.end()

    # --- the choice -------------------------------------------------------------------------------

    def optimizers_for(self, module: pl.LightningModule) -> Any:
        """Return the chosen optimizer and scheduler as `configure_optimizers` does, in Lightning's form."""
        trainer: Any = module.trainer
        request = self._request(module)
        self._fit.configured = True
        steps_done = 0
        try:
            if (before := request.continuation()) is not None:
                self.plan, configured = request.configure_like(before)
                return configured
        except OptselectError as error:
            if self.on_mismatch == "error" or trainer.strategy.restore_checkpoint_after_setup:
                raise
            self.plan, steps_done = None, forget_optimizers(trainer)
            _log.warning("a new optimizer goes on from the weights in %s: %s", trainer.ckpt_path, error)
        self.plan = request.plan_at_hand(self.plan) or self._searched(request, steps_done)
        return request.configure_anew(self.plan, steps_done)

    def _request(self, module: pl.LightningModule) -> FitRequest:
        attachment = self._fit.attachment
        return FitRequest(
            trainer=module.trainer,
            module=module,
            user=attachment.users_own("configure_optimizers") if attachment is not None else None,
            fit=self._fit,
            given=self._given,
            on_mismatch=self.on_mismatch,
            settings=self._settings,
            monitor=self.monitor,
            mode=self.mode,
            copies=self.copies,
            state_key=self.state_key,
            announce=lambda plan: self._write(module.trainer, module, plan),
            progress=self.progress,
        )

    def _searched(self, request: FitRequest, steps_done: int) -> OptimizerPlan | None:
        selection = request.search(steps_done)
        if selection is None:
            return None
        self.profile = selection.profile
        self._trial_study = selection.study
        self.study = selection.study.study if selection.study else None
        return selection.plan

    def _write(self, trainer: pl.Trainer, module: pl.LightningModule, plan: OptimizerPlan) -> None:
        folder = run_folder(trainer)
        self.plan_path = Path(folder) / PLAN_FILE
        if trainer.is_global_zero:
            write_plan(plan, folder)
            self._letter.write(trainer, plan, self.plan_path)
            if self.report:
                self._run = run_of(trainer, module, folder)
                self.report_path = write_page(plan, folder, self._run) or self.report_path

    # --- the fit ----------------------------------------------------------------------------------

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse a folder in place of a checkpoint, before Lightning fails to open it."""
        if stage == "fit":
            check_folder(trainer)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell the loggers; continue the random numbers of the checkpoint, which Lightning does not restore."""
        self._fit.built.optimizers = trainer.optimizers
        if self._fit.attachment is not None and any(map(has_modes, self._chosen(trainer))):
            # Through the module: its hook comes after those of all callbacks, for checkpoints of weights alone, too.
            self._fit.attachment.provide("on_save_checkpoint", save_evaluated, self._chosen)
        if self.plan is not None:
            files = [path for path in (self.plan_path, self.report_path) if path is not None]
            tell_loggers(trainer, pl_module, self.plan, files if self.report else [])
        self._fit.random.on_fit_start(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the plan beside the checkpoints, too: from now on there may be some."""
        self._fit.random.on_train_start(trainer, trainer.ckpt_path)
        if self._chosen(trainer):
            self._fit.watch.begin(trainer, pl_module, self._fit.built.scheduler)
        if self.watch:
            self._fit.watching = Watching(rows=rows_of_a_step(trainer, self.profile))
        self._fit.time_up.begin(trainer, pl_module, self._fit.built.ends_at)
        if self.plan is not None and trainer.is_global_zero:
            write_sidecars(self.plan, checkpoint_folders(trainer))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Continue the random numbers of the checkpoint in the epoch that begins."""
        self._fit.random.on_train_epoch_start(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Switch schedule-free optimizers to training mode, in which they step."""
        self._fit.watch.look(trainer, pl_module, epoch_ends=False)
        to_training(self._chosen(trainer))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batches that are None, with which the schedule moves, too; end a training whose time is up."""
        if batch is None:
            self._fit.watch.skip(trainer, pl_module)
        if self._fit.watching is not None:
            self._fit.watching.after_step(trainer)
        self._fit.time_up.look(trainer, pl_module)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Look at the gradients, where that was asked for."""
        if self._fit.watching is not None:
            self._fit.watching.before_step(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Switch schedule-free weights to evaluation mode, in which they are judged; the next batch switches back."""
        to_evaluation(self._chosen(trainer))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell the scheduler what the validation gave: parts may join the training when it no longer improves."""
        if self.plan is not None and trainer.state.fn == "fit" and not trainer.sanity_checking:
            observe(trainer, self.plan, self.monitor, self.mode)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Switch to evaluation at each epoch's end, so that a run goes on from there as if it had not ended.

        Switching there and back rounds the weights, so it happens whether the epoch validates or saves, or not. By
        then it shows whether the schedule moves as the plan says.
        """
        self._fit.watch.look(trainer, pl_module, epoch_ends=True)
        to_evaluation(self._chosen(trainer))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the weights that are to be used; a later run of the same training searches anew."""
        to_evaluation(self._chosen(trainer))
        if self._trial_study is not None:
            self._trial_study.mark_used()
        if self.plan is not None and self._run is not None and trainer.is_global_zero:
            write_page(self.plan, self._run.folder, ended(self._run, trainer), anew=True)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the module as it came, with the weights to use."""
        to_evaluation(self._chosen(trainer))
        # teardown is not called when fit raises
        self.detach()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave the module as it came."""
        if stage == "fit":
            self.detach()

    def _chosen(self, trainer: pl.Trainer) -> list[Optimizer]:
        """Return the optimizers built from the plan: a user's own switches its modes itself."""
        return [] if self.plan is None or self.plan.optimizer == USER else trainer.optimizers

    # --- checkpoints ------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the plan (None: nothing was chosen), what was built, its thaws so far, and the random numbers.

        Builtins only.
        """
        return {
            "plan": self.plan.to_dict() if self.plan else None,
            **self._fit.built.to_dict(),
            "rng": rng_state().to_dict(),
        }

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the random numbers of every process."""
        checkpoint["callbacks"][self.state_key]["rng"] = random_states(trainer)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Check a checkpoint that the strategy opens only now, when the optimizer is built already."""
        fit = self._fit
        if fit.configured and trainer.strategy.restore_checkpoint_after_setup and trainer.state.fn == "fit":
            restored = continuation_of(checkpoint, trainer.ckpt_path, self.state_key, readable=False)
            if restored.recorded:
                restored.plan_to_go_on_with(self.plan)
            if not fit.random.pending:
                fit.random.take(restored.rng, trainer)

    # --- copies -----------------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> AutoOptimizer:
        # Lightning's WeightAveraging copies the module, and with it what attach() put on it.
        return self

    def __getstate__(self) -> dict[str, Any]:
        own = {name: value for name, value in vars(self).items() if name not in ("log", "log_dict")}
        # Studies hold open files; a spawned process opens its own, and its fit is another.
        return {**own, "_plan": self.plan, "_fit": FitState(), "study": None, "_trial_study": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


def _configure_optimizers(callback: AutoOptimizer, module: pl.LightningModule, *_: Any) -> Any:
    return callback.optimizers_for(module)


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ConfigurationError(f"{name} is one of {', '.join(map(repr, allowed))}, but got {value!r}")
