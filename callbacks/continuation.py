"""What a fit goes on from: the plan in a checkpoint, or in the side-car that lies beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from optselect.callbacks.entry import (
    Entry,
    are_implementations,
    are_names,
    are_random_numbers,
    are_states,
    is_count,
    is_mapping,
)
from optselect.callbacks.frames import active_frames
from optselect.callbacks.lightning_names import Lightning
from optselect.callbacks.other_callbacks import is_named
from optselect.callbacks.outputs import PLAN_FILE, sidecars_of
from optselect.errors import OptselectError, PlanFormatError, ResumeError
from optselect.optim.implementation import (
    Implementation,
    implementations,
    other_classes,
    other_groups,
    other_settings,
    other_versions,
)
from optselect.plan import OptimizerPlan
from optselect.plan.reading import checkpoint_skeleton
from optselect.plan.stored import SHARDED, beside_shards, plan_in


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """What the checkpoint that a fit goes on from says about its optimizer.

    path          of the checkpoint
    steps         optimizer steps behind it
    recorded      whether the callback was there when it was written, or a side-car stands in for that
    plan          what was trained with (None, and recorded: the run had fallen back to its own optimizer)
    optimizers    the classes it was built of (None: not recorded)
    schedulers    the classes of their schedulers (None: not recorded)
    states        of its optimizers (None: only the strategy can read them)
    thawed        how many of the plan's thaws are behind it
    ends_at       the step at which its training ends before the trainer's own end (None: not recorded)
    rng           where the random number generators stood, as `randomness.random_states` has it (None: not recorded)
    weights_only  whether it holds no optimizer state at all
    """

    path: str
    steps: int = 0
    recorded: bool = False
    plan: OptimizerPlan | None = None
    optimizers: tuple[Implementation, ...] | None = None
    schedulers: tuple[str, ...] | None = None
    states: tuple[Mapping[str, Any], ...] | None = None
    thawed: int = 0
    ends_at: int | None = None
    rng: Mapping[str, Any] | None = None
    weights_only: bool = False

    @property
    def is_a_beginning(self) -> bool:
        """Whether nothing was decided or trained yet when it was written, as in one of `Tuner.lr_find`."""
        return self.recorded and self.plan is None and self.steps == 0

    def plan_to_go_on_with(self, given: OptimizerPlan | None) -> OptimizerPlan | None:
        """Return the checkpoint's plan, or the one given for it; None: its run had fallen back to its own optimizer.

        Raises `ResumeError` when there is none, and when the two build different optimizers.
        """
        found = next((path for path in sidecars_of(self.path) if Path(path).exists()), None)
        that = f"that run's {PLAN_FILE} ({found} may be it)" if found else f"that run's {PLAN_FILE}"
        if self.weights_only:
            raise ResumeError(
                f"the checkpoint {self.path} holds weights and no optimizer state, so its run cannot be continued; "
                f"load the weights with load_from_checkpoint and fit with plan= and {that} but without ckpt_path, or "
                "pass on_mismatch='search' to go on from these weights with a new optimizer"
            )
        if not self.recorded and given is None:
            raise ResumeError(
                f"the checkpoint {self.path} holds no optimizer plan, so it cannot be continued with its optimizer; "
                f"pass plan= with {that}, or on_mismatch='search' to choose anew"
            )
        if self.recorded and given is not None and (self.plan is None or not build_the_same(self.plan, given)):
            before = self.plan.configuration.describe() if self.plan else "the module's own optimizer"
            raise ResumeError(
                f"the checkpoint {self.path} was trained with {before}, and plan= asks for "
                f"{given.configuration.describe()} (or for other groups or another length); leave plan= out to go on "
                "as before, or pass on_mismatch='search' to go on from its weights with the plan given"
            )
        return given if given is not None else self.plan

    def check_built(self, optimizers: Sequence[Optimizer], schedulers: Sequence[str], *, asked_for: bool) -> None:
        """Raise `ResumeError` unless the checkpoint's state belongs to these optimizers and classes of schedulers.

        `asked_for`: the plan was given by hand, so another version of the same class is as it was meant.
        """
        now = implementations(optimizers)
        why = ""
        if self.optimizers is not None:
            why = other_classes(self.optimizers, now)
            if not why and not asked_for and (newer := other_versions(self.optimizers, now)):
                raise ResumeError(
                    f"the checkpoint {self.path} was trained by another version of its optimizer: {newer}; install "
                    f"that version again, or pass plan= with that run's {PLAN_FILE} to go on with the one installed"
                )
        if not why and self.states is not None:
            # Of a recorded class no setting is compared: its steps may add some.
            looks = (other_groups,) if self.optimizers is not None else (other_groups, other_settings)
            if len(self.states) != len(optimizers):
                why = f"{len(self.states)} optimizers then, {len(optimizers)} now"
            else:
                pairs = list(zip(self.states, optimizers, strict=True))
                why = next((found for look in looks for pair in pairs if (found := look(*pair))), "")
        if not why and self.schedulers is not None and self.schedulers != tuple(schedulers):
            why = f"scheduled by {_listed(self.schedulers)} then, by {_listed(schedulers)} now"
        if why:
            raise ResumeError(
                f"the optimizer state in the checkpoint {self.path} is not one of the optimizer to go on with: {why}; "
                "go on with the optimizer of that run, or pass on_mismatch='search' to choose anew from its weights"
            )


def continuation(trainer: Any, state_key: str, given: OptimizerPlan | None) -> Continuation | None:
    """Find what the fit that `trainer` is about to run goes on from; None: it starts from the beginning.

    For use inside `configure_optimizers`. Where no plan is given and the checkpoint cannot be opened yet, a
    side-car stands in for it. Raises `PlanVersionError` and `PlanFormatError` for a plan that cannot be read.
    """
    if not trainer.strategy.restore_checkpoint_after_setup:
        checkpoint = trainer._checkpoint_connector._loaded_checkpoint
        return continuation_of(checkpoint, trainer.ckpt_path, state_key) if checkpoint else None
    path = _checkpoint_asked_for(trainer)
    if not path:
        return None
    # One process reads, and all do what it says: the others may not even see the file.
    found: Continuation | OptselectError | None = None
    if trainer.is_global_zero:
        try:
            found = _read_early(str(path), state_key, given)
        except OptselectError as error:
            found = error
    found = trainer.strategy.broadcast(found)
    if isinstance(found, OptselectError):
        raise found
    return found


def check_folder(trainer: Any) -> None:
    """Raise `ResumeError` where the checkpoint asked for is a folder that the trainer's strategy does not read.

    For use in `setup`. A strategy, or a checkpoint plug-in, of another kind may read folders of its own.
    """
    path = _checkpoint_asked_for(trainer)
    if not path or "://" in str(path) or not (folder := Path(path)).is_dir():
        return
    strategy = trainer.strategy
    found = beside_shards(folder)
    kind = "none" if found is None else "torch" if found.name == SHARDED else "DeepSpeed"
    if is_named(strategy, "FSDPStrategy", "ModelParallelStrategy"):
        reads = "torch"
    elif is_named(strategy, "DeepSpeedStrategy"):
        reads = "DeepSpeed"
    elif not strategy.restore_checkpoint_after_setup and is_named(strategy.checkpoint_io, "TorchCheckpointIO"):
        reads = "files"
    else:
        return
    if kind == reads:
        return
    name = type(strategy).__name__
    if kind == "none":
        inside = max(folder.glob("*.ckpt"), key=lambda file: file.stat().st_mtime, default=None)
        pass_on = f"pass {inside}" if inside else "check the path given as ckpt_path"
        raise ResumeError(f"the folder {path} is no checkpoint: neither {SHARDED} nor shards of DeepSpeed; {pass_on}")
    whose = "FSDPStrategy or ModelParallelStrategy" if kind == "torch" else "DeepSpeedStrategy"
    join = (
        f" (one of FSDPStrategy can be joined to a file for it: python -m "
        f"lightning.pytorch.utilities.consolidate_checkpoint {path})"
        if (kind, reads) == ("torch", "files")
        else ""
    )
    raise ResumeError(
        f"the folder {path} is a distributed checkpoint of {whose}, which {name} does not read; train with the "
        f"strategy that wrote it{join}"
    )


def forget_optimizers(trainer: Any) -> int:
    """Let Lightning restore weights and counters out of the checkpoint, and no optimizer or scheduler state.

    Returns the optimizer steps that the checkpoint has behind it.
    """
    checkpoint = trainer._checkpoint_connector._loaded_checkpoint
    checkpoint["optimizer_states"] = []
    checkpoint["lr_schedulers"] = []
    return int(checkpoint.get("global_step", 0))


def optimizers_in(configured: Any, lightning: Lightning) -> list[Optimizer]:
    """List the optimizers in what `configure_optimizers` returned, in whichever of Lightning's forms."""
    return [] if configured is None else list(lightning._configure_optimizers(configured)[0])


