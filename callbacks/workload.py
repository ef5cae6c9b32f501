"""A Lightning training as a `Workload`: trials in place, driven through Lightning's own optimization loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optselect.callbacks.averages import is_averaged_in_trials, trial_averages
from optselect.callbacks.borrowing import KEPT_ATTRIBUTES, trainer_borrowed
from optselect.callbacks.counters import (
    Progress,
    fresh_progress,
    progress_of,
    restore_progress,
    set_progress,
    stored_progress,
)
from optselect.callbacks.data import TrialData
from optselect.callbacks.fit_facts import refuse_unsearchable, steps_to_come, trainer_facts, users_optimizers
from optselect.callbacks.judging import Judge
from optselect.callbacks.lightning_names import check_unmixed, lightning_of
from optselect.callbacks.loop import LightningTraining, TrialLoop
from optselect.callbacks.muting import logging_replaced
from optselect.callbacks.other_callbacks import averages_weights, keeps_best
from optselect.callbacks.schedules import (
    ModulesMoves,
    looks_schedulers_up,
    obstacle_in_override,
    obstacle_to_scheduling,
    standing_still,
)
from optselect.callbacks.sharding import trained_model
from optselect.callbacks.thawing import obstacle_to_thawing
from optselect.configuration.evaluation import Evaluation
from optselect.configuration.goal import Mode
from optselect.configuration.own_optimizer import OwnOptimizer
from optselect.errors import UnsupportedModuleError
from optselect.optim.modes import to_training
from optselect.optim.rescaling import scaled
from optselect.parameters.compilation import compilations_forgotten
from optselect.parameters.sharding import is_cut, local
from optselect.study.identity import Identity
from optselect.workload.borrowed_model import BorrowedModel, training_bytes
from optselect.workload.class_state import classes_restored
from optselect.workload.identity import model_identity, optimizer_facts, plain
from optselect.workload.own_optimizer import own_optimizer_of
from optselect.workload.protocol import UNSCALED, Build, DataSource
from optselect.workload.rng import rng_isolated, seed_rng
from optselect.workload.room import Free, Room, free_for, room_for
from optselect.workload.shelf import BESIDE, Place, ShelvedStates
from optselect.workload.stopwatch import Stopwatch
from optselect.workload.training import Paused

if TYPE_CHECKING:
    import lightning.pytorch as pl

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class _Borrowed:
    """What trials work on: the model, the loop, and the loop's counters as they stood before."""

    model: BorrowedModel
    loop: TrialLoop
    progress: Progress


