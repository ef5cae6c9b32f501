"""What moves a schedule in Lightning: its loop, the module, or nobody; and a watch over the one that trains."""

from __future__ import annotations

import inspect
import types
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optselect.callbacks.lightning_names import lightning_of
from optselect.callbacks.other_callbacks import is_named
from optselect.configuration.schedule import Schedule
from optselect.optim.scheduler import ScheduledLR

if TYPE_CHECKING:
    import lightning.pytorch as pl

# What a module finds its schedulers by.
_LOOKS_UP = frozenset({"lr_schedulers", "lr_scheduler_configs"})
# What it sets their rates by.
_SETS_RATES = frozenset({"param_groups"})
# An override is asked for so many steps: whatever it does once an epoch shows where epochs are as short as that.
_ASKED_STEPS = 100
# The schedule of a training is looked at after so many steps, or at the end of its first epoch.
_LOOKED_AT_AFTER = 100
# Some modules leave out a step now and then, after a loss that is not finite.
_MISSED = 0.05


class ScheduleWarning(UserWarning):
    """The learning rate of the training does not move as its plan says."""


def standing_still(optimizer: Optimizer) -> LRScheduler:
    """Make a scheduler that never changes a rate, for a module that steps one by itself."""
    return ScheduledLR(optimizer, Schedule(), None)


def looks_schedulers_up(module: pl.LightningModule) -> bool:
    """Tell whether the code of the module's classes asks for its schedulers, and so may break where there is none."""
    return _mentions(module, _LOOKS_UP)


def _mentions(module: pl.LightningModule, names: frozenset[str]) -> bool:
    """Tell whether the code of the module's classes, without Lightning's own, uses one of these attributes."""
    return any(
        not names.isdisjoint(code.co_names)
        for kind in type(module).__mro__
        if not kind.__module__.startswith(("lightning.", "pytorch_lightning."))
        for function in vars(kind).values()
        if (plain := getattr(function, "__func__", function)) and inspect.isfunction(plain)
        for code in _codes(plain.__code__)
    )


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


@dataclass(kw_only=True)
class ModulesMoves:
    """How often the module itself has stepped a scheduler, over so many passes of a profile."""

    count: int = 0
    passes: int = 0


def obstacle_to_scheduling(
    module: pl.LightningModule, callbacks: Iterable[Any], moves: ModulesMoves, override: str | None
) -> str | None:
    """Say why a schedule would not move once a step, or once a batch in manual optimization; None: it would.

    `moves` are the module's own over some passes; `override` is what speaks against its `lr_scheduler_step`.
    """
    if any(is_named(callback, "FinetuningScheduler") for callback in callbacks):
        return "FinetuningScheduler takes no scheduler but those of torch's own classes"
    if not module.automatic_optimization:
        if moves.count == moves.passes:
            return None
        did = f"did so {moves.count} times in {moves.passes} batches" if moves.count else "does not"
        return (
            f"in manual optimization the module itself would have to step its scheduler with each batch, and it {did}"
        )
    if moves.count:
        return (
            f"the module steps its scheduler itself ({moves.count} times in {moves.passes} batches), beside Lightning"
        )
    return override


