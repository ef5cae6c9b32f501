"""What a trial is judged by: the monitored value of Lightning's validation, or one over batches held back from it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from optselect.callbacks.averages import averaged
from optselect.callbacks.lightning_names import lightning_of
from optselect.callbacks.loop import TrialLoop, in_hook, loss_in
from optselect.callbacks.monitoring import (
    Judged,
    Seen,
    among,
    judged_by,
    logged_by_callbacks,
    logs_in_validation,
    watched_by,
    without_loader,
)
from optselect.callbacks.muting import METRIC_DICTS, TrialResults, forget_metrics
from optselect.configuration.evaluation import Batches, Evaluation
from optselect.configuration.goal import Mode
from optselect.errors import MetricNotLoggedError, UnsupportedModuleError
from optselect.optim.modes import evaluated
from optselect.workload.batch_norm import RECALIBRATION_BATCHES, recalibrated, recalibrates, running_statistics
from optselect.workload.batches import HELD_BACK_BATCHES
from optselect.workload.borrowed_model import BorrowedModel, evaluation_mode
from optselect.workload.rng import rng_isolated

if TYPE_CHECKING:
    import lightning.pytorch as pl

# As many as Lightning's own sanity check takes.
_LOOKED_AT = 2

_log = logging.getLogger("optselect")


class Judge:
    """Judges the training that a loop goes through, by what its module logs.

    `monitor` is the name that was asked for; None: what `callbacks` watch, or `val_loss`, or what there is. Judging
    moves nothing that a training finds afterwards. `judged` is known once the judge has taken a look.
    """

    judged: Judged

    def __init__(
        self, trainer: Any, module: pl.LightningModule, *, monitor: str | None, mode: Mode, callbacks: Sequence[Any]
    ) -> None:
        self._trainer = trainer
        self._module = module
        self._monitor = monitor
        self._mode: Mode = mode
        self._callbacks = callbacks
        self._logged: dict[str, list[Any]] = {}
        self._reductions: dict[str, Any] = {}
        self._metrics: dict[int, Metric] = {}
        self._keeps_values = False

    # --- what to judge by -------------------------------------------------------------------------

    @property
    def looks(self) -> bool:
        """Whether it takes a look at the module to know what to judge by."""
        validates = self._trainer.fit_loop.epoch_loop.val_loop._combined_loader is not None
        return validates or (self._monitor is None and bool(watched_by(self._callbacks)))

    def decide(self, loop: TrialLoop, model: BorrowedModel) -> None:
        """Know what to judge by, after a look at two batches of each loader where that is needed."""
        validates = loop.data.validation is not None
        seen = Seen()
        if self.looks:
            with rng_isolated(), model.unmoved():
                seen = self._seen(loop, validates=validates)
            self._logged.clear()
        judged = judged_by(self._monitor, self._mode, watched_by(self._callbacks), validates=validates, seen=seen)
        self.judged = self._trainer.strategy.broadcast(judged)
        loop.held_back = 0 if self.judged.validated else HELD_BACK_BATCHES

    def _seen(self, loop: TrialLoop, *, validates: bool) -> Seen:
        names: frozenset[str] | None = None
        returned: list[float] = []
        training: frozenset[str] = frozenset()
        try:
            if validates:
                with self._few_batches():
                    metrics, returned = self._validation()
                names = frozenset({*metrics, *map(without_loader, metrics)})
            wanted = [self._monitor] if self._monitor is not None else [name for name, _ in watched_by(self._callbacks)]
            if self._module.automatic_optimization and not set(wanted) <= (names or frozenset()):
                self._logged.clear()
                self._held_back(loop, 1, wanted)
                training = frozenset(self._logged)
        except Exception as error:  # noqa: BLE001  # a module may want more than two batches; its trials say what is wrong
            _log.debug("a look at what the module logs failed: %r", error)
        at_times = logs_in_validation(self._module)
        return Seen(validation=names, training=training, returns=bool(returned), logs_at_times=at_times)

    @contextmanager
    def _few_batches(self) -> Iterator[None]:
        val_loop = self._trainer.fit_loop.epoch_loop.val_loop
        limits = val_loop._max_batches
        val_loop._max_batches = [min(limit, _LOOKED_AT) for limit in limits]
        try:
            yield
        finally:
            val_loop._max_batches = limits

    def validation_batches(self, loop: TrialLoop) -> int:
        """Count the batches that are judged by, and those BatchNorm takes."""
        validation = loop.data.validation
        judged = validation.count if self.judged.validated and validation is not None else HELD_BACK_BATCHES
        return judged + (RECALIBRATION_BATCHES if self._recalibrates else 0)

    # --- judging ----------------------------------------------------------------------------------

    def evaluation(self, loop: TrialLoop, model: BorrowedModel, left: float = math.inf) -> Evaluation:
        """Measure the value at the present weights, a mean over processes, with its parts of all of them.

        So many micro-batches are `left` of the training.

        Raises `MetricNotLoggedError` when the module does not log it, and `UnsupportedModuleError` when there is
        nothing to judge by.
        """
        with (
            rng_isolated(),
            evaluated(loop.training.optimizers),
            averaged(loop.training.averages, self._module),
            model.unmoved(),
            self._recalibrated(loop, model, left),
        ):
            value, batches = self._validated() if self.judged.validated else self._held_back_value(loop)
        return Evaluation.of(self._over_all_processes(value), self._of_all_processes(batches))

    def _over_all_processes(self, value: float) -> float:
        """Return the mean over processes: each saw its own share of the validation set."""
        strategy = self._trainer.strategy
        if self._trainer.world_size == 1:
            return value
        # Where the processes meet: NCCL takes no tensor of the CPU.
        share = torch.tensor(value, dtype=torch.float64, device=strategy.root_device)
        return float(strategy.reduce(share, reduce_op="mean"))

    def _of_all_processes(self, batches: Batches) -> Batches:
        """Join what the processes saw; what all of them saw, where their shares are the whole, counts once."""
        trainer = self._trainer
        shares = [trainer.strategy.broadcast(batches, rank) for rank in range(trainer.world_size)]
        return tuple(batch for share in dict.fromkeys(shares) for batch in share)

    def log(self, name: str, value: Any, *args: Any, **keywords: Any) -> None:
        """Stand in for `self.log` of the module."""
        self._logged.setdefault(name, [])
        if isinstance(value, Metric):
            self._metrics[id(value)] = value
        if self._keeps_values:
            self._logged[name].append(value.detach() if isinstance(value, Tensor) else value)
            # The fifth argument of Lightning's own.
            self._reductions[name] = args[4] if len(args) > 4 else keywords.get("reduce_fx", "mean")
        if isinstance(value, Tensor | int | float):
            # The module's hooks may read it back.
            read = value.detach() if isinstance(value, Tensor) else torch.tensor(value)
            for metrics in METRIC_DICTS:
                getattr(self._trainer._logger_connector, metrics)[name] = read

    def end_epoch(self) -> None:
        """Let metrics that were logged as objects begin anew, as Lightning does."""
        for metric in self._metrics.values():
            metric.reset()

    def _validated(self) -> tuple[float, Batches]:
        """Read the monitored value from Lightning's validation loop, and its parts."""
        metrics, returned = self._validation()
        if not self.judged.logged:
            return _mean(returned)
        name = self.judged.name
        for key in (name, *sorted(key for key in metrics if without_loader(key) == name)):
            if key in metrics:
                return float(metrics[key]), self._results.batches_of(key)
        wanted = f"monitor={name!r}" if self._monitor else f"no monitor was given, and {name!r}"
        raise MetricNotLoggedError.among(
            f"{wanted} was never logged in the validation before the first trial (a trial is judged by one alone, so "
            f"each has to log it, in whichever epoch){logged_by_callbacks(name, self._callbacks)}",
            name,
            {*metrics, *self._logged},
        )

    def _validation(self) -> tuple[dict[str, Tensor], list[float]]:
        """Return what Lightning's validation loop logs, and the losses that its step returns for the first loader."""
        trainer = self._trainer
        forget_metrics(trainer)
        kind = lightning_of(trainer).LightningModule
        parts = [part for part in self._module.modules() if isinstance(part, kind)]
        capturing = [(part, vars(part).pop("log"), vars(part).pop("log_dict")) for part in parts]
        trainer.validating = True
        returned: dict[int, list[float]] = {}
        try:
            trainer._logger_connector.reset_results()
            self._results.forget_batches()
            with _returned_to(trainer.strategy, returned, self._results.next_batch):
                trainer.fit_loop.epoch_loop.val_loop.run()
            return dict(trainer.callback_metrics), returned[min(returned)] if returned else []
        finally:
            trainer.training = True
            for part, log, log_dict in capturing:
                vars(part).update(log=log, log_dict=log_dict)

    @property
    def _results(self) -> TrialResults:
        results: TrialResults = self._trainer.fit_loop.epoch_loop.val_loop._results
        return results

    def _held_back_value(self, loop: TrialLoop) -> tuple[float, Batches]:
        """Return the mean over held-back training batches of the monitored value, or of the training loss."""
        if not self._module.automatic_optimization:
            raise UnsupportedModuleError(
                "manual optimization without validation gives nothing to judge a trial by; "
                "add a validation_step that logs val_loss"
            )
        self._logged = {name: [] for name in self._logged}
        losses = self._held_back(loop, HELD_BACK_BATCHES, [self.judged.name] if self.judged.logged else [])
        if not self.judged.logged:
            return _mean(losses)
        name = self.judged.name
        found = among(name, self._logged)
        if found is None or not (values := self._logged[found]):
            empty = "; the validation loader gives no batch" if loop.data.validation_is_empty else ""
            if not self._trainer.limit_val_batches:
                empty = "; the validation is switched off (limit_val_batches=0): switch it on, or leave monitor= out"
            raise MetricNotLoggedError.among(
                f"monitor={name!r} was never logged{logged_by_callbacks(name, self._callbacks)}{empty}",
                name,
                self._logged,
            )
        if isinstance(values[-1], Metric):
            return float(values[-1].compute()), ()
        numbers = [float(value) for value in values]
        # One for each batch, or else it was logged at the end of the epoch, or in some batches alone.
        batches = tuple((number, 1.0) for number in numbers) if len(numbers) == len(losses) else ()
        return _reduced(numbers, self._reductions[found]), batches

    def _held_back(self, loop: TrialLoop, count: int, wanted: Sequence[str]) -> list[float]:
        """Run the training step over the first `count` held-back batches, with gradients, which it may take itself.

        What is `wanted` may also be logged by the hook at the end of an epoch.
        """
        module = self._module
        for part in module.modules():
            if isinstance(part, Metric | MetricCollection):
                part.reset()
        losses: list[float] = []
        self._keeps_values = True
        try:
            with evaluation_mode(module), torch.enable_grad():
                loop.enter_epoch()
                for index in range(count):
                    loss = self._step(loop, loop.data.batches.of(0)[index], index)
                    if loss is not None:
                        losses.append(float(loss.detach()))
                if any(not self._logged.get(among(name, self._logged) or "") for name in wanted):
                    loop.leave_epoch()
        finally:
            self._keeps_values = False
        return losses

    def _step(self, loop: TrialLoop, batch: Any, index: int) -> Any:
        """Return the loss of a training step that is not trained on; None: it gives none."""
        if batch is None:
            return None
        batch = loop.on_device(batch)
        kwargs = loop.announced(batch, index)
        with in_hook(self._module, "training_step"):
            return loss_in(self._trainer.strategy.training_step(*kwargs.values()))

    @property
    def _recalibrates(self) -> bool:
        # In manual optimization the training step would also step the optimizer.
        return self._module.automatic_optimization and recalibrates(self._module)

    def _recalibrated(self, loop: TrialLoop, model: BorrowedModel, left: float) -> AbstractContextManager[None]:
        # Before the first batch the module's hooks have not yet made what its training step needs.
        if not self._recalibrates or loop.training.position == 0:
            return nullcontext()
        return recalibrated(self._module, lambda: self._forward_recent(loop, model), left)

    def _forward_recent(self, loop: TrialLoop, model: BorrowedModel) -> None:
        training = loop.training
        batches = loop.data.batches.of(training.seed)
        # With gradients, though none is taken: a training step may use them itself.
        with model.unmoved(running_statistics(self._module)), torch.enable_grad():
            for index in training.recent_batches(loop.held_back):
                self._step(loop, batches[index], index)


