"""Losses of tasks that `torch.nn.functional` does not have."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def next_character(scores: Tensor, characters: Tensor) -> Tensor:
    """Return the cross-entropy of characters, (batch, window), of scores (batch, window, characters)."""
    return F.cross_entropy(scores.flatten(0, 1), characters.flatten())


def negative_evidence(output: tuple[Tensor, Tensor, Tensor], pixels: Tensor) -> Tensor:
    """Bound the evidence from below: Kingma, Welling 2014, arXiv:1312.6114. Summed over pixels, as they do."""
    logits, mean, log_variance = output
    told = F.binary_cross_entropy_with_logits(logits, pixels, reduction="sum")
    divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2
    return (told + divergence) / len(pixels)
