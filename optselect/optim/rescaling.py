"""The user's own optimizer at another rate: every group's numbers scaled, the shape of its scheduler kept.

As if other numbers stood in `configure_optimizers`. A scheduler that holds rates of its own under names that are not
torch's keeps those; the trial then shows what that is worth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

T = TypeVar("T")

# Where torch's optimizers and schedulers keep learning rates: OneCycleLR has max_lr and min_lr in the groups,
# CosineAnnealingLR an eta_min, ReduceLROnPlateau the least change of a rate that counts as one, and so on.
_GROUP_RATES = ("lr", "initial_lr", "max_lr", "min_lr", "swa_lr")
_SCHEDULER_RATES = ("base_lrs", "max_lrs", "min_lrs", "eta_min", "eps", "_last_lr")


def scaled(configured: T, *, lr_scale: float = 1.0, weight_decay_scale: float = 1.0) -> T:
    """Multiply the learning rates and weight decays in what `configure_optimizers` returned, whatever its form.

    Optimizers and schedulers are changed in place, each once.
    """
    if (lr_scale, weight_decay_scale) != (1.0, 1.0):
        for part in {id(part): part for part in _parts(configured)}.values():
            if isinstance(part, Optimizer):
                for values in (part.defaults, *part.param_groups):
                    _scale(values, _GROUP_RATES, lr_scale)
                    _scale(values, ("weight_decay",), weight_decay_scale)
            else:
                _scale(vars(part), _SCHEDULER_RATES, lr_scale)
    return configured


def _parts(configured: Any) -> Iterator[Optimizer | LRScheduler]:
    """Yield every optimizer and scheduler in a nested structure, and the schedulers inside schedulers."""
    if isinstance(configured, Optimizer | LRScheduler):
        yield configured
    inside: Any = ()
    if isinstance(configured, Mapping):
        inside = configured.values()
    elif isinstance(configured, list | tuple):
        inside = configured
    elif isinstance(configured, LRScheduler):
        inside = getattr(configured, "_schedulers", ())  # SequentialLR and ChainedScheduler
    elif hasattr(configured, "scheduler"):
        inside = (configured.scheduler,)  # Lightning's LRSchedulerConfig
    for part in inside:
        yield from _parts(part)


def _scale(values: Any, names: tuple[str, ...], factor: float) -> None:
    for name in names:
        value = values.get(name)
        if isinstance(value, list):
            values[name] = [each * factor for each in value]
        elif isinstance(value, int | float | Tensor) and not isinstance(value, bool):
            values[name] = value * factor
