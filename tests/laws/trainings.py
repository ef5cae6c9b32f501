"""Tiny real trainings, without a name of the project: what is recorded is trained on these.

In double precision, so that another machine's last bits decide nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_diabetes, load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

Loss = Callable[[Tensor, Tensor], Tensor]
Split = tuple[TensorDataset, TensorDataset]


@dataclass(frozen=True, kw_only=True)
class Training:
    """A model, its loss, its data, and the rows of a batch."""

    model: nn.Module
    loss: Loss
    train: TensorDataset
    validation: TensorDataset
    batch: int = 32


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """What `make` makes with these random numbers, in double precision."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().double()


def perceptron(*sizes: int, dropout: float = 0.0) -> nn.Module:
    """Linear layers with a ReLU between two of them."""
    layers: list[nn.Module] = []
    for width, following in itertools.pairwise(sizes):
        layers += [nn.Linear(width, following), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers[: -2 if dropout else -1])


def digits(classes: range = range(10), rows: int = 1200) -> Split:
    """Handwritten digits of some classes."""
    inputs, targets = load_digits(return_X_y=True)
    keep = torch.as_tensor(targets) < classes.stop
    x, y = torch.as_tensor(inputs)[keep].double() / 16, torch.as_tensor(targets)[keep]
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    x, y, rows = x[order], y[order], min(rows, len(x) * 2 // 3)
    return TensorDataset(x[:rows], y[:rows]), TensorDataset(x[rows:], y[rows:])


def table() -> Split:
    """A small noisy regression."""
    inputs, targets = load_diabetes(return_X_y=True, scaled=True)
    x, y = torch.as_tensor(inputs).double() * 21, torch.as_tensor(targets).double().unsqueeze(1)
    y = (y - y.mean()) / y.std()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(4))
    x, y = x[order], y[order]
    return TensorDataset(x[:320], y[:320]), TensorDataset(x[320:], y[320:])


def clusters(rows: int = 256, *, offset: int = 0) -> TensorDataset:
    """Three classes that a matrix separates."""
    generator = torch.Generator().manual_seed(1 + offset)
    matrix = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).double()
    inputs = torch.randn(rows, 6, generator=generator).double()
    return TensorDataset(inputs, (inputs @ matrix).argmax(1))


def bags(rows: int = 256, *, offset: int = 0) -> TensorDataset:
    """Bags of five tokens, of which three tell the class by their remainder."""
    generator = torch.Generator().manual_seed(1 + offset)
    targets = torch.randint(3, (rows,), generator=generator)
    telling = targets[:, None] + 3 * torch.randint(6, (rows, 3), generator=generator)
    return TensorDataset(torch.cat([telling, torch.randint(18, (rows, 2), generator=generator)], 1), targets)


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


class Brittle(nn.Module):
    """Raises once its weights have grown: some trials fail."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.hidden = nn.Linear(6, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.head.weight.norm() > self.bound:
            raise RuntimeError("the head has grown too far")
        output: Tensor = self.head(torch.relu(self.hidden(inputs)))
        return output


class Backbone(nn.Module):
    """Two layers and a head, under names that policies know."""

    def __init__(self, inputs: int, width: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.second = nn.Linear(width, width)
        self.head = nn.Linear(width, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.head(torch.relu(self.second(torch.relu(self.first(inputs)))))
        return output


def fitted(model: nn.Module, loss: Loss, data: TensorDataset, *, steps: int, rate: float) -> nn.Module:
    """`model`, trained by plain Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for batch in batches(data, 32, seed=9, count=steps):
        optimizer.zero_grad()
        loss(model(batch[0]), batch[1]).backward()
        optimizer.step()
    model.zero_grad()
    return model


def batches(data: TensorDataset, size: int, *, seed: int, count: int) -> list[tuple[Tensor, ...]]:
    """So many batches, the rows in another order for every pass."""
    generator = torch.Generator().manual_seed(seed)
    drawn: list[tuple[Tensor, ...]] = []
    while len(drawn) < count:
        order = torch.randperm(len(data), generator=generator)
        drawn += [data[rows] for rows in order.split(size) if len(rows) == size]
    return drawn[:count]


def loader(data: TensorDataset, batch: int, *, shuffle: bool) -> DataLoader[Any]:
    """A loader as users write it."""
    return DataLoader(data, batch_size=batch, shuffle=shuffle)


def digits_training(seed: int = 0) -> Training:
    """A small perceptron on digits."""
    train, validation = digits()
    model = seeded(lambda: perceptron(64, 24, 10), seed)
    return Training(model=model, loss=F.cross_entropy, train=train, validation=validation)


def table_training(seed: int = 0) -> Training:
    """A small perceptron that overfits a small table."""
    train, validation = table()
    model = seeded(lambda: perceptron(10, 32, 16, 1), seed)
    return Training(model=model, loss=F.mse_loss, train=train, validation=validation)


