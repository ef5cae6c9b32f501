"""A Lightning training as a `Workload`: trials in place, driven through Lightning's own optimization loop."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, Timer
from lightning.pytorch.core.optimizer import _init_optimizers_and_lr_schedulers
from lightning.pytorch.trainer.connectors.data_connector import _DataLoaderSource
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, IterableDataset

from optselect.batches import BatchCache
from optselect.callbacks.borrowing import (
    KEPT_ATTRIBUTES,
    Progress,
    UnopenedSource,
    borrow_loader,
    fresh_progress,
    logging_replaced,
    progress_of,
    set_progress,
    trainer_borrowed,
)
from optselect.errors import MetricNotLoggedError, UnsupportedModuleError, nearest
from optselect.loaders import RecordedLoader, is_one_shot, trial_loader
from optselect.rng import rng_isolated, seed_rng
from optselect.snapshot import BorrowedModel, ModelState
from optselect.workload import Build, DataSource, Mode

T = TypeVar("T")

_HELD_BACK_BATCHES = 8
# Of a huge validation set a fixed part is looked at: the same for all trials.
_MOST_VALIDATION_BATCHES = 64
_IDLE_LR = 0.0


@dataclass
class _Training:
    """The training that was begun: what Lightning steps, and how far it is."""

    optimizers: list[Optimizer]
    schedulers: list[LRSchedulerConfig]
    seed: int
    position: int = 0
    batch_idx: int = 0


@dataclass(frozen=True)
class _Paused:
    training: _Training
    model: ModelState
    progress: Progress


class LightningWorkload:
    """The training that `trainer` is about to run on `module`.

    It lives inside `Trainer.fit`, where `configure_optimizers` is called: the device, `setup()` and loaded
    weights are all there by then. `user` is the module's own `configure_optimizers`, if it has one. Raises
    `UnsupportedModuleError` in `borrowed()`, before anything is changed, for a module that cannot be
    searched in place.
    """

    def __init__(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        *,
        user: Callable[[], Any] | None = None,
        monitor: str | None = None,
        mode: Mode = "min",
    ) -> None:
        self.model = module
        self.mode = mode
        self._trainer = trainer
        self._user = user
        self._monitor = monitor
        self._callbacks = list(trainer.callbacks)
        self._borrowed: BorrowedModel | None = None
        self._training: _Training | None = None
        self._steps: int | None = None
        self._replay: _DataLoaderSource | None = None
        self._logged: dict[str, list[Any]] = {}
        self._hooks: dict[str, bool] = {}

    @property
    def steps(self) -> int | None:
        """Optimizer steps to come, where Lightning's own estimate is true; else None.

        It is not for streams without `max_steps`, for `max_time`, and for an accumulation that changes.
        Known inside `borrowed()` and after it.
        """
        return self._steps

    @property
    def accumulate(self) -> int:
        """The trainer's `accumulate_grad_batches`."""
        return self._trainer.accumulate_grad_batches

    @property
    def monitor(self) -> str:
        """The logged name trials are judged by, or the training loss on batches held back."""
        if self._monitor is not None:
            return self._monitor
        return "val_loss" if self._validates else "training loss on held-back batches"

    @property
    def validation_batches(self) -> int:
        """Batches of the first validation loader, up to a bound; without one, of the training batches held back."""
        if not self._validates:
            return _HELD_BACK_BATCHES
        return int(min(self._trainer.fit_loop.epoch_loop.val_loop._max_batches[0], _MOST_VALIDATION_BATCHES))

    @property
    def has_user_optimizer(self) -> bool:
        """Whether the module has a `configure_optimizers` of its own."""
        return self._user is not None

    @property
    def identity(self) -> str:
        """A digest of the module's class, its weights, the data set's size and two of its rows, and the length."""
        digest = hashlib.sha256()
        loader = self._loaders[0]
        facts = [
            type(self.model).__qualname__,
            self.steps,
            self._epoch_batches,
            getattr(loader, "batch_size", None),
        ]
        digest.update(json.dumps([*facts, self.monitor, self.mode]).encode())
        for name, parameter in self.model.named_parameters():
            digest.update(f"{name}{tuple(parameter.shape)}".encode())
            digest.update(parameter.detach().double().abs().sum().cpu().numpy().tobytes())
        digest.update(_rows_digest(loader))
        return digest.hexdigest()[:16]

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Module, trainer, loaders, data and random numbers as they were, on leaving."""
        if self._borrowed is not None:
            yield
            return
        self._refuse_signature()
        trainer, module = self._trainer, self.model
        with ExitStack() as stack:
            stack.callback(self._replay_streams)
            stack.enter_context(rng_isolated())
            stack.enter_context(trainer_borrowed(trainer))
            pinned = [trainer, trainer.strategy, *trainer.loggers, *self._callbacks]
            pinned += [trainer.datamodule] if trainer.datamodule is not None else []
            borrowed = BorrowedModel(module, pinned=pinned, kept=KEPT_ATTRIBUTES)
            stack.callback(self._give_back, borrowed)
            self._progress = progress_of(trainer)
            borrowed.begin()
            self._set_up_data(stack)
            stack.enter_context(logging_replaced(module, self._log))
            self._hooks = {name: is_overridden(name, module) for name in _MODULE_HOOKS}
            self._borrowed = borrowed
            self._refuse_several_optimizers()
            yield

    def source(self) -> DataSource:
        """The first training loader's data set, or its first batches when it has none that can be indexed."""
        loader = self._loaders[0]
        indexed = (
            isinstance(loader, DataLoader)
            and not isinstance(loader.dataset, IterableDataset)
            and len(self._loaders) == 1
        )
        return DataSource(
            dataset=loader.dataset if indexed else None,
            collate=loader.collate_fn if indexed and isinstance(loader, DataLoader) else None,
            batch_size=getattr(loader, "batch_size", None),
            batches=self._epoch_batches,
            head=lambda count: [self._batches(0)[index] for index in range(count)],
        )

    def backward(self, batch: Any) -> float:
        """One forward and backward pass through Lightning with the module's hooks, its gradients in `.grad`."""
        if self._training is None:
            self.begin(_idle, 0)
        training, module, strategy = self._begun(), self.model, self._trainer.strategy
        if training.batch_idx == 0:
            self._begin_epoch()
        batch = self._on_device(batch)
        kwargs = self._enter_batch(batch, last=False)
        output: Any
        if module.automatic_optimization:
            with torch.enable_grad(), _in_hook(module, "training_step"):
                output = strategy.training_step(*kwargs.values())
                loss = output["loss"] if isinstance(output, dict) else output
                if loss is not None:
                    strategy.backward(loss, strategy.optimizers[0])
        else:
            output = self._trainer.fit_loop.epoch_loop.manual_optimization.run(kwargs)
            loss = output.get("loss")
        self._leave_batch(output, batch, last=False)
        return math.nan if loss is None else float(loss.detach())

    def begin(self, build: Build | None, seed: int) -> None:
        """Start from the borrowed weights, counters and attributes with what `build` makes; None: the user's own."""
        trainer, module = self._trainer, self.model
        self._model().begin()
        fresh_progress(trainer, self._progress)
        trainer.should_stop = False
        seed_rng(seed)
        if build is None:
            optimizers, schedulers = self._user_optimizers()
        else:
            optimizer, scheduler = build(module)
            optimizers = [optimizer]
            schedulers = [LRSchedulerConfig(scheduler, interval="step")] if scheduler is not None else []
        self._training = _Training(optimizers=optimizers, schedulers=schedulers, seed=seed)
        self._attach()
        for hook in ("on_fit_start", "on_train_start"):
            self._call(hook)

    def train(self, micro_batches: int) -> Sequence[float | None]:
        """Go on batch by batch, as Lightning's training epoch loop does, with the module's own hooks."""
        losses = [self._train_batch() for _ in range(micro_batches)]
        # Read at the end of the stretch, not batch by batch: reading waits for the device.
        return [None if loss is None else float(loss) for loss in losses]

    def validate(self) -> float:
        """The monitored value, reduced by Lightning itself over the validation batches."""
        with rng_isolated():
            value = self._validated() if self._validates else None
            if value is None:
                value = self._held_back_value()
        return value

    def pause(self) -> _Paused:
        """Optimizers, schedulers, counters and the model's state."""
        return _Paused(self._begun(), self._model().pause(), progress_of(self._trainer))

    def resume(self, paused: _Paused) -> None:
        """Go on with a paused training."""
        self._training = paused.training
        self._model().resume(paused.model)
        set_progress(paused.progress)
        self._attach()

    def paused_bytes(self) -> int:
        """Weights, buffers and optimizer states."""
        slots = [
            value
            for optimizer in self._begun().optimizers
            for state in optimizer.state.values()
            for value in state.values()
            if isinstance(value, Tensor)
        ]
        tensors = [*self.model.parameters(), *self.model.buffers(), *slots]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def agree(self, value: T) -> T:
        """What rank 0 says."""
        agreed: T = self._trainer.strategy.broadcast(value)
        return agreed

    # --- setting up -------------------------------------------------------------------------------

    def _set_up_data(self, stack: ExitStack) -> None:
        trainer = self._trainer
        fit_loop, val_loop = trainer.fit_loop, trainer.fit_loop.epoch_loop.val_loop
        fit_loop._data_source = UnopenedSource(fit_loop._data_source, stack)  # type: ignore[assignment]  # stands in for it
        fit_loop._combined_loader = None
        fit_loop.setup_data()
        if fit_loop._combined_loader is None:
            raise UnsupportedModuleError(
                "there are no training batches (limit_train_batches=0?), so nothing can be tried"
            )
        combined: CombinedLoader = fit_loop._combined_loader
        self._loaders = list(combined.flattened)
        if any(map(is_one_shot, self._loaders)):
            combined.flattened = self._loaders = [
                RecordedLoader(loader) if is_one_shot(loader) else loader for loader in self._loaders
            ]
            # After everything else is given back: the real run reads what the trials read, and then goes on.
            replay = _DataLoaderSource(CombinedLoader(combined.iterables, combined._mode), "train_dataloader")
            self._replay = replay
        length = fit_loop.max_batches
        self._epoch_batches = int(length) if length < math.inf else None
        self._steps = self._estimated_steps()
        self._validates = trainer.enable_validation
        self._val_iterables: list[Any] = []
        if self._validates:
            val_loop._combined_loader = None
            val_loop.setup_data()
            self._validates = val_loop._combined_loader is not None and sum(val_loop._max_batches) > 0
        if self._validates:
            assert val_loop._combined_loader is not None
            self._val_iterables = list(val_loop._combined_loader.flattened)
        if self._validates:
            for loader in self._val_iterables:
                borrow_loader(loader, stack)
            self._install_validation(val_loop)
        self._train_batches: dict[int, BatchCache] = {}
        self._combined = combined

    def _estimated_steps(self) -> int | None:
        trainer = self._trainer
        if any(isinstance(callback, Timer | GradientAccumulationScheduler) for callback in self._callbacks):
            return None
        # The estimate asks for the loader through the trainer, which by now has the unopened one.
        estimate = trainer.estimated_stepping_batches
        return int(estimate) - trainer.global_step if 0 < estimate < math.inf else None

    def _install_validation(self, val_loop: Any) -> None:
        limit = self.validation_batches
        first = BatchCache(lambda: trial_loader(self._val_iterables[0]))
        others = [[] for _ in self._val_iterables[1:]]  # type: ignore[var-annotated]
        val_loop._combined_loader = CombinedLoader([_Cached(first, limit), *others], "sequential")
        val_loop._max_batches = [limit, *(0 for _ in others)]

    def _refuse_signature(self) -> None:
        module, strategy = self.model, self._trainer.strategy
        if is_param_in_hook_signature(module.training_step, "dataloader_iter", explicit=True):
            raise UnsupportedModuleError(
                "training_step takes the loader's iterator, so trials could not choose its batches"
            )
        if strategy.restore_checkpoint_after_setup or strategy.handles_gradient_accumulation:
            raise UnsupportedModuleError(
                f"{type(strategy).__name__} shards the model, so its weights cannot be put back after a trial"
            )

    def _refuse_several_optimizers(self) -> None:
        if self._user is None:
            return
        self._model().begin()
        optimizers, _ = self._user_optimizers()
        self._model().begin()
        if len(optimizers) != 1:
            raise UnsupportedModuleError(
                f"configure_optimizers returns {len(optimizers)} optimizers; a search chooses exactly one"
            )

    def _user_optimizers(self) -> tuple[list[Optimizer], list[LRSchedulerConfig]]:
        module, user = self.model, self._user
        provided = vars(module).get("configure_optimizers")
        try:
            vars(module)["configure_optimizers"] = user
            return _init_optimizers_and_lr_schedulers(module)
        finally:
            vars(module).pop("configure_optimizers", None)
            if provided is not None:
                vars(module)["configure_optimizers"] = provided

    def _give_back(self, borrowed: BorrowedModel) -> None:
        borrowed.restore()
        self._borrowed = None
        self._training = None

    def _replay_streams(self) -> None:
        if self._replay is not None:
            self._trainer.fit_loop._data_source = self._replay
            self._replay = None

    def _model(self) -> BorrowedModel:
        if self._borrowed is None:
            raise UnsupportedModuleError(
                "trials run inside `with workload.borrowed():`, so that everything comes back"
            )
        return self._borrowed

    def _begun(self) -> _Training:
        if self._training is None:
            raise UnsupportedModuleError("no training was begun; call begin() first")
        return self._training

    def _attach(self) -> None:
        training, strategy = self._begun(), self._trainer.strategy
        strategy.optimizers = training.optimizers
        strategy.lr_scheduler_configs = training.schedulers

    # --- training ---------------------------------------------------------------------------------

    def _batches(self, seed: int) -> BatchCache:
        if seed not in self._train_batches:
            self._train_batches[seed] = BatchCache(
                lambda: _TrialEpochs(self._combined, seed, self._epoch_batches),
                seed=seed,
                epoch_batches=self._epoch_batches,
            )
        return self._train_batches[seed]

    def _train_batch(self) -> Tensor | None:
        training, loop = self._begun(), self._trainer.fit_loop.epoch_loop
        batches = self._batches(training.seed)
        index = training.position + (0 if self._validates else _HELD_BACK_BATCHES)
        if training.batch_idx == 0:
            self._begin_epoch()
        batch = self._on_device(batches[index])
        last = batches.is_last_of_epoch(index)
        kwargs = self._enter_batch(batch, last=last)
        output: Any
        if self.model.automatic_optimization:
            output = loop.automatic_optimization.run(training.optimizers[0], training.batch_idx, kwargs)
        else:
            output = loop.manual_optimization.run(kwargs)
        loop.batch_progress.increment_processed()
        loop.update_lr_schedulers("step", update_plateau_schedulers=False)
        if last:
            loop.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        self._leave_batch(output, batch, last=last)
        loss = output.get("loss") if isinstance(output, dict) else None
        return loss.detach() if isinstance(loss, Tensor) else None

    def _enter_batch(self, batch: Any, *, last: bool) -> Any:
        training, loop = self._begun(), self._trainer.fit_loop.epoch_loop
        loop.batch_progress.is_last_batch = last
        loop.batch_progress.increment_ready()
        self._call("on_train_batch_start", batch, training.batch_idx)
        self._trainer.strategy.on_train_batch_start(batch, training.batch_idx)
        loop.batch_progress.increment_started()
        return loop._build_kwargs(OrderedDict(), batch, training.batch_idx)

    def _leave_batch(self, output: Any, batch: Any, *, last: bool) -> None:
        training, fit_loop = self._begun(), self._trainer.fit_loop
        loop = fit_loop.epoch_loop
        self._call("on_train_batch_end", output, batch, training.batch_idx)
        loop.batch_progress.increment_completed()
        if not loop._should_accumulate():
            loop._batches_that_stepped += 1
        training.position += 1
        training.batch_idx = 0 if last else training.batch_idx + 1
        if last:
            fit_loop.epoch_progress.increment_processed()
            self._call("on_train_epoch_end")
            fit_loop.epoch_progress.increment_completed()

    def _begin_epoch(self) -> None:
        fit_loop = self._trainer.fit_loop
        loop = fit_loop.epoch_loop
        fit_loop.epoch_progress.increment_ready()
        self._call("on_train_epoch_start")
        fit_loop.epoch_progress.increment_started()
        loop.batch_progress.reset_on_run()
        loop.scheduler_progress.reset_on_run()
        loop.automatic_optimization.optim_progress.reset_on_run()

    def _on_device(self, batch: Any) -> Any:
        trainer, module = self._trainer, self.model
        batch = trainer.precision_plugin.convert_input(batch)
        batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
        return trainer.strategy.batch_to_device(batch, dataloader_idx=0)

    def _call(self, hook: str, *args: Any) -> Any:
        """The module's own hook, if it has one: asking first is cheaper than calling an empty one."""
        if self._hooks[hook]:
            with _in_hook(self.model, hook):
                return getattr(self.model, hook)(*args)
        return None

    def _log(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        self._logged.setdefault(name, [])
        if self._judging:
            self._logged[name].append(value)

    # --- judging ----------------------------------------------------------------------------------

    _judging = False

    def _validated(self) -> float | None:
        """The monitored value from Lightning's validation loop; None when only the training step logs it."""
        trainer, connector = self._trainer, self._trainer._logger_connector
        connector.reset_metrics()
        capturing = [
            (part, vars(part).pop("log"), vars(part).pop("log_dict")) for part in self._lightning_parts()
        ]
        trainer.validating = True
        try:
            connector.reset_results()
            trainer.fit_loop.epoch_loop.val_loop.run()
            metrics = dict(trainer.callback_metrics)
        finally:
            trainer.training = True
            for part, log, log_dict in capturing:
                vars(part).update(log=log, log_dict=log_dict)
        name = self.monitor
        for key in (name, f"{name}/dataloader_idx_0"):
            if key in metrics:
                return float(metrics[key])
        if self._monitor is not None and name in self._logged:
            return None
        logged = sorted({*metrics, *self._logged})
        wanted = f"monitor={name!r}" if self._monitor else "no monitor was given, and 'val_loss'"
        raise MetricNotLoggedError(
            f"{wanted} was never logged in a validation; logged: {', '.join(logged) or 'nothing'}."
            f"{nearest(name, logged)} Pass monitor= with the name of a logged value."
        )

    def _held_back_value(self) -> float:
        """The mean over held-back training batches of the monitored value, or of the training loss."""
        module = self.model
        if not module.automatic_optimization:
            raise UnsupportedModuleError(
                "manual optimization without validation gives nothing to judge a trial by; add a validation_step that "
                "logs val_loss"
            )
        modes = [(part, part.training) for part in module.modules()]
        module.eval()
        losses: list[float] = []
        self._logged = {name: [] for name in self._logged}
        self._judging = True
        try:
            with torch.no_grad(), _in_hook(module, "training_step"):
                for index in range(_HELD_BACK_BATCHES):
                    batch = self._on_device(self._batches(0)[index])
                    kwargs = self._trainer.fit_loop.epoch_loop._build_kwargs(OrderedDict(), batch, index)
                    output = self._trainer.strategy.training_step(*kwargs.values())
                    loss = output["loss"] if isinstance(output, dict) else output
                    if loss is not None:
                        losses.append(float(loss))
        finally:
            self._judging = False
            for part, training in modes:
                part.training = training
        if self._monitor is not None:
            if not (values := self._logged.get(self._monitor)):
                logged = sorted(self._logged)
                raise MetricNotLoggedError(
                    f"monitor={self._monitor!r} was never logged; logged: {', '.join(logged) or 'nothing'}."
                    f"{nearest(self._monitor, logged)} Pass monitor= with the name of a logged value."
                )
            losses = [float(value.compute() if hasattr(value, "compute") else value) for value in values]
        return sum(losses) / len(losses) if losses else math.nan

    def _lightning_parts(self) -> list[pl.LightningModule]:
        return [part for part in self.model.modules() if isinstance(part, pl.LightningModule)]


_MODULE_HOOKS = (
    "on_fit_start",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_train_epoch_end",
)


class _TrialEpochs:
    """A twin of the training loaders; each iteration is one epoch, in the order the training would have."""

    def __init__(self, combined: CombinedLoader, seed: int, length: int | None) -> None:
        twins = tree_map(lambda loader: trial_loader(loader, seed), combined.iterables)
        self._loader = CombinedLoader(twins, combined._mode)
        self._loader.limits = combined.limits
        self._length = length
        self._epoch = 0

    def __iter__(self) -> Iterator[Any]:
        for loader in self._loader.flattened:
            _set_sampler_epoch(loader, self._epoch)
        self._epoch += 1
        for batch, _, _ in itertools.islice(self._loader, self._length):
            yield batch


class _Cached:
    """The first batches of a validation loader, the same for every trial."""

    def __init__(self, batches: BatchCache, count: int) -> None:
        self._batches = batches
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        return (self._batches[index] for index in range(self._count))


@contextmanager
def _in_hook(module: pl.LightningModule, name: str) -> Iterator[None]:
    """Lightning asks a module which hook it is in."""
    before, module._current_fx_name = module._current_fx_name, name
    try:
        yield
    finally:
        module._current_fx_name = before


def _idle(module: torch.nn.Module) -> tuple[Optimizer, None]:
    """An optimizer that moves nothing, for the passes before any choice."""
    return torch.optim.SGD(module.parameters(), lr=_IDLE_LR), None


def _rows_digest(loader: Any) -> bytes:
    """Of the first and the middle row, read under fixed random numbers since reading may augment."""
    dataset = getattr(loader, "dataset", None)
    if dataset is None or isinstance(dataset, IterableDataset):
        return b"stream"
    digest = hashlib.sha256(str(len(dataset)).encode())
    with rng_isolated():
        seed_rng(0)
        for index in (0, len(dataset) // 2):
            _update(digest, dataset[index])
    return digest.digest()


def _update(digest: Any, item: Any) -> None:
    if isinstance(item, Tensor):
        digest.update(item.detach().cpu().to_dense().contiguous().float().numpy().tobytes())
    elif isinstance(item, dict):
        for key in item:
            _update(digest, item[key])
    elif isinstance(item, Iterable) and not isinstance(item, str | bytes):
        for part in item:
            _update(digest, part)
    else:
        digest.update(repr(item).encode())
