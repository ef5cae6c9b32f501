"""torch-geometric: a graph network on its Lightning data set, with an optimizer as its examples write it."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GIN, global_add_pool

from tests.packages.running import Run, loss_after_fit

MONITOR = None
EPOCHS = 8


def graphs(run: Run, part: str, count: int) -> list[Any]:
    """Random graphs; the class says whether a feature, summed over the ends of all edges, is positive."""
    rng = run.draw(part)
    return [graph(rng) for _ in range(count)]


def graph(rng: np.random.Generator) -> Any:
    """Draw one."""
    nodes = int(rng.integers(8, 20))
    edges = torch.as_tensor(np.array(np.nonzero(rng.random((nodes, nodes)) < 0.25)))
    features = torch.as_tensor(rng.normal(size=(nodes, 4)), dtype=torch.float32)
    degree = torch.bincount(edges[0], minlength=nodes).float()
    label = int((degree * features[:, 0]).sum() > 0)
    return Data(x=features, edge_index=edges, y=torch.tensor([label]))


class Net(L.LightningModule):
    """The package's GIN, pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.net = GIN(4, 32, 3, norm="batch_norm")
        self.head = torch.nn.Linear(32, 2)

    def forward(self, batch: Any) -> Tensor:
        scores: Tensor = self.head(global_add_pool(self.net(batch.x, batch.edge_index), batch.batch, batch.num_graphs))
        return scores

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch), batch.y)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self(batch), batch.y), batch_size=batch.num_graphs)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def train(run: Run) -> float:
    loaders = {
        part: DataLoader(graphs(run, part, count), batch_size=32, shuffle=part == "train")
        for part, count in (("train", 320), ("val", 128), ("test", 512))
    }
    model = Net()
    trainer = L.Trainer(**run.quiet, enable_checkpointing=False)
    return loss_after_fit(trainer, model, loaders)


def example(run: Run) -> dict[str, Any]:
    """Name what the page takes as the reader's own."""
    return {
        "module": Net(),
        "train_loader": DataLoader(graphs(run, "train", 64), batch_size=16, shuffle=True),
        "val_loader": DataLoader(graphs(run, "val", 32), batch_size=16),
    }
