"""Stand-ins that keep trials quiet: callbacks, profiler, results and logging, none of which hears of a trial."""

from __future__ import annotations

import copy
import inspect
import math
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torchmetrics import MetricCollection

from optselect.callbacks.lightning_names import Lightning, lightning_of
from optselect.configuration.evaluation import Batches
from optselect.parameters.compilation import is_compiled

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from lightning.pytorch.profilers import PassThroughProfiler
    from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection
else:
    PassThroughProfiler = _ResultCollection = object  # at run time those of the trainer's package, by `made_for`

# What loggers call that which writes; `save_dir` and `log_dir` are properties.
_WRITERS = ("log", "save", "finalize", "after_save", "watch", "unwatch", "add_", "write", "flush", "close", "upload")


def muted(callback: Any, lightning: Lightning) -> Any:
    """Make what a module finds in a trial when it looks for `callback`: its attributes, and hooks that do nothing.

    None where its class allows no such view.
    """
    kind = type(callback)
    # What Lightning calls by itself.
    hooks = [name for name in vars(lightning.Callback) if name.startswith("on_")]
    own: dict[str, Any] = {
        # As properties, which go before hooks that lie on the instance, as those of a LambdaCallback do.
        **dict.fromkeys(hooks, property(lambda _: _nothing)),
        # Copies are those of the callback.
        "__deepcopy__": lambda _, memo: copy.deepcopy(callback, memo),
        "__reduce_ex__": lambda _, __: (cast, (object, callback)),
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
    }
    try:
        view: Any = object.__new__(types.new_class(kind.__name__, (kind,), exec_body=lambda body: body.update(own)))
        # Shared: what the module reads is what it would read in the training.
        object.__setattr__(view, "__dict__", vars(callback))
    except TypeError:
        return None
    return view


