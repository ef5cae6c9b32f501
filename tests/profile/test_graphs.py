"""A batch that holds a graph is told from every other one."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from optselect.profile.data import profile_data
from optselect.profile.items import edges_in
from optselect.profile.model import profile_model
from optselect.workload.protocol import DataSource

# scikit-learn needs scipy; imported this way because scipy brings no types.
sparse = pytest.importorskip("scipy.sparse")

NODES = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
EDGE_INDEX = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
RING = torch.zeros(6, 6)
RING[torch.arange(6), (torch.arange(6) + 1) % 6] = 1.0
RING = RING + RING.T
LABELS = torch.zeros(6, dtype=torch.int64)


def compressed(matrix: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        # torch says once that this layout is in beta.
        warnings.simplefilter("ignore")
        return matrix.to_sparse_csr()


class Keyed:
    """What PyTorch Geometric's Data looks like from outside."""

    def keys(self) -> list[str]:
        return ["x", "edge_index", "y"]

    def __getitem__(self, key: str) -> torch.Tensor:
        return {"x": NODES, "edge_index": EDGE_INDEX, "y": LABELS}[key]


GRAPHS: dict[str, tuple[Any, int]] = {
    "edge_index": ((NODES, EDGE_INDEX, LABELS), 4),
    "a mapping": ({"x": NODES, "edge_index": EDGE_INDEX}, 4),
    "PyTorch Geometric": (Keyed(), 4),
    "numpy": ((NODES.numpy(), EDGE_INDEX.numpy()), 4),
    "a sparse matrix": ((NODES, RING.to_sparse(), LABELS), 12),
    "compressed rows": ((NODES, compressed(RING), LABELS), 12),
    "scipy": ((NODES, sparse.csr_matrix(RING.numpy()), LABELS), 12),
    "a dense matrix": ((NODES, RING, LABELS), 12),
    "many graphs of one size": ((NODES.expand(3, -1, -1), RING.expand(3, -1, -1), LABELS[:3]), 12),
}

SQUARE = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
OTHERS: dict[str, Any] = {
    "as many features as rows": (SQUARE, LABELS),
    "an autoencoder": (SQUARE, SQUARE.clone()),
    "pairs": (SQUARE, torch.relu(SQUARE), LABELS),
    "two rows of tokens": (EDGE_INDEX, LABELS[:2]),
    "two rows of tokens beyond the nodes": (EDGE_INDEX + 6, NODES),
    "images": (torch.rand(6, 6, 6), LABELS),
    "one matrix alone": RING,
    "text": ["a", "b"],
    "nothing": None,
    "numbers": 3.0,
    "an empty table": (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
    "users and items": (torch.randint(9, (6, 2)), torch.rand(6)),
    "arrays of objects": (np.array([["a"], ["b"]], dtype=object), NODES),
}


@pytest.mark.parametrize("batch, edges", GRAPHS.values(), ids=GRAPHS)
def test_the_edges_of_a_graph_are_counted_in_whatever_form(batch: Any, edges: int) -> None:
    assert edges_in(batch) == edges


@pytest.mark.parametrize("batch", OTHERS.values(), ids=OTHERS)
def test_what_is_no_graph_has_no_edges(batch: Any) -> None:
    assert edges_in(batch) is None


def stream(batch: Any) -> DataSource:
    return DataSource(dataset=None, collate=None, batch_size=None, batches=1, head=lambda count: [batch])


def test_the_edges_of_a_graph_are_neither_sparse_features_nor_a_sequence() -> None:
    batch = (NODES, RING.to_sparse(), LABELS)

    result = profile_data(stream(batch), batches=[batch])

    assert (result.edges, result.density, result.sequence_length) == (12, None, None)


def test_a_batch_that_cannot_be_looked_into_has_no_edges() -> None:
    class Broken:
        ndim = 2

        @property
        def shape(self) -> tuple[int, int]:
            raise RuntimeError("lost")

    assert profile_data(stream(NODES), batches=[(Broken(), NODES)]).edges is None


@pytest.mark.parametrize(
    "name, graph",
    [
        ("GCNConv", True),
        ("SAGEConv", True),
        ("GraphAttention", True),
        ("MyMessagePassing", True),
        ("GINBlock", True),
        ("ResidualGATLayer", True),
        ("GatedBlock", False),
        ("GraphModule", False),
        ("Original", False),
        ("Linear", False),
    ],
)
def test_a_graph_net_is_told_by_the_names_of_its_classes(name: str, *, graph: bool) -> None:
    layer = type(name, (nn.Module,), {})()

    assert profile_model(nn.Sequential(layer, nn.Linear(2, 2))).graph is graph


@pytest.mark.parametrize(
    "model, dropout",
    [
        (nn.Linear(2, 2), 0.0),
        (nn.Sequential(nn.Dropout(0.1), nn.Dropout2d(0.3)), 0.3),
        (nn.LSTM(2, 2, num_layers=2, dropout=0.2), 0.2),
        (nn.MultiheadAttention(4, 2, dropout=0.4), 0.4),
    ],
)
def test_the_largest_dropout_is_known(model: nn.Module, dropout: float) -> None:
    assert profile_model(model).dropout == pytest.approx(dropout)
