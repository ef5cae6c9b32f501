"""Handwritten digits with a small perceptron, and no optimizer anywhere.

    optselect fit --config digits.yaml

The data come with scikit-learn: 1797 pictures of 8 x 8 pixels, ten classes.
"""

from __future__ import annotations

import lightning as L
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

Batch = tuple[Tensor, Tensor]


class DigitsModel(L.LightningModule):
    """64 pixels, two hidden layers, 10 classes; no `configure_optimizers`: `AutoOptimizer` brings it."""

    def __init__(self, hidden: int = 128) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 10)
        )

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
        """Log `val_loss`, by which AutoOptimizer judges a trial unless it is told another name."""
        self._judge(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Test on pictures that neither the training nor the choice of the optimizer has seen."""
        self._judge(batch, "test")

    def _judge(self, batch: Batch, stage: str) -> None:
        pixels, digit = batch
        scores = self(pixels)
        self.log(f"{stage}_loss", F.cross_entropy(scores, digit))
        self.log(f"{stage}_accuracy", (scores.argmax(dim=1) == digit).float().mean())


class DigitsData(L.LightningDataModule):
    """1280 pictures to train on, 260 to validate, 257 to test; the same ones every time."""

    def __init__(self, batch_size: int = 64) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        """Split the data, each class in proportion, with a seed of its own."""
        digits = load_digits()
        pixels = torch.tensor(digits.data / 16, dtype=torch.float32)
        digit = torch.tensor(digits.target)
        train, rest = train_test_split(range(len(digit)), train_size=1280, stratify=digit, random_state=0)
        val, test = train_test_split(rest, train_size=260, stratify=digit[rest], random_state=0)
        self.train, self.val, self.test = (TensorDataset(pixels[rows], digit[rows]) for rows in (train, val, test))

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load 20 batches an epoch at the default size."""
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load one batch."""
        return DataLoader(self.val, batch_size=len(self.val))

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load one batch."""
        return DataLoader(self.test, batch_size=len(self.test))