class Nowhere:
    """An experiment that writes nothing: whatever is asked of it is there, can be called, and is nothing.

    As a path it is the logger's folder.
    """

    def __init__(self, folder: str = "") -> None:
        vars(self)["_folder"] = folder

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        """Set nothing."""

    def __call__(self, *_: Any, **__: Any) -> Self:
        """Do nothing."""
        return self

    def __getitem__(self, key: Any) -> Self:
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        """Set nothing."""

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing."""

    def __fspath__(self) -> str:
        return str(self._folder)

    __str__ = __fspath__


def silent(logger: Any, lightning: Lightning) -> Any:
    """Make what a module finds for `logger` in a trial: its class, attributes and folder, with methods that do nothing.

    Lightning's own that writes nothing, where its class allows no such view.
    """
    kind = type(logger)
    writers = [
        name for name in dir(kind) if name.startswith(_WRITERS) and callable(inspect.getattr_static(kind, name, None))
    ]
    own: dict[str, Any] = {
        **dict.fromkeys(writers, property(lambda _: _nothing)),
        "experiment": property(lambda view: Nowhere(_folder(view))),
        "__deepcopy__": lambda view, _: view,
        "__reduce_ex__": lambda _, __: (cast, (object, logger)),
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
    }
    try:
        view: Any = object.__new__(types.new_class(kind.__name__, (kind,), exec_body=lambda body: body.update(own)))
        # Shared: the version that a trial finds is the one that the training will have.
        object.__setattr__(view, "__dict__", vars(logger))
    except TypeError:
        return lightning.DummyLogger()
    return view


def _folder(logger: Any) -> str:
    try:
        return str(getattr(logger, "log_dir", None) or logger.save_dir or "")
    except Exception:  # noqa: BLE001  # a logger of another library, which may ask its server
        return ""


def _nothing(*_: Any, **__: Any) -> None:
    """Do nothing, as a hook in a trial."""


class SilentProfiler(PassThroughProfiler):
    """The same empty context for all of the twenty that Lightning opens for every batch."""

    _EMPTY = nullcontext("")

    def profile(self, action_name: str) -> AbstractContextManager[str]:  # type: ignore[override]  # not a generator
        """Measure nothing, whatever the action."""
        return self._EMPTY


class TrialResults(_ResultCollection):
    """Logged values that move to a device once, and what was logged of each batch.

    Lightning moves each again whenever it is logged, with copies of all it knows about it: half of the time
    that a small validation takes.
    """

    def __init__(self, *, training: bool) -> None:
        super().__init__(training=training)
        self.forget_batches()

    def forget_batches(self) -> None:
        """Know of no batch, as before a validation."""
        self._batch_index = 0
        self._logged: dict[str, list[tuple[int, torch.Tensor, float]]] = {}

    def next_batch(self) -> None:
        """Count what is logged from now on as of another batch."""
        self._batch_index += 1

    def update_metrics(self, key: str, value: Any, batch_size: int) -> None:
        """Log, and keep what counts in a mean over batches."""
        super().update_metrics(key, value, batch_size)
        metric = self[key]
        # Outside of a batch it is the hook at the end of an epoch that logs.
        if self.batch is not None and metric.is_tensor and metric.meta.on_epoch and metric.meta.is_mean_reduction:
            # A clone: the module may go on with its tensor in place.
            self._logged.setdefault(key, []).append((self._batch_index, value.detach().clone(), float(batch_size)))

    def batches_of(self, name: str) -> Batches:
        """Return value and weight of each batch, of what `trainer.callback_metrics` calls `name`."""
        keys = [key for key in self._logged if name in self._forked_name(self[key], on_step=False)]
        logged = self._logged[keys[-1]] if keys else []
        if not logged:
            return ()
        device = logged[0][1].device
        # Read at once: each reading waits for the device.
        values = torch.stack([value.to(device) for _, value, _ in logged]).cpu().double().tolist()
        parts: dict[int, tuple[float, float]] = {}
        for (index, _, size), value in zip(logged, values, strict=True):
            total, weight = parts.get(index, (0.0, 0.0))
            parts[index] = (total + value * size, weight + size)
        return tuple((total / weight, weight) for total, weight in parts.values() if weight)

    def __setitem__(self, key: str, metric: Any) -> None:
        move = metric.to

        def move_once(device: torch.device) -> None:
            if getattr(metric, "value", None) is None or metric.value.device != device:
                move(device)

        metric.to = move_once
        super().__setitem__(key, metric)


@contextmanager
def logging_replaced(module: pl.LightningModule, log: Callable[..., None]) -> Iterator[None]:
    """Let `log` be `self.log` of `module` and of every LightningModule in it; `log_dict` goes entry by entry."""

    def log_dict(dictionary: Any, *args: Any, **keywords: Any) -> None:
        # As Lightning goes through a collection: by the names with its prefix, and the metrics themselves.
        its = {"keep_base": False, "copy_state": False} if isinstance(dictionary, MetricCollection) else {}
        for name, value in dictionary.items(**its):
            log(name, value, *args, **keywords)

    if is_compiled(module):
        # Else it is compiled into the steps, once for each set of names that were logged before.
        log, log_dict = torch.compiler.disable(log), torch.compiler.disable(log_dict)
    kind = lightning_of(module).LightningModule
    owners = [part for part in module.modules() if isinstance(part, kind)]
    own: list[dict[str, Any]] = [
        {name: vars(part)[name] for name in ("log", "log_dict") if name in vars(part)} for part in owners
    ]
    try:
        for part in owners:
            vars(part).update(log=log, log_dict=log_dict)
        yield
    finally:
        for part, before in zip(owners, own, strict=True):
            for name in ("log", "log_dict"):
                vars(part).pop(name, None)
            vars(part).update(before)


METRIC_DICTS = ("_callback_metrics", "_logged_metrics", "_progress_bar_metrics")
"""Where Lightning's logger connector keeps what was logged last, for each of those who read it."""


def forget_metrics(trainer: Any) -> None:
    """Let `trainer` know no metric, as at the beginning of a training."""
    connector = trainer._logger_connector
    connector.reset_metrics()
    for name in METRIC_DICTS:
        setattr(connector, name, _TrialMetrics())


class _TrialMetrics(dict[str, torch.Tensor]):
    """What a trial's hooks read from `trainer.callback_metrics`: NaN for what a trial does not log or reduce.

    Trials are judged only now and then, and reduce nothing over epochs; a real run would have the value there.
    """

    def __missing__(self, name: str) -> torch.Tensor:
        return torch.tensor(math.nan)
