"""What tasks read that is made by code, or altered by it: the same tensors each time, the target last."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from optselect.recipes.bench import sources
from optselect.recipes.bench.sources import Tensors

_SEED = 2_000

SERIES_WINDOW, SERIES_HORIZON = 48, 12
GRAPH_NODES, GRAPH_FEATURES, GRAPH_FAMILIES = 20, 4, 4
SHAPE_SIDE = 24
VISCOSITY = 0.02


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(_SEED)


def counts(rows: int = 7_000) -> Tensors:
    """Draw six numbers a row, and a count from the Poisson distribution of a rate that bends with them."""
    generator = _generator()
    inputs = torch.randn(rows, 6, generator=generator)
    a, b, c, d, e, _ = inputs.unbind(1)
    rates = torch.exp(1 + torch.sin(2 * a) + 0.5 * b * c - 0.5 * d.abs() + 0.3 * e)
    return inputs, torch.poisson(rates.clamp(max=50), generator=generator)


def rare_letters(most: int = 700, least: int = 14) -> Tensors:
    """Read KEEL's letters, of each next one fewer: from `most` down to `least`, exponentially."""
    inputs, letter = sources.keel("letter")
    classes = int(letter.max()) + 1
    kept = [
        (letter == place).nonzero().squeeze(1)[: round(most * (least / most) ** (place / (classes - 1)))]
        for place in range(classes)
    ]
    rows = torch.cat(kept)
    return inputs[rows], letter[rows]


def mislabelled(name: str, share: float = 0.3) -> Tensors:
    """Read KEEL's data set `name`, and instead of a `share` of all labels, those of test data too, random ones."""
    generator = _generator()
    inputs, label = sources.keel(name)
    random = torch.randint(int(label.max()) + 1, label.shape, generator=generator)
    return inputs, torch.where(torch.rand(label.shape, generator=generator) < share, random, label)


def digits_twice() -> Tensors:
    """Read the 64 pixels of digits as what goes in and what shall come out."""
    pixels, _ = sources.digits()
    return pixels, pixels


def pictures_twice() -> Tensors:
    """Read the 784 pixels of MNIST's digits as what goes in and what shall come out."""
    pixels = sources.mnist()[0].flatten(1)
    return pixels, pixels


def digit_pairs() -> Tensors:
    """Read two pictures of digits, and whether the digit is the same: so in half of the pairs; no picture twice."""
    pixels, digit = sources.written_digits()
    pixels = pixels.flatten(1)
    shuffled = torch.randperm(len(digit), generator=_generator())
    half = len(digit) // 4 * 2
    # A digit beside itself: neighbours after sorting. Where two digits meet there, the pair is another one of two.
    alike = shuffled[:half][digit[shuffled[:half]].argsort(stable=True)]
    pairs = torch.cat([alike, shuffled[half : 2 * half]]).view(-1, 2)
    first, second = pairs.unbind(1)
    return pixels[first], pixels[second], (digit[first] == digit[second]).float()


def burgers_points(rows: int = 5_000) -> Tensors:
    """Draw points (x, t), whether the equation is asked for there, and what it or the solution shall be.

    Three of five lie inside, where the residual shall be 0; one at the start, where u = -sin(pi x); one on the
    edges x = -1 and x = 1, where u = 0.
    """
    generator = _generator()
    x = 2 * torch.rand(rows, generator=generator) - 1
    t = torch.rand(rows, generator=generator)
    kind = torch.arange(rows) % 5
    start, edge = kind == 3, kind == 4
    t = torch.where(start, 0.0, t)
    x = torch.where(edge, torch.where(x < 0, -1.0, 1.0), x)
    target = torch.where(start, -torch.sin(math.pi * x), 0.0)
    return torch.stack([x, t], dim=1), kind < 3, target


