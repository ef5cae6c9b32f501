"""What workloads read that is made by code: the same tensors each time, the target last."""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from optselect.recipes.bench import sources
from optselect.recipes.bench.sources import Tensors

SIDE = 20
SERIES, HORIZON = 40, 10


def generator(seed: int) -> torch.Generator:
    """Make a source of random numbers of its own."""
    return torch.Generator().manual_seed(seed)


# --- tables ---------------------------------------------------------------------------------------------------------


def taught(rows: int, columns: int, classes: int, *, sharpness: float, seed: int) -> Tensors:
    """Draw rows, and classes from the scores that a random network gives them."""
    source = generator(seed)
    inputs = torch.randn(rows, columns, generator=source)
    hidden = torch.tanh(inputs @ torch.randn(columns, 24, generator=source) / columns**0.5)
    scores = sharpness * hidden @ torch.randn(24, classes, generator=source) / 24**0.5
    return inputs, torch.multinomial(scores.softmax(1), 1, generator=source).squeeze(1)


def rare_classes(rows: int, columns: int, classes: int, *, seed: int) -> Tensors:
    """Draw classes by Zipf's law, and rows around a centre of each."""
    source = generator(seed)
    shares = 1 / torch.arange(1, classes + 1).float()
    label = torch.multinomial(shares, rows, replacement=True, generator=source)
    centres = torch.randn(classes, columns, generator=source)
    return centres[label] + 0.9 * torch.randn(rows, columns, generator=source), label


