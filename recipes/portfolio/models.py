"""The workloads' models, where `optselect.recipes.bench.models` has none like them."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optselect.recipes.bench.models import encoder_layer, perceptron


class Squeeze(nn.Module):
    """Drops the last dimension, of size 1."""

    def forward(self, values: Tensor) -> Tensor:
        """Return (batch,) of (batch, 1)."""
        return values.squeeze(-1)


def deep(inputs: int, hidden: int, outputs: int, layers: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Make a perceptron with `layers` hidden layers; one output is a number for each row."""
    widths = [inputs, *[hidden] * layers]
    parts: list[nn.Module] = []
    for before, after in pairwise(widths):
        parts += [nn.Linear(before, after), activation()]
    return nn.Sequential(*parts, nn.Linear(hidden, outputs), *([Squeeze()] if outputs == 1 else []))


class ResidualPerceptron(nn.Module):
    """A perceptron whose blocks add to what went in, each after a LayerNorm, with dropout."""

    def __init__(self, inputs: int, width: int, outputs: int, blocks: int = 3, dropout: float = 0.1) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, 2 * width),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(2 * width, width),
            )
            for _ in range(blocks)
        )
        self.head = nn.Linear(width, outputs)

    def forward(self, rows: Tensor) -> Tensor:
        """Give `outputs` numbers for each row."""
        states = self.first(rows)
        for block in self.blocks:
            states = states + block(states)
        result: Tensor = self.head(states)
        return result


def plain_convolutions(classes: int, side: int, width: int) -> nn.Sequential:
    """Make three convolutions without any normalisation, each but the last of which halves the picture."""
    last = side // 4
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * last * last, classes),
    )


class ResidualConvolutions(nn.Module):
    """Two residual blocks with BatchNorm, or with GroupNorm, after a first convolution: He et al. 2016, in small."""

    def __init__(self, classes: int, width: int, *, batch_norm: bool = True) -> None:
        super().__init__()

        def norm() -> nn.Module:
            return nn.BatchNorm2d(width) if batch_norm else nn.GroupNorm(4, width)

        self.first = nn.Sequential(nn.Conv2d(1, width, 3, padding=1, bias=False), norm(), nn.ReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                norm(),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                norm(),
            )
            for _ in range(2)
        )
        self.head = nn.Linear(width, classes)

    def forward(self, pictures: Tensor) -> Tensor:
        """Score the classes of pictures, (batch, 1, side, side)."""
        states = self.first(pictures)
        for block in self.blocks:
            states = F.max_pool2d(F.relu(states + block(states)), 2)
        scores: Tensor = self.head(states.mean((2, 3)))
        return scores


class ClassTokenTransformer(nn.Module):
    """A vision transformer that reads its answer from a token of its own, with norms after the layers."""

    def __init__(self, classes: int, side: int, patches: int, width: int = 48, layers: int = 2) -> None:
        super().__init__()
        self.side = side
        self.patches = nn.Linear(side**2, width)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(patches + 1, width))
        self.layers = nn.ModuleList(encoder_layer(width, 4, norm_first=False) for _ in range(layers))
        self.head = nn.Linear(width, classes)

    def forward(self, pictures: Tensor) -> Tensor:
        """Score the classes of pictures, (batch, 1, side, side)."""
        patches = self.patches(F.unfold(pictures, self.side, stride=self.side).transpose(1, 2))
        states = torch.cat([self.token.expand(len(patches), -1, -1), patches], dim=1) + self.position
        for layer in self.layers:
            states = layer(states)
        scores: Tensor = self.head(states[:, 0])
        return scores