def seasons(rows: int = 6_000) -> Tensors:
    """Make series, each of its own trend, two seasons and noise: 48 values, and the 12 that follow."""
    generator = _generator()

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(rows, 1, generator=generator)

    time = torch.arange(SERIES_WINDOW + SERIES_HORIZON).float()
    values = uniform(-0.02, 0.02) * time
    for shortest, longest, strongest in ((5, 9, 1.0), (15, 30, 1.5)):
        angle = 2 * math.pi * (time / uniform(shortest, longest) + uniform(0, 1))
        values = values + uniform(0.2, strongest) * torch.sin(angle)
    values = values + 0.15 * torch.randn(values.shape, generator=generator)
    return values[:, :SERIES_WINDOW].contiguous(), values[:, SERIES_WINDOW:].contiguous()


def graphs(each: int = 900) -> Tensors:
    """Make adjacency matrices (20, 20) and features of nodes, and which of four families the graph is of.

    The families: random edges, preferential attachment, rings of neighbours, and two communities, all with four
    edges a node or nearly so. Of each graph a part of the edges, up to six in ten, is replaced by random ones.
    """
    generator = _generator()
    size = (each, GRAPH_NODES, GRAPH_NODES)
    place = torch.arange(GRAPH_NODES)
    distance = (place[:, None] - place).abs()
    ring = (torch.minimum(distance, GRAPH_NODES - distance) <= 2).float().expand(size)
    same = (place[:, None] < GRAPH_NODES // 2) == (place < GRAPH_NODES // 2)
    chances = (torch.full(size, 4 / 19), torch.where(same, 0.38, 0.06).expand(size))
    by_chance, communities = (torch.bernoulli(chance, generator=generator) for chance in chances)
    families = torch.cat([by_chance, _attached(each, generator), ring, communities])
    moved = 0.6 * torch.rand(len(families), 1, 1, generator=generator)
    kept = families * (torch.rand(families.shape, generator=generator) > moved)
    new = (torch.rand(families.shape, generator=generator) < moved * 4 / 19).float()
    upper = torch.maximum(kept, new).triu(1)
    features = torch.randn(len(families), GRAPH_NODES, GRAPH_FEATURES, generator=generator)
    features[:, :, 0] = 1
    return upper + upper.transpose(1, 2), features, torch.arange(GRAPH_FAMILIES).repeat_interleave(each)


def _attached(graphs: int, generator: torch.Generator) -> Tensor:
    """Let each node join two earlier ones, those with more edges sooner."""
    edges = torch.zeros(graphs, GRAPH_NODES, GRAPH_NODES)
    edges[:, 0, 1] = edges[:, 1, 0] = 1
    for node in range(2, GRAPH_NODES):
        degrees = edges[:, :node].sum(2)
        chosen = torch.multinomial(degrees, 2, generator=generator)
        joined = F.one_hot(chosen, GRAPH_NODES).sum(1).float()
        edges[:, node] += joined
        edges[:, :, node] += joined
    return edges


def shapes(rows: int = 2_000) -> Tensors:
    """Draw a disc, a square and a diamond into noise, later ones over earlier; of each pixel, which it is, or none."""
    generator = _generator()

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(rows, 1, 1, generator=generator)

    place = torch.arange(SHAPE_SIDE).float()
    picture = torch.zeros(rows, SHAPE_SIDE, SHAPE_SIDE)
    label = torch.zeros(rows, SHAPE_SIDE, SHAPE_SIDE, dtype=torch.long)
    for kind in (1, 2, 3):
        across = (place - uniform(4, SHAPE_SIDE - 5)).abs()
        down = (place[:, None] - uniform(4, SHAPE_SIDE - 5)).abs()
        radius = uniform(3, 6)
        reach = {1: (across**2 + down**2).sqrt(), 2: torch.maximum(across, down), 3: across + down}[kind]
        inside = reach <= radius
        picture = torch.where(inside, uniform(0.5, 1.0), picture)
        label = torch.where(inside, kind, label)
    picture = picture + 0.2 * torch.randn(picture.shape, generator=generator)
    return picture.unsqueeze(1), label
