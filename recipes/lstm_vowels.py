"""Who spoke this vowel? An LSTM on short series of twelve channels.

    optselect fit --config lstm_vowels.yaml

The data come with the package aeon: 640 recordings of Japanese vowels, nine speakers, up to 29 frames.
"""

from __future__ import annotations

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from optselect.recipes.bench.sources import vowels

Batch = tuple[Tensor, Tensor]


class RecurrentModel(L.LightningModule):
    """An LSTM whose mean state over the frames that are there decides."""

    def __init__(self, hidden: int = 64, layers: int = 1) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, hidden, num_layers=layers, batch_first=True)
        self.head = nn.Linear(hidden, 9)

    def forward(self, series: Tensor) -> Tensor:
        """Score the classes, (batch, 9), of series, (batch, frames, 12); a frame of zeros is padding."""
        states, _ = self.lstm(series)
        present = series.abs().sum(dim=2, keepdim=True) > 0
        scores: Tensor = self.head((states * present).sum(dim=1) / present.sum(dim=1))
        return scores

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        series, speaker = batch
        loss = F.cross_entropy(self(series), speaker)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log `val_loss`, by which AutoOptimizer judges a trial."""
        self._judge(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Test on recordings that neither the training nor the choice of the optimizer has heard."""
        self._judge(batch, "test")

    def _judge(self, batch: Batch, stage: str) -> None:
        series, speaker = batch
        scores = self(series)
        self.log(f"{stage}_loss", F.cross_entropy(scores, speaker))
        self.log(f"{stage}_accuracy", (scores.argmax(dim=1) == speaker).float().mean())


class VowelsData(L.LightningDataModule):
    """320 recordings to train on, 120 to validate, 200 to test; the same ones every time."""

    def __init__(self, batch_size: int = 32) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        """Split the recordings."""
        recordings = TensorDataset(*vowels())
        seed = torch.Generator().manual_seed(0)
        self.train, self.val, self.test = random_split(recordings, [320, 120, 200], seed)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load ten batches an epoch at the default size."""
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load one batch."""
        return DataLoader(self.val, batch_size=len(self.val))

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load one batch."""
        return DataLoader(self.test, batch_size=len(self.test))
