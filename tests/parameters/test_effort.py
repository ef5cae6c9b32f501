"""How much is done to describe a model, counted in calls: what takes time here may take none elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from optselect.parameters.anatomy import anatomy_of

FEW, MANY = 60, 240


class Tensors(nn.Module):
    """Many bare parameters beside one layer."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        for index in range(count):
            self.register_parameter(f"tensor{index}", nn.Parameter(torch.zeros(4, 4)))


class Bare(nn.Module):
    """Many bare parameters and nothing else."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.parts = nn.ParameterList(torch.zeros(4, 4) for _ in range(count))


class Named(nn.Module):
    """Numbered blocks side by side, each with a projection."""

    def __init__(self, count: int) -> None:
        super().__init__()
        for index in range(count):
            self.add_module(f"out_{index}", nn.Sequential(nn.Linear(4, 4), nn.ReLU()))


class Matched(nn.Module):
    """A model that knows its layers."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(count))

    def group_matcher(self) -> dict[str, str]:
        return {"blocks": r"^blocks\.(\d+)"}


MODELS: dict[str, Callable[[int], nn.Module]] = {
    "tensors beside a layer": Tensors,
    "tensors alone": Bare,
    "layers": lambda count: nn.Sequential(*(nn.Linear(4, 4) for _ in range(count))),
    "numbered blocks": lambda count: nn.Sequential(*(nn.Sequential(nn.Linear(4, 4)) for _ in range(count))),
    "named blocks": Named,
    "embeddings": lambda count: nn.ModuleList(nn.Embedding(4, 4) for _ in range(count)),
    "its own layers": Matched,
}


@pytest.mark.parametrize("ran", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_four_times_the_parameters_take_four_times_the_calls(name: str, ran: bool) -> None:
    few, many = (calls(MODELS[name](count), ran=ran) for count in (FEW, MANY))

    assert many <= 1.1 * few * MANY / FEW


def calls(model: nn.Module, *, ran: bool) -> int:
    """Calls, those of builtins and of generators among them, that it takes to describe `model`."""
    order = tuple(name for name, _ in model.named_modules() if name) if ran else ()
    sparse = [name for name, _ in model.named_parameters()]
    counted = 0

    def count(_frame: object, event: str, _argument: Any) -> None:
        nonlocal counted
        counted += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        anatomy_of(model, order=order, sparse=sparse)
    finally:
        sys.setprofile(before)
    return counted