def tuned_training(seed: int = 0) -> Training:
    """A trained model with a new head: it knew the digits below five, and is to learn all from few rows."""
    known, _ = digits(range(5))
    body = fitted(seeded(lambda: Backbone(64, 32, 5), 0), F.cross_entropy, known, steps=300, rate=3e-3)
    model = seeded(lambda: Backbone(64, 32, 10), seed)
    model.load_state_dict(
        {name: value for name, value in body.state_dict().items() if "head" not in name}, strict=False
    )
    train, validation = digits(rows=160)
    return Training(model=model, loss=F.cross_entropy, train=train, validation=validation)


CURVED = {"digits": digits_training, "table": table_training, "tuned": tuned_training}


def clusters_training(seed: int = 0) -> Training:
    """Three classes and a small perceptron."""
    model = seeded(lambda: perceptron(6, 16, 16, 3, dropout=0.1), seed)
    return Training(model=model, loss=F.cross_entropy, train=clusters(), validation=clusters(96, offset=1), batch=16)


def bags_training(seed: int = 0) -> Training:
    """Sparse gradients before a dense head."""
    return Training(
        model=seeded(Words, seed), loss=F.cross_entropy, train=bags(), validation=bags(96, offset=1), batch=16
    )


def brittle_training(seed: int = 0, bound: float = 3.0) -> Training:
    """A model that does not bear every rate."""
    return Training(
        model=seeded(lambda: Brittle(bound), seed),
        loss=F.cross_entropy,
        train=clusters(),
        validation=clusters(96, offset=1),
        batch=16,
    )


def fragile_training(seed: int = 0) -> Training:
    """A model that bears few rates."""
    return brittle_training(seed, bound=1.2)


def slippery_training(seed: int = 0) -> Training:
    """A regression on which a rate that is a little too high diverges slowly."""
    return steep_training(seed, scale=0.33)


def steep_training(seed: int = 0, scale: float = 1.0) -> Training:
    """A regression whose inputs are not scaled, so that high rates diverge."""
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(288, 6, generator=generator).double() * torch.logspace(-0.5, 0.7, 6).double()
    targets = inputs @ torch.randn(6, 2, generator=generator).double() + 0.3
    inputs *= scale
    train, validation = TensorDataset(inputs[:192], targets[:192]), TensorDataset(inputs[192:], targets[192:])
    model = seeded(lambda: nn.Linear(6, 2), seed)
    return Training(model=model, loss=F.mse_loss, train=train, validation=validation, batch=16)


def trained_training(seed: int = 0) -> Training:
    """Three classes again, after the training: what is left is fine-tuning under a new head."""
    body = fitted(seeded(lambda: Backbone(6, 16, 3), seed), F.cross_entropy, clusters(), steps=200, rate=3e-3)
    model = seeded(lambda: Backbone(6, 16, 4), seed)
    model.load_state_dict(
        {name: value for name, value in body.state_dict().items() if "head" not in name}, strict=False
    )
    train, validation = (
        TensorDataset(data.tensors[0], (data.tensors[0][:, 0] > 0).long() + 2 * (data.tensors[1] > 0).long())
        for data in (clusters(64, offset=2), clusters(96, offset=3))
    )
    return Training(model=model, loss=F.cross_entropy, train=train, validation=validation, batch=16)


def continued_training(seed: int = 0) -> Training:
    """Three classes once more: the model knows nearly all that there is to know."""
    model = fitted(seeded(lambda: Backbone(6, 16, 3), seed), F.cross_entropy, clusters(), steps=120, rate=3e-3)
    train, validation = clusters(64, offset=2), clusters(96, offset=3)
    return Training(model=model, loss=F.cross_entropy, train=train, validation=validation, batch=16)


SEARCHED = {
    "bags": bags_training,
    "brittle": brittle_training,
    "clusters": clusters_training,
    "continued": continued_training,
    "fragile": fragile_training,
    "slippery": slippery_training,
    "steep": steep_training,
    "trained": trained_training,
}


def own_optimizer(name: str) -> Callable[[nn.Module], Any]:
    """What a user would have written."""

    def momentum(model: nn.Module) -> Any:
        optimizer = torch.optim.SGD(model.parameters(), lr=2e-3, momentum=0.9)
        return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 24, 0.5)

    def good(model: nn.Module) -> Any:
        return torch.optim.Adam(model.parameters(), lr=5e-2), None

    return {"slow momentum": momentum, "good adam": good}[name]


def built_as(optimizer: Any, scheduler: Any) -> dict[str, Any]:
    """An optimizer and its scheduler in plain words."""
    groups = [
        {
            "lr": group.get("initial_lr", group["lr"]),
            "weight_decay": group["weight_decay"],
            "sizes": [each.numel() for each in group["params"]],
        }
        for group in optimizer.param_groups
    ]
    trains = [each.requires_grad for group in optimizer.param_groups for each in group["params"]]
    return {
        "optimizer": type(optimizer).__name__,
        "children": sorted(type(each).__name__ for each in getattr(optimizer, "children", {}).values()),
        "scheduler": type(scheduler).__name__,
        "groups": groups,
        "trains": trains,
    }
