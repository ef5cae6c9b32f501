"""The progress of diabetes from ten measurements: a small, noisy regression that stops early.

    optselect fit --config tabular_diabetes.yaml

The data come with scikit-learn: 442 rows, 10 columns, one number to predict.
"""

from __future__ import annotations

import lightning as L
import torch
import torch.nn.functional as F
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

Batch = tuple[Tensor, Tensor]


class DiabetesModel(L.LightningModule):
    """A perceptron with far more weights than there are rows, so that it overfits if it is let."""

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(10, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1), nn.Flatten(0)
        )

    def forward(self, columns: Tensor) -> Tensor:
        """Predict the standardised progress, (batch,), of columns, (batch, 10)."""
        progress: Tensor = self.net(columns)
        return progress

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        columns, progress = batch
        loss = F.mse_loss(self(columns), progress)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log `val_loss`, which judges the trials, stops the training and picks the checkpoint."""
        columns, progress = batch
        self.log("val_loss", F.mse_loss(self(columns), progress))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the error in units of the target's own deviation: 1 is what the mean alone would have."""
        columns, progress = batch
        self.log("test_rmse", F.mse_loss(self(columns), progress).sqrt())


class DiabetesData(L.LightningDataModule):
    """242 rows to train on, 80 to validate, 120 to test; the same ones every time."""

    def __init__(self, batch_size: int = 32) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        """Split the rows, and scale all by what the training rows say."""
        columns, progress = load_diabetes(return_X_y=True)
        rest, test = train_test_split(range(len(progress)), test_size=120, random_state=0)
        train, val = train_test_split(rest, test_size=80, random_state=0)
        table = torch.tensor(columns).float(), torch.tensor(progress).float()
        inputs, target = ((values - values[train].mean(0)) / values[train].std(0) for values in table)
        self.train, self.val, self.test = (TensorDataset(inputs[rows], target[rows]) for rows in (train, val, test))

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load eight batches an epoch at the default size."""
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load one batch."""
        return DataLoader(self.val, batch_size=len(self.val))

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load one batch."""
        return DataLoader(self.test, batch_size=len(self.test))
