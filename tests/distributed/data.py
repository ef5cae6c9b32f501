"""What the trainings on two processes learn."""

from __future__ import annotations

import torch
from torch.utils.data import TensorDataset


def rows() -> TensorDataset:
    """Three classes that a linear map separates."""
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(128, 6, generator=generator)
    return TensorDataset(inputs, (inputs @ torch.randn(6, 3, generator=generator)).argmax(1))