class LightningWorkload:
    """The training that `trainer` is about to run on `module`.

    It lives inside `Trainer.fit`, where `configure_optimizers` is called: the device, `setup()` and loaded
    weights are all there by then. `user` is the module's own `configure_optimizers`, if it has one;
    `steps_done` are the optimizer steps in a checkpoint whose counters Lightning restores only later; `copies` is where
    the parts of a model that is cut over processes are to be put aside (None: wherever there is room). Raises
    `UnsupportedModuleError` in `borrowed()`, before anything is changed, for a module that cannot be
    searched in place.
    """

    # Known from the first `borrowed()` on.
    _data: TrialData

    def __init__(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        *,
        user: Callable[[], Any] | None = None,
        monitor: str | None = None,
        mode: Mode = "min",
        steps_done: int = 0,
        copies: Place | None = None,
    ) -> None:
        check_unmixed(trainer, module, "the module")
        self._module = module
        self.model = trained_model(trainer, module)
        self.mode: Mode = mode
        # Much of a trainer is set by its connectors, which type checkers do not see.
        self._trainer = cast(Any, trainer)
        # Those of the fit: while the trainer is borrowed it has others.
        self._callbacks: list[Any] = list(self._trainer.callbacks)
        self._user = user
        self.own_optimizer: OwnOptimizer | None = None
        self._own_facts: Any = None
        self._judge = Judge(trainer, module, monitor=monitor, mode=mode, callbacks=self._callbacks)
        self._steps_done = steps_done
        self.room: Room | None = None
        self._copies = copies
        self._moves = ModulesMoves()
        self._override: str | None = None
        self._looks_up = looks_schedulers_up(module)
        self._steps: int | None = None
        self._borrowed: _Borrowed | None = None

    @property
    def steps(self) -> int | None:
        """Optimizer steps to come, where Lightning's own estimate is true; else None.

        It is not for streams without `max_steps`, for `max_time`, and for an accumulation that changes.
        Known inside `borrowed()` and after it.
        """
        return self._steps

    @property
    def processes(self) -> int:
        """The trainer's world size."""
        return int(self._trainer.world_size)

    @property
    def accumulate(self) -> int:
        """The trainer's `accumulate_grad_batches`."""
        return int(self._trainer.accumulate_grad_batches)

    @property
    def monitor(self) -> str:
        """The logged name trials are judged by, or what it is in words. Known inside `borrowed()` and after it."""
        return self._judge.judged.name

    @property
    def validation_batches(self) -> int:
        """Those of the validation loaders, up to a bound, or held back; and those BatchNorm takes."""
        return self._judge.validation_batches(self._in_trial.loop)

    @property
    def has_user_optimizer(self) -> bool:
        """Whether the module has a `configure_optimizers` of its own."""
        return self._user is not None

    @property
    def obstacle_to_thawing(self) -> str | None:
        """Manual optimization, a module that DDP has wrapped already, and whatever keeps a schedule from moving."""
        return obstacle_to_thawing(self._trainer, self._module) or self.obstacle_to_scheduling

    @property
    def obstacle_to_scheduling(self) -> str | None:
        """What moves a scheduler here otherwise than once a step; known when the profile is."""
        return obstacle_to_scheduling(self._module, self._callbacks, self._moves, self._override)

    @property
    def caveats(self) -> tuple[str, ...]:
        """Averages of the weights that another callback brings in, and trials cannot have."""
        others = [callback for callback in self._callbacks if not is_averaged_in_trials(callback)]
        return tuple(said for callback in others if (said := averages_weights(callback)) is not None)

    @property
    def keeps_best(self) -> bool:
        """Whether an EarlyStopping or a ModelCheckpoint watches what trials are judged by."""
        return any(keeps_best(callback, self.monitor, self.mode) for callback in self._callbacks)

    @property
    def identity(self) -> Identity:
        """Of the module and its hyperparameters, the data, the length, the trainer and the user's own optimizer."""
        facts = {
            "length": (self.steps, self._data.epoch_batches),
            "judgement": (self.monitor, self.mode, self.validation_batches, self.keeps_best),
            "own optimizer": self._own_facts,
            "hyperparameters": plain(getattr(self._module, "hparams", {})),
            "trainer": trainer_facts(self._trainer, self._callbacks),
        }
        return model_identity(self.model).joined(facts).merged(self._data.identity())

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Leave module, trainer, loaders, data and random numbers as they came."""
        if self._borrowed is not None:
            yield
            return
        trainer, module = self._trainer, self._module
        refuse_unsearchable(trainer, module)
        with ExitStack() as stack:
            stack.callback(self._replay_streams)
            stack.enter_context(compilations_forgotten())
            stack.enter_context(rng_isolated())
            stack.enter_context(classes_restored(module.modules()))
            loggers = list(trainer.loggers)
            stack.enter_context(trainer_borrowed(trainer))
            pinned = [trainer, trainer.strategy, *trainer.loggers, *self._callbacks]
            silent = dict(zip(map(id, loggers), trainer.loggers, strict=True))
            pinned += [trainer.datamodule] if trainer.datamodule is not None else []
            self.room = self._found_room()
            shelf, aside = (BESIDE, BESIDE) if self.room is None else (self.room.shelf, self.room.aside)
            watch = Stopwatch(self.model)
            with watch.over(1):
                model = BorrowedModel(
                    self.model, pinned=pinned, instead=silent, kept=KEPT_ATTRIBUTES, shelf=shelf, aside=aside
                )
            stack.callback(self._give_back, model)
            self.room = None if self.room is None else replace(self.room, seconds=watch.pace)
            progress = progress_of(trainer)
            model.begin()
            self._data = TrialData(trainer, stack)
            # Lightning's estimate asks the trainer for the loader, which by now is the unopened one.
            self._steps = steps_to_come(trainer, self._callbacks, self._steps_done)
            stack.enter_context(logging_replaced(module, self._judge.log))
            self._override = self._look_at_override(model, progress)
            self._borrowed = self._trials_of(model, progress)
            self._look_at_user_optimizer(model)
            self._decide_what_to_judge_by(self._borrowed)
            yield

    def source(self) -> DataSource:
        """Return the training loader's data set, or its first batches when it has none that can be indexed."""
        return self._data.source()

    def backward(self, batch: Any) -> float:
        """Run one forward and backward pass through Lightning and the module's hooks, into `.grad`."""
        loop = self._in_trial.loop
        if not loop.has_begun:
            self.begin(_idle, 0)
        loss = loop.backward(batch)
        moved = loop.training.torch_schedulers()[0].last_epoch
        self._moves = ModulesMoves(count=moved, passes=self._moves.passes + 1)
        return loss

    def begin(self, build: Build | None, seed: int, scales: Mapping[str, float] = UNSCALED) -> None:
        """Start from the borrowed weights, counters, attributes; None: with the user's own optimizer, at `scales`."""
        self._prepare(build, seed, scales)
        self._in_trial.loop.start()

    def _prepare(self, build: Build | None, seed: int, scales: Mapping[str, float]) -> None:
        trial = self._in_trial
        self._free_states(trial.loop)
        trial.model.begin()
        fresh_progress(trial.progress)
        self._trainer.should_stop = False
        seed_rng(seed)
        self._data.batches.of(seed)  # now: a training that is restored goes on with other random numbers
        if build is None:
            optimizers, schedulers = scaled(users_optimizers(self._module, self._user), **scales)
        else:
            optimizer, scheduler = build(self.model)
            if scheduler is None and self._looks_up:
                scheduler = standing_still(optimizer)
            optimizers = [optimizer]
            config = lightning_of(self._trainer).LRSchedulerConfig
            schedulers = [config(scheduler, interval="step")] if scheduler is not None else []
        to_training(optimizers)
        averages = trial_averages(self._callbacks, self._module)
        trial.loop.attach(LightningTraining(optimizers=optimizers, schedulers=schedulers, seed=seed, averages=averages))

    def train(self, micro_batches: int) -> Sequence[float | None]:
        """Go on batch by batch, as Lightning's training epoch loop does, with the module's own hooks."""
        loop = self._in_trial.loop
        losses = [loop.train_batch() for _ in range(micro_batches)]
        # Read at the end of the stretch, not batch by batch: reading waits for the device.
        return [None if loss is None else float(loss) for loss in losses]

    def validate(self) -> Evaluation:
        """Return the monitored value, reduced by Lightning itself over the validation batches."""
        trial, steps = self._in_trial, self.steps
        left = math.inf if steps is None else steps * self.accumulate - trial.loop.training.position
        return self._judge.evaluation(trial.loop, trial.model, left)

    def pause(self) -> Paused[LightningTraining]:
        """Put optimizers, schedulers, counters and the model's state aside."""
        trial = self._in_trial
        training = trial.loop.training
        training.progress = progress_of(self._trainer)
        if self.room is None:
            return Paused(training=training, model=trial.model.pause())
        if not self._trainer.fit_loop.epoch_loop._should_accumulate():
            # The next step clears them anyway, and they are as large as the weights.
            for parameter in self.model.parameters():
                parameter.grad = None
        states = ShelvedStates.of(training.optimizers, self.room.aside)
        trial.loop.forget()
        return Paused(training=training, model=trial.model.pause(), states=states)

    def resume(self, paused: Paused[LightningTraining]) -> None:
        """Go on with a paused training."""
        trial = self._in_trial
        self._free_states(trial.loop)
        trial.model.resume(paused.model)
        if paused.states is not None:
            paused.states.take_back()
        set_progress(paused.training.progress)
        trial.loop.attach(paused.training)

    def store(self) -> dict[str, Any] | None:
        """Return optimizers, schedulers, counters and the model's state; None for one-shot streams."""
        trial, trainer = self._in_trial, self._trainer
        training = trial.loop.training
        if self._data.replays:
            return None
        if training.averages:
            return None
        stored = training.store(trial.model)
        if stored is None:
            return None
        scaling = {} if training.scaler is None else {"scaler": training.scaler.state_dict()}
        return {**stored, "progress": stored_progress(trainer), "at": [*stored["at"], training.batch_idx], **scaling}

    def restore(self, stored: dict[str, Any], build: Build | None, scales: Mapping[str, float] = UNSCALED) -> None:
        """Go on with what was stored, with optimizers of the same kinds; the hooks at the beginning are behind it."""
        seed, _, batch_idx = stored["at"]
        self._prepare(build, seed, scales)
        trial = self._in_trial
        training = trial.loop.training
        training.restore(trial.model, stored)
        restore_progress(self._trainer, stored["progress"])
        training.batch_idx = batch_idx
        if training.scaler is not None:
            training.scaler.load_state_dict(stored["scaler"])

    def paused_bytes(self) -> int:
        """Count the bytes of weights, buffers and optimizer states, those of the process that has most."""
        own = training_bytes(self.model, self._in_trial.loop.training.optimizers)
        return own if self.room is None else max(self._everywhere(own))

    def _everywhere(self, value: T) -> list[T]:
        """Return what each of the processes says."""
        return [self._trainer.strategy.broadcast(value, rank) for rank in range(self.processes)]

    def _found_room(self) -> Room | None:
        """Find room for copies of a model that is cut over processes, the same on all; None: it is not cut."""
        if not is_cut(self.model):
            return None
        root = str(self._trainer.default_root_dir)
        folder = None if "://" in root else Path(root)
        first = next(self.model.parameters())
        free = free_for(self._trainer.num_devices, local(first).device, folder)
        copy = max(self._everywhere(training_bytes(self.model)))
        return room_for(copy, Free.least(self._everywhere(free)), folder, self._copies)

    def agree(self, value: T) -> T:
        """Return what rank 0 says."""
        agreed: T = self._trainer.strategy.broadcast(value)
        return agreed

    @property
    def _in_trial(self) -> _Borrowed:
        if self._borrowed is None:
            raise UnsupportedModuleError("trials run inside `with workload.borrowed():`, so that everything comes back")
        return self._borrowed

    def _give_back(self, model: BorrowedModel) -> None:
        if self._borrowed is not None:
            self._free_states(self._borrowed.loop)
        model.restore()
        self._borrowed = None

    def _free_states(self, loop: TrialLoop) -> None:
        """Let go of a trial that nobody put aside, where there is little room for two."""
        if self.room is not None:
            loop.drop()

    def _replay_streams(self) -> None:
        if (data := getattr(self, "_data", None)) is not None:
            for loop, source in data.replays:
                loop._data_source = source
            data.replays.clear()

    def _trials_of(self, model: BorrowedModel, progress: Progress) -> _Borrowed:
        loop = TrialLoop(self._trainer, self._module, self._data, self._judge.end_epoch)
        return _Borrowed(model=model, loop=loop, progress=progress)

    def _look_at_override(self, model: BorrowedModel, progress: Progress) -> str | None:
        if (
            not lightning_of(self._trainer).is_overridden("lr_scheduler_step", self._module)
            or not self._module.automatic_optimization
        ):
            return None
        self._borrowed = self._trials_of(model, progress)
        self.begin(_idle, 0)
        (scheduler,) = self._borrowed.loop.training.torch_schedulers()
        obstacle = obstacle_in_override(self._trainer, scheduler)
        model.begin()
        fresh_progress(progress)
        return obstacle

    def _decide_what_to_judge_by(self, trial: _Borrowed) -> None:
        looks = self._judge.looks
        if looks:
            self.begin(_idle, 0)
        self._judge.decide(trial.loop, trial.model)
        self.mode = self._judge.judged.mode
        if looks:
            # What comes next starts from the borrowed model, as without a look.
            trial.loop.forget()
            trial.model.begin()
            fresh_progress(trial.progress)

    def _look_at_user_optimizer(self, model: BorrowedModel) -> None:
        if self._user is not None:
            self.own_optimizer = own_optimizer_of(model, self._only_optimizer)

    def _only_optimizer(self) -> tuple[Optimizer, list[LRScheduler]]:
        optimizers, schedulers = users_optimizers(self._module, self._user)
        if len(optimizers) != 1:
            raise UnsupportedModuleError(
                f"configure_optimizers returns {len(optimizers)} optimizers; a search chooses exactly one"
            )
        steps = [(each.scheduler, each.interval, each.frequency) for each in schedulers]
        self._own_facts = optimizer_facts(optimizers, steps)
        return optimizers[0], [each.scheduler for each in schedulers]


def _idle(module: torch.nn.Module) -> tuple[Optimizer, LRScheduler]:
    """Make an optimizer that moves nothing, for the passes before any choice."""
    optimizer: Any = torch.optim.SGD(module.parameters(), lr=0.0)
    # Or else torch warns of a scheduler that is stepped before it, which these passes do not step.
    optimizer._opt_called = True
    return optimizer, standing_still(optimizer)
