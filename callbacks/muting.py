"""Stand-ins that keep trials quiet: callbacks, profiler, results and logging, none of which hears of a trial."""

from __future__ import annotations

import copy
import math
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, cast

import torch

from optselect.callbacks.lightning_names import Lightning, lightning_of

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from lightning.pytorch.profilers import PassThroughProfiler
    from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection
else:
    PassThroughProfiler = _ResultCollection = object  # at run time those of the trainer's package, by `made_for`


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


def _nothing(*_: Any, **__: Any) -> None:
    """Do nothing, as a hook in a trial."""


class SilentProfiler(PassThroughProfiler):
    """The same empty context for all of the twenty that Lightning opens for every batch."""

    _EMPTY = nullcontext("")

    def profile(self, action_name: str) -> AbstractContextManager[str]:  # type: ignore[override]  # not a generator
        """Measure nothing, whatever the action."""
        return self._EMPTY


class TrialResults(_ResultCollection):
    """Logged values that move to a device once.

    Lightning moves each again whenever it is logged, with copies of all it knows about it: half of the time
    that a small validation takes.
    """

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

    def log_dict(values: Any, *_: Any, **__: Any) -> None:
        for name, value in values.items():
            log(name, value)

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