class LastState(nn.Module):
    """A recurrent net of `layers` layers whose last state decides."""

    def __init__(
        self, inputs: int, hidden: int, outputs: int, kind: type[nn.LSTM | nn.GRU] = nn.GRU, layers: int = 1
    ) -> None:
        super().__init__()
        self.cells = kind(inputs, hidden, num_layers=layers, batch_first=True)
        self.head = nn.Linear(hidden, outputs)

    def forward(self, series: Tensor) -> Tensor:
        """Give `outputs` numbers for each of series, (batch, frames, channels); one output is a number."""
        states, _ = self.cells(series)
        result: Tensor = self.head(states[:, -1])
        return result.squeeze(-1)


class SeriesState(nn.Module):
    """A GRU along series of single numbers, (batch, window), whose last state tells what follows."""

    def __init__(self, hidden: int, horizon: int) -> None:
        super().__init__()
        self.net = LastState(1, hidden, horizon)

    def forward(self, series: Tensor) -> Tensor:
        """Predict the next values, (batch, horizon)."""
        values: Tensor = self.net(series.unsqueeze(2))
        return values


class BackwardForward(nn.Module):
    """Perceptrons in a row, each of which takes off what it explains and adds to the forecast: arXiv:1905.10437."""

    def __init__(self, window: int, horizon: int, hidden: int, blocks: int = 3) -> None:
        super().__init__()
        self.sizes = [window, horizon]
        self.blocks = nn.ModuleList(perceptron(window, hidden, window + horizon) for _ in range(blocks))

    def forward(self, series: Tensor) -> Tensor:
        """Predict the next values, (batch, horizon), of series, (batch, window)."""
        left, forecast = series, torch.zeros(())
        for block in self.blocks:
            back, ahead = block(left).split(self.sizes, dim=1)
            left, forecast = left - back, forecast + ahead
        return forecast


class RecurrentText(nn.Module):
    """An LSTM that predicts the next letter."""

    def __init__(self, letters: int, width: int, hidden: int) -> None:
        super().__init__()
        self.table = nn.Embedding(letters, width)
        self.cells = nn.LSTM(width, hidden, batch_first=True)
        self.head = nn.Linear(hidden, letters)

    def forward(self, tokens: Tensor) -> Tensor:
        """Score the next letter at every place, (batch, window, letters)."""
        states, _ = self.cells(self.table(tokens))
        scores: Tensor = self.head(states)
        return scores


class TextTransformer(nn.Module):
    """A transformer over letters with places, whose mean state decides."""

    def __init__(self, letters: int, length: int, classes: int, width: int = 32, layers: int = 2) -> None:
        super().__init__()
        self.table = nn.Embedding(letters, width)
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        self.layers = nn.ModuleList(encoder_layer(width, 4) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Score the classes of tokens, (batch, length)."""
        states = self.table(tokens) + self.position
        for layer in self.layers:
            states = layer(states)
        scores: Tensor = self.head(self.norm(states).mean(1))
        return scores


class TextConvolutions(nn.Module):
    """Two convolutions along letters without normalisation; the strongest answer of each filter decides."""

    def __init__(self, letters: int, classes: int, width: int = 32) -> None:
        super().__init__()
        self.table = nn.Embedding(letters, 16)
        self.layers = nn.Sequential(
            nn.Conv1d(16, width, 5, padding=2), nn.ReLU(), nn.Conv1d(width, width, 5, padding=2), nn.ReLU()
        )
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Score the classes of tokens, (batch, length)."""
        scores: Tensor = self.head(self.layers(self.table(tokens).transpose(1, 2)).amax(2))
        return scores


class FieldBag(nn.Module):
    """The sum of the fields' vectors before a perceptron, and of weights of their own beside it."""

    def __init__(self, codes: int, width: int, *, sparse: bool) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(codes, width, mode="sum", sparse=sparse)
        self.weight = nn.EmbeddingBag(codes, 1, mode="sum", sparse=sparse)
        self.net = nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, codes: Tensor) -> Tensor:
        """Give the logit of a click, (batch,), for codes, (batch, fields)."""
        logit: Tensor = self.net(self.table(codes)) + self.weight(codes)
        return logit.squeeze(1)


