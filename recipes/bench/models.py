"""The tasks' models: small, plain, and each of another kind."""

from __future__ import annotations

from itertools import pairwise

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

    def __init__(self, characters: int, width: int = 64, layers: int = 2, window: int = BIBLE_WINDOW) -> None:
        super().__init__()
        self.table = nn.Embedding(characters, width)
        nn.init.normal_(self.table.weight, std=0.02)
        self.position = nn.Parameter(0.02 * torch.randn(window, width))
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


def autoencoder(inputs: int, hidden: int, code: int) -> nn.Sequential:
    """Make a perceptron that gives its inputs back through `code` numbers."""
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.ReLU(),
        nn.Linear(hidden, code),
        nn.Linear(code, hidden),
        nn.ReLU(),
        nn.Linear(hidden, inputs),
        nn.Sigmoid(),
    )


class VariationalAutoencoder(nn.Module):
    """An autoencoder whose code is drawn while it is trained; judged, it is the mean."""

    def __init__(self, inputs: int, hidden: int, code: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 2 * code))
        self.decoder = nn.Sequential(nn.Linear(code, hidden), nn.ReLU(), nn.Linear(hidden, inputs))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give logits of the pixels, (batch, pixels), and the means and log variances of their codes."""
        mean, log_variance = self.encoder(pixels).chunk(2, dim=1)
        code = mean
        if self.training:
            code = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        return self.decoder(code), mean, log_variance


class Siamese(nn.Module):
    """One perceptron that looks at two pictures: the nearer their vectors, the likelier they show the same."""

    def __init__(self, inputs: int, hidden: int, width: int) -> None:
        super().__init__()
        self.encoder = perceptron(inputs, hidden, width)
        self.threshold = nn.Parameter(torch.ones(1))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Give the logit, (batch,), that both show the same."""
        distance: Tensor = (self.encoder(first) - self.encoder(second)).square().sum(1)
        return self.threshold - distance


class RecurrentCharacterModel(nn.Module):
    """A GRU that predicts the next character."""

    def __init__(self, characters: int, width: int, hidden: int) -> None:
        super().__init__()
        self.table = nn.Embedding(characters, width)
        self.cells = nn.GRU(width, hidden, batch_first=True)
        self.head = nn.Linear(hidden, characters)

    def forward(self, tokens: Tensor) -> Tensor:
        """Score the next character at every place, (batch, window, characters)."""
        states, _ = self.cells(self.table(tokens))
        scores: Tensor = self.head(states)
        return scores


class BurgersNet(nn.Module):
    """A perceptron u(x, t) that is asked for the residual of Burgers' equation, or for u itself.

    Raissi, Perdikaris, Karniadakis 2019, J. Comp. Phys. 378.
    """

    def __init__(self, hidden: int, viscosity: float) -> None:
        super().__init__()
        self.viscosity = viscosity
        self.solution = nn.Sequential(
            nn.Linear(2, hidden),
            nn.Tanh(),
            nn.Linear(hidden, hidden),
            nn.Tanh(),
            nn.Linear(hidden, hidden),
            nn.Tanh(),
            nn.Linear(hidden, 1),
        )

    def forward(self, points: Tensor, inside: Tensor) -> Tensor:
        """Give u_t + u u_x - viscosity u_xx at points `inside`, (batch,), and u at the others."""
        points = points.clone().requires_grad_()
        u = self.solution(points).squeeze(1)
        u_x, u_t = torch.autograd.grad(u.sum(), points, create_graph=True)[0].unbind(1)
        u_xx = torch.autograd.grad(u_x.sum(), points, create_graph=True)[0][:, 0]
        return torch.where(inside, u_t + u * u_x - self.viscosity * u_xx, u)


class DilatedConvolutions(nn.Module):
    """Causal convolutions along a series, each looking twice as far back, whose last state tells what follows."""

    def __init__(self, horizon: int, width: int, layers: int = 5) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, width, 1)
        self.layers = nn.ModuleList(nn.Conv1d(width, width, 2, dilation=2**depth) for depth in range(layers))
        self.head = nn.Linear(width, horizon)

    def forward(self, series: Tensor) -> Tensor:
        """Predict the next values, (batch, horizon), of series, (batch, window)."""
        states = self.first(series.unsqueeze(1))
        for depth, layer in enumerate(self.layers):
            states = states + F.relu(layer(F.pad(states, (2**depth, 0))))
        values: Tensor = self.head(states[:, :, -1])
        return values


class GraphConvolutions(nn.Module):
    """Each node's state from its own and the sum of its neighbours', then the graph's from the mean of its nodes.

    Morris et al. 2019, arXiv:1810.02244.
    """

    def __init__(self, features: int, width: int, classes: int, layers: int = 3) -> None:
        super().__init__()
        widths = [features, *[width] * layers]
        self.own, self.neighbours = (
            nn.ModuleList(nn.Linear(*pair, bias=bias) for pair in pairwise(widths)) for bias in (True, False)
        )
        self.head = nn.Linear(width, classes)

    def forward(self, adjacency: Tensor, features: Tensor) -> Tensor:
        """Score the classes of graphs: (batch, nodes, nodes) and (batch, nodes, features)."""
        states = features
        for own, neighbours in zip(self.own, self.neighbours, strict=True):
            states = F.relu(own(states) + adjacency @ neighbours(states))
        scores: Tensor = self.head(states.mean(1))
        return scores


class Segmentation(nn.Module):
    """Convolutions with BatchNorm down to half the size and up again, beside what went down."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.down = _convolution(1, width)
        self.middle = nn.Sequential(
            nn.MaxPool2d(2), _convolution(width, 2 * width), _convolution(2 * width, width), nn.Upsample(scale_factor=2)
        )
        self.up = _convolution(2 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Score the classes of each pixel, (batch, classes, side, side), of pictures, (batch, 1, side, side)."""
        fine = self.down(pictures)
        scores: Tensor = self.head(self.up(torch.cat([fine, self.middle(fine)], dim=1)))
        return scores


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())
