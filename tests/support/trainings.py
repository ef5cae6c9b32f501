"""One real small training for each regime that the rules tell apart, built anew at each call."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from sklearn.datasets import load_diabetes, load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from optselect import TorchWorkload

STEPS = 300


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def loader(*tensors: Tensor, batch_size: int = 32) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(*tensors), batch_size=batch_size, shuffle=True)


def classification(
    model: nn.Module, inputs: Tensor, targets: Tensor, *, batch_size: int = 32, steps: int = STEPS
) -> TorchWorkload:
    return TorchWorkload(model, nn.CrossEntropyLoss(), loader(inputs, targets, batch_size=batch_size), steps=steps)


def digits() -> tuple[Tensor, Tensor]:
    pixels, labels = load_digits(return_X_y=True)
    return torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16, torch.tensor(labels)


# --- images -----------------------------------------------------------------------------------


def convolutional() -> nn.Sequential:
    return nn.Sequential(
        *(
            layer
            for inside, outside in ((1, 16), (16, 32), (32, 32))
            for layer in (nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU())
        ),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


class VisionTransformer(nn.Module):
    """Sixteen patches of two by two pixels."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(1, width, 2, stride=2)
        self.positions = nn.Parameter(torch.zeros(16, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embedding(images).flatten(2).transpose(1, 2)
        output: Tensor = self.head(self.encoder(patches + self.positions).mean(1))
        return output


def batchnorm_cnn() -> TorchWorkload:
    return classification(convolutional(), *digits(), steps=10_000)


def short_batchnorm_cnn() -> TorchWorkload:
    return classification(convolutional(), *digits())


def vision_transformer() -> TorchWorkload:
    return classification(VisionTransformer(), *digits(), batch_size=64)


def pretrained_cnn() -> TorchWorkload:
    """Trained on one half of the digits, with a fresh head for the other."""
    model, (images, labels) = convolutional(), digits()
    _train(model, images[labels < 5], labels[labels < 5])
    model[-1] = nn.Linear(32, 5)
    return classification(model, images[labels >= 5], labels[labels >= 5] - 5)


def pretrained_transformer() -> TorchWorkload:
    model, (images, labels) = VisionTransformer(), digits()
    _train(model, images[labels < 5], labels[labels < 5])
    model.head = nn.Linear(32, 5)
    return classification(model, images[labels >= 5], labels[labels >= 5] - 5)


def _train(model: nn.Module, images: Tensor, labels: Tensor, steps: int = 20) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        batch = slice(32 * step, 32 * step + 32)
        optimizer.zero_grad()
        F.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()


# --- sequences ----------------------------------------------------------------------------------


class CausalTransformer(nn.Module):
    """Characters in, the next character out; the output layer is the embedding's transpose."""

    def __init__(self, vocabulary: int, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(64, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        mask = torch.triu(torch.full((length, length), -math.inf), diagonal=1)
        hidden = self.embedding(tokens) + self.positions(torch.arange(length))
        output: Tensor = self.lm_head(self.encoder(hidden, mask=mask, is_causal=True))
        return output


def causal_transformer() -> TorchWorkload:
    """The text is what this very file says."""
    text = Path(__file__).read_text("utf-8")
    letters = sorted(set(text))
    tokens = torch.tensor([letters.index(letter) for letter in text])
    windows = tokens[: 65 * (len(tokens) // 65)].reshape(-1, 65)
    return TorchWorkload(
        CausalTransformer(len(letters)),
        lambda logits, target: F.cross_entropy(logits.flatten(0, 1), target.flatten()),
        loader(windows[:, :-1].contiguous(), windows[:, 1:].contiguous(), batch_size=16),
        steps=STEPS,
    )


class Recurrent(nn.Module):
    """The last state of a recurrent net, read by a linear layer."""

    def __init__(self, net: nn.LSTM | nn.GRU, outputs: int) -> None:
        super().__init__()
        self.net = net
        self.head = nn.Linear(net.hidden_size, outputs)

    def forward(self, series: Tensor) -> Tensor:
        output: Tensor = self.head(self.net(series)[0][:, -1])
        return output


def _waves() -> tuple[Tensor, Tensor]:
    """Three channels over 24 steps, and the frequency of the first."""
    times = torch.arange(24) / 24
    frequency = 1 + 5 * torch.rand(400, 1, generator=generator())
    phase = 6 * torch.rand(400, 1, generator=generator(1))
    channels = [torch.sin(6 * frequency * times + phase), torch.cos(3 * frequency * times), times.expand(400, -1)]
    return torch.stack(channels, dim=2), frequency


def lstm() -> TorchWorkload:
    series, frequency = _waves()
    return classification(Recurrent(nn.LSTM(3, 32, batch_first=True), 4), series, (frequency[:, 0] - 1).long() % 4)


def gru() -> TorchWorkload:
    return TorchWorkload(Recurrent(nn.GRU(3, 32, batch_first=True), 1), nn.MSELoss(), loader(*_waves()), steps=STEPS)


# --- sparse -------------------------------------------------------------------------------------


class Bag(nn.Module):
    """The mean of a bag's embeddings, before a perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(3_000, 16, mode="mean", sparse=True)
        self.net = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, words: Tensor) -> Tensor:
        output: Tensor = self.net(self.bag(words))
        return output


class Factorisation(nn.Module):
    """A rating as the product of a user's and an item's vector."""

    def __init__(self, users: int = 943, items: int = 1_682, width: int = 8) -> None:
        super().__init__()
        self.users = nn.Embedding(users, width, sparse=True)
        self.items = nn.Embedding(items, width, sparse=True)

    def forward(self, pairs: Tensor) -> Tensor:
        output: Tensor = (self.users(pairs[:, 0]) * self.items(pairs[:, 1])).sum(1)
        return output


def bag_of_sparse_features() -> TorchWorkload:
    words = torch.randint(3_000, (2_000, 20), generator=generator())
    return classification(Bag(), words, (words < 1_500).sum(1).gt(10).long(), batch_size=64)


def matrix_factorisation(ratings: int = 10_000) -> TorchWorkload:
    users = torch.randint(943, (ratings, 1), generator=generator())
    items = torch.randint(1_682, (ratings, 1), generator=generator(1))
    stars = 1 + 4 * torch.rand(ratings, generator=generator(2))
    return TorchWorkload(
        Factorisation(),
        nn.MSELoss(),
        loader(torch.cat([users, items], 1), stars, batch_size=256),
        steps=STEPS,
    )


def wide_sparse_linear() -> TorchWorkload:
    """A linear model of 5,000 features of which 50 are there in each row."""
    rows = torch.zeros(600, 5_000)
    rows.scatter_(1, torch.randint(5_000, (600, 50), generator=generator()), 1.0)
    return classification(nn.Linear(5_000, 2), rows, rows[:, :2_500].sum(1).gt(25).long())


# --- tables -------------------------------------------------------------------------------------


def perceptron(inputs: int, outputs: int, width: int = 64) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)
    )


def _table(rows: int = 3_000, features: int = 16, classes: int = 5) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(rows, features, generator=generator())
    return inputs, (inputs @ torch.randn(features, classes, generator=generator(1))).argmax(1)


def tabular_mlp() -> TorchWorkload:
    return classification(perceptron(16, 5), *_table(), batch_size=128)


def small_overfitting_table() -> TorchWorkload:
    """442 patients, a noisy target, and ten times as many weights."""
    features, target = load_diabetes(return_X_y=True, scaled=True)
    inputs = torch.tensor(features, dtype=torch.float32) * 20
    progression = torch.tensor((target - target.mean()) / target.std(), dtype=torch.float32)[:, None]
    return TorchWorkload(perceptron(10, 1), nn.MSELoss(), loader(inputs, progression), steps=STEPS)


def long_tailed_classes() -> TorchWorkload:
    """200 classes, the k-th as frequent as 1/k, under a linear classifier."""
    frequencies = 1 / torch.arange(1, 201)
    labels = torch.multinomial(frequencies, 4_000, replacement=True, generator=generator())
    centres = torch.randn(200, 32, generator=generator(1))
    inputs = centres[labels] + torch.randn(4_000, 32, generator=generator(2))
    return classification(nn.Linear(32, 200), inputs, labels, batch_size=128)


def large_table() -> TorchWorkload:
    return classification(perceptron(16, 5), *_table(rows=100_000), batch_size=128)


def deep_table() -> TorchWorkload:
    """Twenty layers without a shortcut: what textbooks picture when they speak of saddle points."""
    hidden = [layer for _ in range(18) for layer in (nn.Linear(16, 16), nn.Tanh())]
    model = nn.Sequential(nn.Linear(16, 16), *hidden, nn.Linear(16, 5))
    return classification(model, *_table())


def full_batch() -> TorchWorkload:
    """A hundred points of a curve, all in one batch."""
    inputs = torch.linspace(-1, 1, 100)[:, None]
    model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
    return TorchWorkload(model, nn.MSELoss(), loader(inputs, torch.sin(5 * inputs), batch_size=100), steps=STEPS)


def bfloat16_weights() -> TorchWorkload:
    inputs, labels = _table()
    return classification(perceptron(16, 5).bfloat16(), inputs.bfloat16(), labels)


# --- graphs -------------------------------------------------------------------------------------


class GraphConvolution(nn.Module):
    """Kipf & Welling 2017, arXiv:1609.02907: a linear layer on the neighbours' mean."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inside, outside)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        return torch.matmul(adjacency, self.linear(nodes))


class NodeClassifier(nn.Module):
    """Two convolutions with dropout between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = GraphConvolution(32, 16), GraphConvolution(16, 3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        output: Tensor = self.second(self.dropout(torch.relu(self.first(nodes, adjacency))), adjacency)
        return output


class GraphClassifier(nn.Module):
    """The mean over a graph's nodes after two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = GraphConvolution(8, 32), GraphConvolution(32, 32)
        self.head = nn.Linear(32, 2)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        hidden = torch.relu(self.first(nodes, adjacency))
        output: Tensor = self.head(torch.relu(self.second(hidden, adjacency)).mean(-2))
        return output


def _ring(nodes: int) -> Tensor:
    """Each node beside its two neighbours."""
    here = torch.arange(nodes)
    dense = torch.zeros(nodes, nodes)
    dense[here, (here + 1) % nodes] = dense[(here + 1) % nodes, here] = 0.5
    return dense


def one_graph() -> TorchWorkload:
    nodes = torch.randn(200, 32, generator=generator())
    batch = (nodes, _ring(200).to_sparse(), nodes[:, :3].argmax(1))
    return TorchWorkload(NodeClassifier(), nn.CrossEntropyLoss(), [batch], steps=STEPS)


def many_graphs() -> TorchWorkload:
    nodes = torch.randn(300, 10, 8, generator=generator())
    adjacency = _ring(10).expand(300, -1, -1)
    return TorchWorkload(
        GraphClassifier(),
        nn.CrossEntropyLoss(),
        loader(nodes, adjacency, nodes[:, :, 0].mean(1).gt(0).long()),
        steps=STEPS,
    )
