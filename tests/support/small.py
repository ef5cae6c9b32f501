"""Small real trainings that several tests share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    """Dropout, BatchNorm and a counter: whatever a trial may leave behind."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2))
        self.hidden = nn.Linear(16, 16)
        self.head = nn.Linear(16, 3)
        self.calls = 0
        self.history: list[int] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        self.history.append(len(inputs))
        output: Tensor = self.head(torch.relu(self.hidden(self.body(inputs))))
        return output


class Words(nn.Module):
    """An embedding with sparse gradients before a small dense head."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(20, 8, sparse=True)
        self.hidden = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        output: Tensor = self.head(torch.relu(self.hidden(self.table(tokens))))
        return output


def net(seed: int = 0) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net()


def words(seed: int = 0) -> Words:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Words()


def vectors(count: int = 96) -> TensorDataset:
    """The same problem whatever the count: three classes that a matrix separates."""
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(6, 3, generator=generator)
    inputs = torch.randn(count, 6, generator=generator)
    return TensorDataset(inputs, (inputs @ matrix).argmax(1))


def sentences(count: int = 96) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(20, (count, 5), generator=generator)
    return TensorDataset(tokens, tokens[:, 0] % 3)


def loader(
    dataset: TensorDataset | None = None, batch_size: int = 16, *, shuffle: bool = True
) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(dataset or vectors(), batch_size=batch_size, shuffle=shuffle)
