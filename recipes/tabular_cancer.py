"""Breast cancer from 30 measurements of a cell, with the area under the ROC curve as a second metric.

    optselect fit --config tabular_cancer.yaml

The data come with scikit-learn: 569 rows, 30 columns, two classes.
"""

from __future__ import annotations

import lightning as L
import torch
import torch.nn.functional as F
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import BinaryAUROC

Batch = tuple[Tensor, Tensor]


class CancerModel(L.LightningModule):
    """A perceptron that says how likely a tumour is benign."""

    def __init__(self, hidden: int = 64, dropout: float = 0.2) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(30, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1),
            nn.Flatten(0),
        )
        # A torchmetrics object gathers over all batches; Lightning computes it at the end of the epoch.
        self.val_auroc, self.test_auroc = BinaryAUROC(), BinaryAUROC()

    def forward(self, columns: Tensor) -> Tensor:
        """Return the log odds of "benign", (batch,), of columns, (batch, 30)."""
        scores: Tensor = self.net(columns)
        return scores

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        columns, benign = batch
        loss = F.binary_cross_entropy_with_logits(self(columns), benign.float())
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log `val_loss`, which judges the trials, and `val_auroc`, which is for people."""
        columns, benign = batch
        scores = self(columns)
        self.val_auroc.update(scores, benign)
        self.log("val_auroc", self.val_auroc)
        self.log("val_loss", F.binary_cross_entropy_with_logits(scores, benign.float()))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Test on rows that neither the training nor the choice of the optimizer has seen."""
        columns, benign = batch
        self.test_auroc.update(self(columns), benign)
        self.log("test_auroc", self.test_auroc)


class CancerData(L.LightningDataModule):
    """319 rows to train on, 125 to validate, 125 to test; the same ones every time."""

    def __init__(self, batch_size: int = 32) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        """Split the rows, each class in proportion, and scale all by what the training rows say."""
        columns, benign = load_breast_cancer(return_X_y=True)
        rest, test = train_test_split(range(len(benign)), test_size=125, stratify=benign, random_state=0)
        train, val = train_test_split(rest, test_size=125, stratify=benign[rest], random_state=0)
        mean, deviation = columns[train].mean(axis=0), columns[train].std(axis=0)
        inputs, target = torch.tensor((columns - mean) / deviation).float(), torch.tensor(benign)
        self.train, self.val, self.test = (TensorDataset(inputs[rows], target[rows]) for rows in (train, val, test))

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load ten batches an epoch at the default size."""
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load one batch."""
        return DataLoader(self.val, batch_size=len(self.val))

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load one batch."""
        return DataLoader(self.test, batch_size=len(self.test))
