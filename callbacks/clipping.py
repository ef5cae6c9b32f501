"""Gradient clipping where some gradients are sparse, which torch's own clipping crashes on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, get_total_norm


def clip_sparse_gradients(precision: Any) -> None:
    """Let `precision`, a Lightning precision plugin, clip sparse gradients by their coalesced values.

    Dense gradients alone go through torch's functions as before. `unclip_sparse_gradients` takes it back.
    """
    vars(precision)["clip_grad_by_norm"] = functools.partial(_clip, precision, clip_norm)
    vars(precision)["clip_grad_by_value"] = functools.partial(_clip, precision, clip_value)


def unclip_sparse_gradients(precision: Any) -> None:
    """Let `precision` clip as Lightning does."""
    for name in ("clip_grad_by_norm", "clip_grad_by_value"):
        vars(precision).pop(name, None)


def clip_norm(parameters: Iterable[Tensor], limit: float) -> None:
    """Scale all gradients so that their joint 2-norm is at most `limit`, sparse ones by their values."""
    gradients = _values(parameters)
    scale = (limit / (get_total_norm(gradients) + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale.to(gradient.device))


def clip_value(parameters: Iterable[Tensor], limit: float) -> None:
    """Clamp every gradient entry to [-limit, limit], sparse ones by their values."""
    for gradient in _values(parameters):
        gradient.clamp_(-limit, limit)


def _clip(precision: Any, clip: Callable[[Iterable[Tensor], float], None], optimizer: Any, clip_val: float) -> None:
    parameters = list(precision.main_params(optimizer))
    if any(parameter.grad is not None and parameter.grad.is_sparse for parameter in parameters):
        clip(parameters, clip_val)
    elif clip is clip_norm:
        clip_grad_norm_(parameters, clip_val)
    else:
        clip_grad_value_(parameters, clip_val)


@torch.no_grad()
def _values(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Collect what to clip: dense gradients, and the values of sparse ones with every index there once."""
    values = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            # An index may come several times before; its true entry is the sum.
            parameter.grad = parameter.grad.coalesce()
            values.append(parameter.grad._values())
        else:
            values.append(parameter.grad)
    return values
