"""Nets that were trained before, on other data, and what they are tuned on.

They are trained where they are asked for first, always the same way: no weights are shipped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optselect.recipes.bench import sources
from optselect.recipes.bench.losses import next_character
from optselect.recipes.bench.models import CharacterModel, PatchTransformer
from optselect.recipes.bench.sources import Tensors
from optselect.recipes.portfolio import made
from optselect.recipes.portfolio.models import ResidualConvolutions, deep


def _trained(
    model: nn.Module, data: Tensors, loss: Callable[[Tensor, Tensor], Tensor], *, steps: int, batch_size: int = 64
) -> dict[str, Tensor]:
    """Train `model` with AdamW and a cosine, and return its weights."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    source = made.generator(91)
    for _ in range(steps):
        rows = torch.randint(len(data[0]), (batch_size,), generator=source)
        optimizer.zero_grad()
        loss(model(data[0][rows]), data[1][rows]).backward()
        optimizer.step()
        schedule.step()
    return model.eval().state_dict()


def _of_classes(data: Tensors, low: int, high: int) -> Tensors:
    rows = (data[1] >= low) & (data[1] < high)
    return data[0][rows], data[1][rows] - low


def rotated(data: Tensors) -> Tensors:
    """Turn pictures by a quarter: what a net knows of others helps with these."""
    return data[0].rot90(1, (2, 3)).contiguous(), data[1]


@cache
def _knows_gratings() -> dict[str, Tensor]:
    torch.manual_seed(92)
    return _trained(ResidualConvolutions(8, 16), made.gratings(), F.cross_entropy, steps=300)


def tuned_convolutions(classes: int) -> nn.Module:
    """Take a residual net that knows gratings, with a new head."""
    net = ResidualConvolutions(8, 16)
    net.load_state_dict(_knows_gratings())
    net.head = nn.Linear(16, classes)
    return net


@cache
def _knows_digits(low: int, high: int) -> dict[str, Tensor]:
    torch.manual_seed(93)
    return _trained(PatchTransformer(high - low), _of_classes(sources.mnist(), low, high), F.cross_entropy, steps=400)


def tuned_transformer(classes: int) -> nn.Module:
    """Take a vision transformer that knows the digits 0 to 4, with a new head."""
    net = PatchTransformer(5)
    net.load_state_dict(_knows_digits(0, 5))
    net.head = nn.Linear(64, classes)
    return net


def other_digits() -> Tensors:
    """Read MNIST's digits 5 to 9."""
    return _of_classes(sources.mnist(), 5, 10)


@cache
def _knows_scripture() -> dict[str, Tensor]:
    torch.manual_seed(94)
    return _trained(
        CharacterModel(62, width=48, window=48), made.scripture(48, 6_000), next_character, steps=600, batch_size=16
    )


def tuned_language_model() -> nn.Module:
    """Take a language model that knows the beginning of the King James text, whole."""
    net = CharacterModel(62, width=48, window=48)
    net.load_state_dict(_knows_scripture())
    return net


@cache
def _knows_letters() -> dict[str, Tensor]:
    torch.manual_seed(95)
    return _trained(deep(16, 128, 13, 3), _of_classes(sources.keel("letter"), 0, 13), F.cross_entropy, steps=800)


def tuned_perceptron(classes: int) -> nn.Module:
    """Take a perceptron that knows the letters A to M, with a new head."""
    net = deep(16, 128, 13, 3)
    net.load_state_dict(_knows_letters())
    net[-1] = nn.Linear(128, classes)
    return net


def other_letters() -> Tensors:
    """Read KEEL's letters N to Z."""
    return _of_classes(sources.keel("letter"), 13, 26)