def _reduced(values: list[float], how: str | Callable[..., Any]) -> float:
    """Reduce the values as Lightning reduces what is logged; a plain mean, unless the module says otherwise."""
    word = how if isinstance(how, str) else getattr(how, "__name__", "mean")
    others: dict[str, Callable[[list[float]], float]] = {"min": min, "max": max, "sum": sum}
    return others[word.lower()](values) if word.lower() in others else sum(values) / len(values)


def _mean(losses: list[float]) -> tuple[float, Batches]:
    """Return the mean and its parts, which weigh the same."""
    mean = sum(losses) / len(losses) if losses else math.nan
    return mean, tuple((loss, 1.0) for loss in losses)


@contextmanager
def _returned_to(strategy: Any, losses: dict[int, list[float]], next_batch: Callable[[], None]) -> Iterator[None]:
    """Append to `losses`, for each loader, what the validation step returns as a loss; say `next_batch` before each."""
    before = vars(strategy).get("validation_step")
    step = strategy.validation_step

    def validation_step(*args: Any, **kwargs: Any) -> Any:
        next_batch()
        output = step(*args, **kwargs)
        loss = _loss_among(output) if isinstance(output, dict) else output
        if isinstance(loss, Tensor) and loss.numel() == 1:
            loader = args[2] if len(args) > 2 else 0
            losses.setdefault(loader, []).append(float(loss.detach()))
        return output

    vars(strategy)["validation_step"] = validation_step
    try:
        yield
    finally:
        vars(strategy).pop("validation_step")
        if before is not None:
            vars(strategy)["validation_step"] = before


def _loss_among(output: dict[str, Any]) -> Any:
    """Find the one entry that is called a loss; None: there is none, or there are several."""
    called = [name for name in output if "loss" in str(name).lower()]
    return output["loss"] if "loss" in output else output[called[0]] if len(called) == 1 else None
