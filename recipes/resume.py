"""A training that may be stopped at any time: the same line goes on, to the same end.

    optselect fit --config resume.yaml

Dropout and shuffling draw random numbers, so going on exactly needs more than weights: the optimizer's state,
the schedule, the plan, and the random numbers. All of them are in the checkpoint.
"""

from __future__ import annotations

import lightning as L
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

Batch = tuple[Tensor, Tensor]


class DropoutModel(L.LightningModule):
    """A perceptron that drops half of its units, each time others."""

    def __init__(self, hidden: int = 128, dropout: float = 0.5) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 10))

    def forward(self, pixels: Tensor) -> Tensor:
        """Score the classes, (batch, 10), of pixels, (batch, 64)."""
        scores: Tensor = self.net(pixels)
        return scores

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        pixels, digit = batch
        loss = F.cross_entropy(self(pixels), digit)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log `val_loss`, by which AutoOptimizer judges a trial."""
        pixels, digit = batch
        self.log("val_loss", F.cross_entropy(self(pixels), digit))


class ShuffledData(L.LightningDataModule):
    """1,400 digits in another order each epoch, and 397 to validate."""

    def __init__(self, batch_size: int = 64) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        """Split the data with a seed of its own, so that a resumed run has the same parts."""
        digits = load_digits()
        data = TensorDataset(torch.tensor(digits.data / 16).float(), torch.tensor(digits.target))
        self.train, self.val = random_split(data, [1_400, 397], torch.Generator().manual_seed(0))

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load 22 batches an epoch at the default size."""
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load one batch."""
        return DataLoader(self.val, batch_size=len(self.val))