def schedulers_in(configured: Any, lightning: Lightning) -> list[str]:
    """Name the classes of the schedulers in what `configure_optimizers` returned."""
    if configured is None:
        return []
    _, schedulers, _ = lightning._configure_optimizers(configured)
    return [type(each.get("scheduler") if isinstance(each, dict) else each).__qualname__ for each in schedulers]


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names) or "none"


def build_the_same(one: OptimizerPlan, other: OptimizerPlan) -> bool:
    """Tell whether the two plans build the same optimizer and schedule, whatever their reasons."""
    return _what_is_built(one) == _what_is_built(other)


def _what_is_built(plan: OptimizerPlan) -> tuple[object, ...]:
    return plan.optimizer, plan.hyperparameters, plan.param_groups, plan.schedule, plan.total_steps, plan.compare


# --- reading --------------------------------------------------------------------------------------


def continuation_of(checkpoint: Mapping[str, Any], path: Any, state_key: str, *, readable: bool = True) -> Continuation:
    """Read what `checkpoint` says; its optimizer states are compared where they are `readable`."""
    entry = Entry(path=str(path), what="the checkpoint", data=checkpoint)
    states = entry.get("optimizer_states", are_states, "a list of states with groups") if readable else None
    found = Continuation(
        path=str(path),
        steps=entry.get("global_step", is_count, "a whole number") or 0,
        states=tuple(states) if states is not None else None,
        weights_only=readable and states is None,
    )
    callbacks = entry.get("callbacks", is_mapping, "a mapping")
    if callbacks is None or callbacks.get(state_key) is None:
        return found
    own = Entry(path=str(path), what=f"{state_key} in the checkpoint", data=callbacks[state_key])
    if "plan" not in own.data:
        raise own.refused("plan", "missing", "a plan, or null")
    optimizers = own.get("optimizers", are_implementations, "a list of classes with package and version")
    schedulers = own.get("schedulers", are_names, "a list of names")
    return replace(
        found,
        recorded=True,
        plan=plan_in(own.data),
        optimizers=tuple(optimizers) if optimizers is not None else None,
        schedulers=tuple(schedulers) if schedulers is not None else None,
        # Those written before there were any lack it.
        thawed=own.get("thawed", is_count, "a whole number") or 0,
        ends_at=own.get("ends_at", is_count, "a whole number"),
        rng=own.get("rng", are_random_numbers, "the states of random number generators", needed=True),
    )