def friedman(rows: int, *, noise: float, seed: int) -> Tensors:
    """Draw ten numbers a row, and the smooth function of five of them of Friedman 1991, standardised."""
    source = generator(seed)
    x = torch.rand(rows, 10, generator=source)
    target = 10 * torch.sin(math.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    target = target + noise * torch.randn(rows, generator=source)
    return 3.4 * (x - 0.5), (target - target.mean()) / target.std()


def claims(rows: int, *, seed: int) -> Tensors:
    """Draw eight numbers a row, and a count that is mostly none: as insurers see them."""
    source = generator(seed)
    inputs = torch.randn(rows, 8, generator=source)
    rates = torch.exp(-1.5 + 0.8 * inputs[:, 0] - 0.6 * inputs[:, 1].abs() + 0.5 * inputs[:, 2] * inputs[:, 3])
    return inputs, torch.poisson(rates.clamp(max=20), generator=source)


def mislabelled(name: str, share: float, *, seed: int) -> Tensors:
    """Read KEEL's data set `name` with random labels for a `share` of its rows."""
    source = generator(seed)
    inputs, label = sources.keel(name)
    random = torch.randint(int(label.max()) + 1, label.shape, generator=source)
    return inputs, torch.where(torch.rand(label.shape, generator=source) < share, random, label)


# --- pictures -------------------------------------------------------------------------------------------------------


@cache
def gratings(rows: int = 3_600, classes: int = 8) -> Tensors:
    """Draw stripes of any width and phase under noise, (1, 20, 20), and which way they run."""
    source = generator(11)
    label = torch.randint(classes, (rows,), generator=source)
    angle = math.pi * label / classes + 0.1 * torch.randn(rows, generator=source)
    wave = 2 * math.pi / (4 + 4 * torch.rand(rows, generator=source))
    phase = 2 * math.pi * torch.rand(rows, generator=source)
    place = torch.arange(SIDE).float()
    along = (
        place[None, None, :] * torch.cos(angle)[:, None, None] + place[None, :, None] * torch.sin(angle)[:, None, None]
    )
    pictures = torch.sin(wave[:, None, None] * along + phase[:, None, None])
    pictures = pictures + 1.2 * torch.randn(pictures.shape, generator=source)
    return pictures.unsqueeze(1), label


def digits_as_pictures() -> Tensors:
    """Read scikit-learn's digits as (1, 8, 8), and the digit."""
    pixels, digit = sources.digits()
    return pixels.view(-1, 1, 8, 8), digit


def blobs(rows: int, classes: int, *, seed: int) -> Tensors:
    """Draw discs, each class of another brightness, into noise, and of each pixel the class of its disc (0: none)."""
    source = generator(seed)
    place = torch.arange(SIDE).float()
    picture = 0.3 * torch.randn(rows, SIDE, SIDE, generator=source)
    label = torch.zeros(rows, SIDE, SIDE, dtype=torch.long)
    for kind in range(1, classes):
        x, y = (3 + (SIDE - 6) * torch.rand(rows, 1, 1, generator=source) for _ in range(2))
        radius = 2.5 + 2 * torch.rand(rows, 1, 1, generator=source)
        inside = (place - x) ** 2 + (place[:, None] - y) ** 2 < radius**2
        picture = picture + inside * (0.6 * kind)
        label = torch.where(inside, kind, label)
    return picture.unsqueeze(1), label


def edges(rows: int = 1_600) -> Tensors:
    """Draw gratings, and where they change fastest: one number in {0, 1} for each pixel."""
    pictures, _ = gratings()
    smooth = F.avg_pool2d(pictures[:rows], 3, stride=1, padding=1)
    slope = (smooth[..., 1:, :-1] - smooth[..., :-1, :-1]) ** 2 + (smooth[..., :-1, 1:] - smooth[..., :-1, :-1]) ** 2
    return pictures[:rows, :, :-1, :-1].contiguous(), (slope > slope.median()).squeeze(1).float()


def views(pictures: Tensor, *, noise: float, seed: int) -> Tensors:
    """Make two views of each picture, (rows, side, side), shifted by a pixel or none and noisy; the target counts."""
    source = generator(seed)
    pair = []
    for _ in range(2):
        shifts = torch.randint(-1, 2, (len(pictures), 2), generator=source).tolist()
        moved = torch.stack([picture.roll(shift, (0, 1)) for picture, shift in zip(pictures, shifts, strict=True)])
        pair.append(moved + noise * torch.randn(moved.shape, generator=source))
    return pair[0], pair[1], torch.arange(len(pictures))


# --- sequences ------------------------------------------------------------------------------------------------------


def adding(rows: int = 4_000, length: int = 20) -> Tensors:
    """Draw numbers, two of them marked, (20, 2), and the sum of the two: Hochreiter, Schmidhuber 1997."""
    source = generator(21)
    numbers = torch.rand(rows, length, generator=source)
    marks = torch.zeros(rows, length)
    for half in (slice(0, length // 2), slice(length // 2, length)):
        place = torch.randint(half.stop - half.start, (rows, 1), generator=source) + half.start
        marks.scatter_(1, place, 1.0)
    return torch.stack([numbers, marks], dim=2), (numbers * marks).sum(1) - 1


def rhythms(rows: int = 3_000, length: int = 32) -> Tensors:
    """Draw two waves under noise, (32, 2), and which of six pairs of speeds they have."""
    source = generator(22)
    label = torch.randint(6, (rows,), generator=source)
    time = torch.arange(length).float()
    speeds = torch.tensor([[0.2, 0.4], [0.2, 0.6], [0.3, 0.5], [0.3, 0.7], [0.45, 0.55], [0.4, 0.8]])[label]
    phase = 2 * math.pi * torch.rand(rows, 1, 2, generator=source)
    waves = torch.sin(speeds.unsqueeze(1) * time[None, :, None] + phase)
    return waves + 0.8 * torch.randn(waves.shape, generator=source), label


def brackets(windows: int = 6_000, window: int = 32) -> Tensors:
    """Write balanced brackets of three kinds without end, and the same one place on: codes 0 to 5."""
    source = generator(23)
    draws = torch.rand(windows * (window + 1), 2, generator=source).tolist()
    text: list[int] = []
    open_: list[int] = []
    for opens, kind in draws:
        if not open_ or (opens < 0.5 and len(open_) < 8):
            open_.append(int(3 * kind))
            text.append(open_[-1])
        else:
            text.append(3 + open_.pop())
    return following(torch.tensor(text), window)


def chain(windows: int = 6_000, window: int = 32, letters: int = 20) -> Tensors:
    """Write letters, each likely or not after the two before it, and the same one place on."""
    source = generator(24)
    odds = (2 * torch.randn(letters, letters, letters, generator=source)).softmax(2).cumsum(2)
    draws = torch.rand(windows, window + 1, generator=source)
    text = torch.randint(letters, (windows, window + 1), generator=source)
    for place in range(2, window + 1):
        before, last = text[:, place - 2], text[:, place - 1]
        text[:, place] = (draws[:, place, None] > odds[before, last]).sum(1).clamp(max=letters - 1)
    return text[:, :-1].contiguous(), text[:, 1:].contiguous()


def following(codes: Tensor, window: int) -> Tensors:
    """Cut `codes` into windows, and the same windows one place on."""
    whole = codes[: len(codes) // (window + 1) * (window + 1)].view(-1, window + 1)
    return whole[:, :-1].contiguous(), whole[:, 1:].contiguous()


def scripture(window: int, windows: int, *, place: int = 0) -> Tensors:
    """Read `windows` windows of the King James text from character `place` on, and the same one character on."""
    whole, _ = sources.bible()
    return following(whole.flatten()[place : place + windows * (window + 1)], window)


def motifs(rows: int = 3_000, length: int = 50, letters: int = 6) -> Tensors:
    """Draw letters, and which of four short words was put somewhere among them, one letter of it perhaps wrong."""
    source = generator(25)
    text = torch.randint(letters, (rows, length), generator=source)
    words = torch.randint(letters, (4, 6), generator=source)
    label = torch.randint(4, (rows,), generator=source)
    place = torch.randint(length - 6, (rows, 1), generator=source) + torch.arange(6)
    put = words[label].clone()
    wrong = torch.randint(6, (rows, 1), generator=source)
    put.scatter_(1, wrong, torch.randint(letters, (rows, 1), generator=source))
    return text.scatter(1, place, put), label


def majorities(rows: int = 3_000, length: int = 24, letters: int = 10) -> Tensors:
    """Draw letters, and which of the first three of them comes most often."""
    source = generator(26)
    text = torch.randint(letters, (rows, length), generator=source)
    counts = torch.stack([(text == letter).sum(1) for letter in range(3)], dim=1)
    return text, (counts + 0.1 * torch.rand(counts.shape, generator=source)).argmax(1)


def word_bags(rows: int = 16_000, words: int = 6_000, length: int = 30) -> Tensors:
    """Draw words by Zipf's law, each with a hidden weight, and whether their weights sum up to more than none."""
    source = generator(27)
    shares = 1 / torch.arange(1, words + 1).float()
    tokens = torch.multinomial(shares, rows * length, replacement=True, generator=source).view(rows, length)
    weights = torch.randn(words, generator=source)
    score = weights[tokens].sum(1) / length**0.5
    return tokens, (score + 0.3 * torch.randn(rows, generator=source) > 0).long()


def clicks(rows: int = 16_000, fields: int = 8, codes: int = 400) -> Tensors:
    """Draw a code for each of eight fields by Zipf's law, and whether it was clicked: pairs of codes decide, too."""
    source = generator(28)
    shares = 1 / torch.arange(1, codes + 1).float()
    drawn = torch.multinomial(shares, rows * fields, replacement=True, generator=source).view(rows, fields)
    vectors = torch.randn(fields, codes, 4, generator=source)
    chosen = torch.stack([vectors[field, drawn[:, field]] for field in range(fields)], dim=1)
    score = chosen[..., 0].sum(1) + (chosen.sum(1) ** 2 - (chosen**2).sum(1)).sum(1) / 8
    label = torch.rand(rows, generator=source) < torch.sigmoid(score - 1)
    return drawn + codes * torch.arange(fields), label.float()


# --- tables of pairs, graphs, series ----------------------------------------------------------------------------------


def tastes(rows: int = 40_000, users: int = 600, things: int = 400, *, rank: int = 5, seed: int = 31) -> Tensors:
    """Draw users and things, some far more often than others, and ratings from hidden vectors under noise."""
    source = generator(seed)
    user, thing = (
        torch.multinomial(1 / torch.arange(2, count + 2).float(), rows, replacement=True, generator=source)
        for count in (users, things)
    )
    tables = [torch.randn(count, rank, generator=source) / rank**0.25 for count in (users, things)]
    rating = (tables[0][user] * tables[1][thing]).sum(1) + 0.5 * torch.randn(rows, generator=source)
    return user, thing, rating


def likes(rows: int = 40_000) -> Tensors:
    """Draw as `tastes` does, and whether the rating is above none, but for one in ten."""
    user, thing, rating = tastes(rows, seed=32)
    return user, thing, (rating > 0).float()


NODES = 16


@cache
def geometric_graphs(rows: int = 2_600) -> Tensors:
    """Draw points in a square, joined where near: (16, 16), their degrees and noise (16, 3), and the reach."""
    source = generator(41)
    points = torch.rand(rows, NODES, 2, generator=source)
    reach = 0.25 + 0.25 * torch.rand(rows, 1, 1, generator=source)
    near = (torch.cdist(points, points) < reach).float() * (1 - torch.eye(NODES))
    features = torch.cat([near.sum(2, keepdim=True) / 4, torch.randn(rows, NODES, 2, generator=source)], dim=2)
    return near, features, reach.flatten()


def triangles() -> Tensors:
    """Take those graphs, and the logarithm of how many triangles they have, standardised."""
    near, features, _ = geometric_graphs()
    count = torch.log1p((near @ near * near).sum((1, 2)) / 6)
    return near, features, (count - count.mean()) / count.std()


def reaches() -> Tensors:
    """Take those graphs, and in which of four ranges the reach lay that joined their points."""
    near, features, reach = geometric_graphs()
    return near, features, ((reach - 0.25) * 16).long().clamp(max=3)


def rings_and_stars(rows: int = 2_600) -> Tensors:
    """Draw sparse random graphs with a ring, a star or a clique of six hidden in them, and which."""
    source = generator(42)
    near = (torch.rand(rows, NODES, NODES, generator=source) < 0.12).float().triu(1)
    ring = torch.zeros(6, 6)
    ring[torch.arange(6), (torch.arange(6) + 1) % 6] = 1
    star = torch.zeros(6, 6)
    star[0, 1:] = 1
    kinds = torch.stack([ring, star, torch.ones(6, 6).triu(1)])
    label = torch.randint(3, (rows,), generator=source)
    for row, kind in enumerate(label.tolist()):
        where = torch.randperm(NODES, generator=source)[:6].sort().values
        near[row][where[:, None], where] = torch.maximum(near[row][where[:, None], where], kinds[kind])
    near = torch.maximum(near, near.transpose(1, 2)) * (1 - torch.eye(NODES))
    features = torch.cat([near.sum(2, keepdim=True) / 4, torch.ones(rows, NODES, 2)], dim=2)
    return near, features, label


def autoregressive(rows: int = 4_000, *, seed: int = 51) -> Tensors:
    """Draw series that each follow an autoregression of their own: 40 values, and the 10 that follow."""
    source = generator(seed)
    radius = 0.7 + 0.28 * torch.rand(rows, generator=source)
    angle = math.pi * (0.05 + 0.4 * torch.rand(rows, generator=source))
    values = [torch.randn(rows, generator=source) for _ in range(2)]
    for _ in range(20 + SERIES + HORIZON):
        values.append(
            2 * radius * torch.cos(angle) * values[-1]
            - radius**2 * values[-2]
            + 0.4 * torch.randn(rows, generator=source)
        )
    series = torch.stack(values[22:], dim=1)
    series = series / series[:, :SERIES].std(1, keepdim=True).clamp(min=0.1)
    return series[:, :SERIES].contiguous(), series[:, SERIES:].contiguous()


def steps_and_trends(rows: int = 4_000) -> Tensors:
    """Draw series with a trend, a weekly season, a jump and heavy-tailed noise: 40 values, and the 10 that follow."""
    source = generator(52)
    time = torch.arange(SERIES + HORIZON).float()
    trend = 0.05 * torch.randn(rows, 1, generator=source) * time
    season = torch.randn(rows, 7, generator=source)[:, torch.arange(SERIES + HORIZON) % 7]
    jump = torch.randn(rows, 1, generator=source) * (time > 10 + 20 * torch.rand(rows, 1, generator=source))
    noise = 0.2 * torch.randn(rows, SERIES + HORIZON, generator=source)
    noise = noise / (0.2 + torch.rand(noise.shape, generator=source))
    series = trend + season + jump + noise.clamp(-3, 3)
    return series[:, :SERIES].contiguous(), series[:, SERIES:].contiguous()


# --- equations ------------------------------------------------------------------------------------------------------


def points(rows: int, columns: int, *, seed: int) -> Tensors:
    """Draw points in the unit cube, and the residual that an equation shall have there: none."""
    return torch.rand(rows, columns, generator=generator(seed)), torch.zeros(rows)


def noisy_twice(name: str, noise: float, *, seed: int) -> Tensors:
    """Read KEEL's columns under noise as what goes in, and without it as what shall come out."""
    columns, _ = sources.keel(name)
    return columns + noise * torch.randn(columns.shape, generator=generator(seed)), columns
