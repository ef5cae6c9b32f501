"""Physics-informed nets: each gives what is left of its equation, conditions built in.

Raissi, Perdikaris, Karniadakis 2019, J. Comp. Phys. 378.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from optselect.recipes.portfolio.models import deep


def _slopes(values: Tensor, places: Tensor) -> Tensor:
    slopes: Tensor = torch.autograd.grad(values.sum(), places, create_graph=True)[0]
    return slopes


class Oscillator(nn.Module):
    """u'' + .4 u' + 60 u = 0 on [0, 1], u(0) = 1, u'(0) = 0: what is left of the equation, starts built in."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.net = deep(1, hidden, 1, 3, nn.Tanh)

    def forward(self, time: Tensor) -> Tensor:
        """Give the residual, (batch,), a sixtieth of it, at times (batch, 1)."""
        time = time.clone().requires_grad_()
        u = 1 + time.squeeze(1) ** 2 * self.net(time)
        speed = _slopes(u, time)
        residual: Tensor = (_slopes(speed, time) + 0.4 * speed).squeeze(1) / 60 + u
        return residual


class Poisson(nn.Module):
    """-Δu = f on the unit square, u = 0 on its edges: what is left of the equation, edges built in."""

    def __init__(self, hidden: int, waves: int) -> None:
        super().__init__()
        self.net, self.waves = deep(2, hidden, 1, 3, nn.Tanh), waves

    def forward(self, places: Tensor) -> Tensor:
        """Give the residual, (batch,), at places (batch, 2)."""
        places = places.clone().requires_grad_()
        x, y = places.unbind(1)
        u = 16 * x * (1 - x) * y * (1 - y) * self.net(places)
        slopes = _slopes(u, places)
        bend = sum(_slopes(slopes[:, side], places)[:, side] for side in range(2))
        force = torch.sin(self.waves * math.pi * x) * torch.sin(self.waves * math.pi * y)
        residual: Tensor = bend / (2 * math.pi**2 * self.waves**2) + force
        return residual


class Heat(nn.Module):
    """u_t = .1 u_xx on the unit square of (x, t), u(x, 0) = sin 2πx, 0 on the edges: what is left of the equation."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.net = deep(2, hidden, 1, 2, nn.Tanh)

    def forward(self, places: Tensor) -> Tensor:
        """Give the residual, (batch,), at places (batch, 2)."""
        places = places.clone().requires_grad_()
        x, t = places.unbind(1)
        u = torch.sin(2 * math.pi * x) + t * x * (1 - x) * 4 * self.net(places)
        slopes = _slopes(u, places)
        residual: Tensor = slopes[:, 1] - 0.1 * _slopes(slopes[:, 0], places)[:, 0]
        return residual
