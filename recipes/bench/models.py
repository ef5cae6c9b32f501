"""The tasks' models: small, plain, and each of another kind."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optselect.recipes.bench.sources import BIBLE_WINDOW


def perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Make a perceptron with two hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )


def regression(inputs: int, hidden: int) -> nn.Sequential:
    """Make a perceptron that gives one number for each row."""
    return nn.Sequential(perceptron(inputs, hidden, 1), nn.Flatten(0))


class Recurrent(nn.Module):
    """An LSTM, or another `kind`, whose mean state decides."""

    def __init__(self, inputs: int, hidden: int, classes: int, kind: type[nn.LSTM | nn.GRU] = nn.LSTM) -> None:
        super().__init__()
        self.cells = kind(inputs, hidden, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, series: Tensor) -> Tensor:
        """Score the classes of series, (batch, frames, channels)."""
        states, _ = self.cells(series)
        scores: Tensor = self.head(states.mean(1))
        return scores


class Factorisation(nn.Module):
    """A rating as the product of a user's and a film's vector, and a bias of each."""

    def __init__(self, users: int, films: int, width: int, *, sparse: bool) -> None:
        super().__init__()
        self.user, self.film = (
            nn.Embedding(users, width, sparse=sparse),
            nn.Embedding(films, width, sparse=sparse),
        )
        self.user_bias, self.film_bias = (
            nn.Embedding(users, 1, sparse=sparse),
            nn.Embedding(films, 1, sparse=sparse),
        )
        self.mean = nn.Parameter(torch.zeros(1))
        for table, deviation in (
            (self.user, 0.1),
            (self.film, 0.1),
            (self.user_bias, 0.0),
            (self.film_bias, 0.0),
        ):
            nn.init.normal_(table.weight, std=deviation)

    def forward(self, user: Tensor, film: Tensor) -> Tensor:
        """Predict ratings, (batch,), of users and films, (batch,) each."""
        biases = self.user_bias(user) + self.film_bias(film)
        rating: Tensor = self.mean + biases.squeeze(1) + (self.user(user) * self.film(film)).sum(1)
        return rating


class WordBag(nn.Module):
    """The mean of word vectors before a small perceptron."""

    def __init__(self, words: int, width: int, *, sparse: bool) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(words, width, mode="mean", padding_idx=0, sparse=sparse)
        self.hidden = nn.Linear(width, 32)
        self.head = nn.Linear(32, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Score the classes of tokens, (batch, words)."""
        scores: Tensor = self.head(F.relu(self.hidden(self.table(tokens))))
        return scores


def convolutional(classes: int) -> nn.Sequential:
    """Make three convolutions with BatchNorm for pictures of 28 x 28 pixels."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 16), (16, 32), (32, 32)):
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 3 * 3, classes))


class LetterConvolutions(nn.Module):
    """Two convolutions with BatchNorm along a sequence of letters."""

    def __init__(self, letters: int, length: int, classes: int, width: int = 32) -> None:
        super().__init__()
        self.table = nn.Embedding(letters, 16)
        layers: list[nn.Module] = []
        for inputs, outputs in ((16, width), (width, width)):
            convolution = nn.Conv1d(inputs, outputs, 5, padding=2, bias=False)
            layers += [convolution, nn.BatchNorm1d(outputs), nn.ReLU(), nn.MaxPool1d(2)]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(width * (length // 4), classes)

    def forward(self, sequences: Tensor) -> Tensor:
        """Score the classes of sequences, (batch, letters)."""
        scores: Tensor = self.head(self.layers(self.table(sequences).transpose(1, 2)))
        return scores


def encoder_layer(
    width: int, heads: int, *, norm_first: bool = True, epsilon: float = 1e-5
) -> nn.TransformerEncoderLayer:
    """Make attention and a perceptron four times as wide, without dropout."""
    return nn.TransformerEncoderLayer(
        width,
        heads,
        4 * width,
        dropout=0.0,
        activation="gelu",
        layer_norm_eps=epsilon,
        batch_first=True,
        norm_first=norm_first,
    )


class CharacterModel(nn.Module):
    """A causal transformer that predicts the next character."""

    def __init__(self, characters: int, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.table = nn.Embedding(characters, width)
        nn.init.normal_(self.table.weight, std=0.02)
        self.position = nn.Parameter(0.02 * torch.randn(BIBLE_WINDOW, width))
        self.layers = nn.ModuleList(encoder_layer(width, 4) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, characters)

    def forward(self, tokens: Tensor) -> Tensor:
        """Score the next character at every place, (batch, window, characters)."""
        states = self.table(tokens) + self.position
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        for layer in self.layers:
            states = layer(states, src_mask=mask, is_causal=True)
        scores: Tensor = self.head(self.norm(states))
        return scores


class PatchTransformer(nn.Module):
    """A vision transformer on 16 patches of `side` x `side` pixels."""

    def __init__(self, classes: int, side: int = 7, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.side = side
        self.patches = nn.Linear(side**2, width)
        self.position = nn.Parameter(0.02 * torch.randn(16, width))
        self.layers = nn.ModuleList(encoder_layer(width, 4) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, pictures: Tensor) -> Tensor:
        """Score the classes of pictures, (batch, 1, 4 * side, 4 * side)."""
        states = self.patches(F.unfold(pictures, self.side, stride=self.side).transpose(1, 2)) + self.position
        for layer in self.layers:
            states = layer(states)
        scores: Tensor = self.head(self.norm(states).mean(1))
        return scores


class ColumnTransformer(nn.Module):
    """A transformer over the columns of a table whose values are codes."""

    def __init__(self, codes: int, classes: int, width: int = 32, layers: int = 2) -> None:
        super().__init__()
        self.table = nn.Embedding(codes, width)
        nn.init.normal_(self.table.weight, std=0.02)
        self.layers = nn.ModuleList(encoder_layer(width, 4) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, rows: Tensor) -> Tensor:
        """Score the classes of rows, (batch, columns)."""
        states = self.table(rows)
        for layer in self.layers:
            states = layer(states)
        scores: Tensor = self.head(self.norm(states).mean(1))
        return scores
