"""What will this user think of that film? Matrix factorisation with sparse embeddings.

    optselect fit --config factors_movielens.yaml

The data come with the package recbole: MovieLens, 100,000 ratings of 1,682 films by 943 users.
"""

from __future__ import annotations

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from optselect.recipes.bench.sources import movielens

Batch = tuple[Tensor, Tensor, Tensor]


class FactorsModel(L.LightningModule):
    """A rating is the product of a user's and a film's vector, and a bias of each."""

    def __init__(self, width: int = 32, users: int = 943, films: int = 1_682) -> None:
        super().__init__()
        # Sparse: a batch has gradients for the users and films in it alone.
        self.user, self.film = nn.Embedding(users, width, sparse=True), nn.Embedding(films, width, sparse=True)
        self.user_bias, self.film_bias = nn.Embedding(users, 1, sparse=True), nn.Embedding(films, 1, sparse=True)
        self.mean = nn.Parameter(torch.zeros(1))
        for table, deviation in ((self.user, 0.1), (self.film, 0.1), (self.user_bias, 0.0), (self.film_bias, 0.0)):
            nn.init.normal_(table.weight, std=deviation)

    def forward(self, user: Tensor, film: Tensor) -> Tensor:
        """Predict ratings less 3, (batch,), of users and films, (batch,) each."""
        biases = self.user_bias(user) + self.film_bias(film)
        rating: Tensor = self.mean + biases.squeeze(1) + (self.user(user) * self.film(film)).sum(dim=1)
        return rating

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        user, film, rating = batch
        loss = F.mse_loss(self(user, film), rating)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log `val_loss`, by which AutoOptimizer judges a trial."""
        user, film, rating = batch
        self.log("val_loss", F.mse_loss(self(user, film), rating))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the squared error, in stars, of ratings that neither training nor choice has seen."""
        user, film, rating = batch
        self.log("test_loss", F.mse_loss(self(user, film), rating))


class MovieLensData(L.LightningDataModule):
    """80,000 ratings to train on, 5,000 to validate, 15,000 to test; the same ones every time."""

    def __init__(self, batch_size: int = 256) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        """Split the ratings."""
        ratings = TensorDataset(*movielens())
        seed = torch.Generator().manual_seed(0)
        self.train, self.val, self.test = random_split(ratings, [80_000, 5_000, 15_000], seed)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load 313 batches an epoch at the default size."""
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load two batches."""
        return DataLoader(self.val, batch_size=2_500)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Load six batches."""
        return DataLoader(self.test, batch_size=2_500)