def obstacle_in_override(trainer: Any, scheduler: LRScheduler) -> str | None:
    """Ask the module's `lr_scheduler_step` for some steps, as the loop would; what speaks against it, or None.

    The trainer's counters go on meanwhile.
    """
    fit_loop = trainer.fit_loop
    epoch = max(int(min(fit_loop.max_batches, _ASKED_STEPS)) // trainer.accumulate_grad_batches, 1)
    loop = fit_loop.epoch_loop
    for step in range(1, _ASKED_STEPS + 1):
        loop.batch_progress.increment_by(trainer.accumulate_grad_batches, is_last_batch=step % epoch == 0)
        loop.automatic_optimization.optim_progress.optimizer.step.increment_ready()
        loop.automatic_optimization.optim_progress.optimizer.step.increment_completed()
        loop._batches_that_stepped += 1
        try:
            lightning_of(trainer)._call_lightning_module_hook(trainer, "lr_scheduler_step", scheduler, None)
        except Exception as error:  # noqa: BLE001  # whatever it wants of a scheduler that ours has not
            return (
                f"the module's lr_scheduler_step takes no scheduler of torch's kind ({type(error).__name__}: {error})"
            )
        if scheduler.last_epoch != step:
            return f"the module's lr_scheduler_step stepped it {scheduler.last_epoch} times in {step} steps"
        if step % epoch == 0:
            fit_loop.epoch_progress.increment_by(1)
    return None


@dataclass(frozen=True, kw_only=True)
class _Watched:
    """What is watched, and where it stood at the beginning."""

    scheduler: ScheduledLR | None
    all_schedulers: list[Any]
    rates: list[float]
    moved: int
    steps: int
    epoch: int
    exact: bool


class ScheduleWatch:
    """Compares at each end of an epoch a training's rates and schedule with what they should be; warns once."""

    def __init__(self) -> None:
        self._watched: _Watched | None = None
        self._skipped = 0

    def begin(self, trainer: Any, module: pl.LightningModule, scheduler: object) -> None:
        """Watch the optimizer of a plan, and its `scheduler`, if that moves any rate."""
        self._skipped = 0
        ours = scheduler if isinstance(scheduler, ScheduledLR) else None
        if ours is not None and not (ours.schedule.needs_length or ours.schedule.warmup_steps):
            ours = None
        self._watched = _Watched(
            scheduler=ours,
            all_schedulers=_schedulers(trainer),
            rates=_rates(trainer),
            moved=ours.last_epoch if ours is not None else 0,
            steps=_steps(trainer, module),
            epoch=trainer.current_epoch,
            # Where a module ends an epoch early, Lightning steps the schedule once more.
            exact=module.automatic_optimization
            and not lightning_of(trainer).is_overridden("on_train_batch_start", module),
        )

    def skip(self, trainer: Any, module: pl.LightningModule) -> None:
        """Count a batch that is None: Lightning moves a schedule as if it had been a step of the optimizer."""
        if module.automatic_optimization and not trainer.fit_loop.epoch_loop._should_accumulate():
            self._skipped += 1

    def look(self, trainer: Any, module: pl.LightningModule, *, epoch_ends: bool) -> None:
        """Warn where they are elsewhere, as soon as there is enough to see."""
        if (watched := self._watched) is None:
            return
        steps = _steps(trainer, module) - watched.steps + self._skipped
        if not steps or (steps != _LOOKED_AT_AFTER and not epoch_ends):
            return
        if _schedulers(trainer) != watched.all_schedulers:
            self._watched = None  # another callback has brought its own
            return
        scheduler, rates = watched.scheduler, watched.rates
        if scheduler is not None:
            moved = scheduler.last_epoch - watched.moved
            epochs = trainer.current_epoch - watched.epoch + 1
            if abs(moved - steps) > (0 if watched.exact else _MISSED * steps + epochs):
                unit = "steps" if module.automatic_optimization else "batches"
                self._warn(
                    f"its schedule ({scheduler.schedule.describe()}) has moved {moved} times in {steps} {unit}. Leave "
                    "it to Lightning (in manual optimization call self.lr_schedulers().step() with each batch), or "
                    "search anew without plan="
                )
                return
            rates = [float(rate) for rate in scheduler.get_last_lr()]
        # Groups that joined since are not compared, and what the module itself does it has done in trials, too.
        if not _mentions(module, _SETS_RATES) and any(
            now != planned for now, planned in zip(_rates(trainer), rates, strict=False)
        ):
            self._warn("something beside the plan changes it. Let one of the two go")

    def _warn(self, what: str) -> None:
        self._watched = None
        warnings.warn(f"the learning rate is not what the plan says: {what}.", ScheduleWarning, stacklevel=3)


def _schedulers(trainer: Any) -> list[Any]:
    return [config.scheduler for config in trainer.lr_scheduler_configs]


def _rates(trainer: Any) -> list[float]:
    return [float(group["lr"]) for optimizer in trainer.optimizers for group in optimizer.param_groups if "lr" in group]


def _steps(trainer: Any, module: pl.LightningModule) -> int:
    """Count how often a schedule should have moved: in manual optimization it is laid out for a step each batch."""
    if module.automatic_optimization:
        return int(trainer.global_step)
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.completed)