def _checkpoint_asked_for(trainer: Any) -> Any:
    """Find the checkpoint a fit will go on from, before Lightning has opened it.

    A strategy that shards the model opens it only when the optimizer is there. Until then no object knows its
    path, only the call of `Trainer._run` that is under way.
    """
    runs = (call.f_locals for call in active_frames() if call.f_code.co_name == "_run")
    return next((own.get("ckpt_path") for own in runs if own.get("self") is trainer), None)


def _read_early(path: str, state_key: str, given: OptimizerPlan | None) -> Continuation:
    """Read the checkpoint, where that can be done without the strategy; else a side-car."""
    file = Path(path)
    if "://" not in path and not file.exists():
        raise ResumeError(f"there is no checkpoint at {path}; check the path given as ckpt_path")
    try:
        # A folder of a format that is not known cannot be read as a file.
        checkpoint = checkpoint_skeleton((beside_shards(file) if file.is_dir() else None) or file)
    except (OSError, ResumeError):  # a format of the strategy's own; the side-car is there for it
        for sidecar in [] if given else sidecars_of(path):
            try:
                return Continuation(path=path, recorded=True, plan=OptimizerPlan.load(sidecar))
            except PlanFormatError:
                continue
        return Continuation(path=path)
    return continuation_of(checkpoint, path, state_key, readable=False)