class Neighbours(nn.Module):
    """Rounds of messages: the mean, or the sum, of neighbours joins a node's own state; the sum of all decides."""

    def __init__(self, features: int, width: int, outputs: int, *, mean: bool, rounds: int = 2) -> None:
        super().__init__()
        self.mean = mean
        self.first = nn.Linear(features, width)
        self.rounds = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(rounds))
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs))

    def forward(self, near: Tensor, features: Tensor) -> Tensor:
        """Give `outputs` numbers for each graph: (batch, nodes, nodes) and (batch, nodes, features)."""
        weights = near / near.sum(2, keepdim=True).clamp(min=1) if self.mean else near / 4
        states = F.relu(self.first(features))
        for each in self.rounds:
            states = F.relu(each(torch.cat([states, weights @ states], dim=2)))
        result: Tensor = self.head(states.mean(1))
        return result.squeeze(-1)


def bottleneck(inputs: int, hidden: int, code: int) -> nn.Sequential:
    """Make an autoencoder of any numbers, with tanh."""
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.Tanh(),
        nn.Linear(hidden, code),
        nn.Linear(code, hidden),
        nn.Tanh(),
        nn.Linear(hidden, inputs),
    )


class Variational(nn.Module):
    """An autoencoder whose code is drawn while it is trained, with two hidden layers each way."""

    def __init__(self, inputs: int, hidden: int, code: int) -> None:
        super().__init__()
        self.encoder = perceptron(inputs, hidden, 2 * code)
        self.decoder = perceptron(code, hidden, inputs)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give logits of the pixels, and the means and log variances of their codes."""
        mean, log_variance = self.encoder(pixels).chunk(2, dim=1)
        code = mean + torch.exp(log_variance / 2) * torch.randn_like(mean) if self.training else mean
        return self.decoder(code), mean, log_variance


class Encoder(nn.Module):
    """One net for both views; of each of the first, how near it is to every one of the second: arXiv:2002.05709."""

    def __init__(self, net: nn.Module, *, temperature: float = 0.2) -> None:
        super().__init__()
        self.net = net
        self.temperature = temperature

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Score pairs, (batch, batch)."""
        one, other = (F.normalize(self.net(view), dim=1) for view in (first, second))
        return one @ other.T / self.temperature


_CHOICE = 64


def pairs_found(scores: Tensor, _: Tensor) -> Tensor:
    """Ask of each first view which second one is its own, among 64 at a time: among more it is harder."""
    blocks = [scores[at : at + _CHOICE, at : at + _CHOICE] for at in range(0, len(scores), _CHOICE)]
    losses = [
        F.cross_entropy(each, torch.arange(len(each))) * len(each) for block in blocks for each in (block, block.T)
    ]
    return torch.stack(losses).sum() / (2 * len(scores))


# --- segmentation ---------------------------------------------------------------------------------------------------


class UNet(nn.Module):
    """Convolutions down to half the size and up again, with GroupNorm or without any."""

    def __init__(self, classes: int, width: int, *, groups: int | None) -> None:
        super().__init__()

        def convolution(inputs: int, outputs: int) -> nn.Sequential:
            norm = [nn.GroupNorm(groups, outputs)] if groups else []
            return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), *norm, nn.ReLU())

        self.down = convolution(1, width)
        self.middle = nn.Sequential(convolution(width, 2 * width), convolution(2 * width, width))
        self.up = convolution(2 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Score the classes of each pixel; one class is a logit for each, without a dimension of its own."""
        fine = self.down(pictures)
        coarse = F.interpolate(self.middle(F.max_pool2d(fine, 2)), fine.shape[2:])
        scores: Tensor = self.head(self.up(torch.cat([fine, coarse], dim=1)))
        return scores.squeeze(1)


def small_convolutional(classes: int, width: int) -> nn.Sequential:
    """Make two convolutions with BatchNorm for pictures of 8 x 8 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * 16, classes),
    )
