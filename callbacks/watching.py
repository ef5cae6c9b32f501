"""Cheap statistics while it trains, for the loggers: gradients, updates and noise, at most a hundredth of the time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from optselect.parameters.anatomy import anatomy_of
from optselect.parameters.names import named_parameters
from optselect.profile import Profile

_SHARE_OF_TIME = 0.01
# Of each parameter: ratios and noise are told from a sample.
_SAMPLED = 4_096
# How much a look counts in the running means behind the noise scale.
_NEW = 0.2


@dataclass
class Watching:
    """Looks at a training now and then, and tells its loggers; without a trace in the training itself.

    A look takes two steps: their gradients, and the weights before and after the first. The next one comes after the
    trainer's `log_every_n_steps`, or later where looks would take more than a hundredth of the time. Gradients are as
    they come, before any clipping.

    rows   samples in the batches of one optimizer step (None: not known, so there is no noise scale)
    clock  in seconds
    """

    rows: int | None = None
    clock: Callable[[], float] = time.perf_counter
    _roles: dict[str, list[nn.Parameter]] = field(default_factory=dict)
    _next: int = 0
    _spent: float = 0.0
    _begun: tuple[float, int] | None = None
    _before: dict[str, list[Tensor]] | None = None
    _gradient: list[Tensor] | None = None
    _norms: dict[str, float] = field(default_factory=dict)
    _square: float = math.nan
    _product: float = math.nan

    def before_step(self, trainer: Any, module: nn.Module) -> None:
        """Look at the gradients of a step that is about to be made."""
        step = trainer.global_step
        if not trainer.is_global_zero or step < self._next or self._before is not None:
            return
        begun = self.clock()
        if self._begun is None:
            self._begun, self._roles = (begun, step), _by_role(module)
        gradient = [_sample(each) for each in _gradients(self._parameters())]
        if self._gradient is None:
            self._norms = {role: _norm(_gradients(own)) for role, own in self._roles.items()}
            self._before = {role: [_sample(each).clone() for each in own] for role, own in self._roles.items()}
            self._gradient = [each.clone() for each in gradient]
        elif len(gradient) == len(self._gradient):
            self._learn_noise(self._gradient, gradient)
            self._gradient = None
            self._plan_next(trainer, step)
        self._spent += self.clock() - begun

    def after_step(self, trainer: Any) -> None:
        """Look at the weights after the step, and tell the loggers; its noise is known one step later."""
        if self._before is None:
            return
        begun = self.clock()
        ratios = {role: _ratio(before, self._roles[role]) for role, before in self._before.items()}
        self._before = None
        told = {f"optselect/grad_norm/{role}": norm for role, norm in self._norms.items()}
        told |= {f"optselect/update_ratio/{role}": ratio for role, ratio in ratios.items()}
        if self.rows is not None and self._product > 0:
            told["optselect/noise_scale"] = self.rows * max(self._square - self._product, 0.0) / self._product
        finite = {name: value for name, value in told.items() if math.isfinite(value)}
        for logger in trainer.loggers:
            logger.log_metrics(finite, trainer.global_step)
        self._spent += self.clock() - begun

    def _parameters(self) -> Iterator[nn.Parameter]:
        return (parameter for own in self._roles.values() for parameter in own)

    def _learn_noise(self, one: list[Tensor], other: list[Tensor]) -> None:
        """Two batches' gradients: their product is that of the mean, what their squares have besides is noise."""
        square = math.fsum(float(torch.dot(a, a) + torch.dot(b, b)) / 2 for a, b in zip(one, other, strict=True))
        product = math.fsum(float(torch.dot(a, b)) for a, b in zip(one, other, strict=True))
        if not math.isnan(self._square):
            square = _NEW * square + (1 - _NEW) * self._square
            product = _NEW * product + (1 - _NEW) * self._product
        if math.isfinite(square) and math.isfinite(product):
            self._square, self._product = square, product

    def _plan_next(self, trainer: Any, step: int) -> None:
        begun, first = self._begun or (0.0, 0)
        passed = self.clock() - begun
        pace = passed / max(step - first, 1)
        rest = self._spent / _SHARE_OF_TIME - passed
        wait = math.ceil(rest / pace) if pace > 0 and rest > 0 else 0
        self._next = step + max(trainer.log_every_n_steps, wait, 1)


def rows_of_a_step(trainer: Any, profile: Profile | None) -> int | None:
    """Return the samples that one optimizer step sees (None: not known)."""
    size = profile.data.batch_size if profile is not None else None
    return None if size is None else size * trainer.accumulate_grad_batches * trainer.world_size


def _by_role(module: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Group the plain parameters of the module by what they are for; a sharded one is not looked at."""
    parameters = dict(named_parameters(module))
    found: dict[str, list[nn.Parameter]] = {}
    for info in anatomy_of(module).trainable:
        own = parameters[info.name]
        if type(own) is nn.Parameter and type(own.data) is Tensor:
            found.setdefault(info.role.replace(" ", "_"), []).append(own)
    return found


def _gradients(parameters: Iterable[nn.Parameter]) -> Iterator[Tensor]:
    for parameter in parameters:
        if parameter.grad is not None:
            gradient = parameter.grad.detach()
            yield gradient.coalesce().values() if gradient.is_sparse else gradient


def _sample(values: Tensor) -> Tensor:
    """Take so many numbers, evenly, as float32."""
    flat = values.detach().flatten()
    return flat[:: max(flat.numel() // _SAMPLED, 1)].float()


def _norm(gradients: Iterable[Tensor]) -> float:
    norms = [torch.linalg.vector_norm(each.float()) for each in gradients]
    return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else math.nan


def _ratio(before: list[Tensor], parameters: list[nn.Parameter]) -> float:
    """Return how long the step was beside the weights it was made from."""
    moved = [torch.linalg.vector_norm(_sample(each) - old) for each, old in zip(parameters, before, strict=True)]
    weights = [torch.linalg.vector_norm(old) for old in before]
    total = float(torch.linalg.vector_norm(torch.stack(weights)))
    return float(torch.linalg.vector_norm(torch.stack(moved))) / total if total > 0 else math.nan
