"""In what order modules run, and that looking leaves nothing behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_pre_hooks
from torch.utils.checkpoint import checkpoint

from optselect.parameters.execution import execution_recorded


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class HeadFirst(nn.Module):
    """A head registered before the body, and a layer that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 2)
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8))
        self.unused = nn.Linear(8, 8)

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.head(self.body(inputs))
        return scores


def order_of(model: nn.Module, inputs: Tensor) -> tuple[str, ...]:
    with execution_recorded(model) as execution:
        model(inputs).sum().backward()
    return execution.order


def test_modules_with_parameters_are_listed_as_they_run() -> None:
    order = order_of(HeadFirst(), torch.randn(3, 4))

    assert order == ("body.0", "body.2", "head")


def test_a_module_that_runs_again_is_listed_where_it_first_and_last_ran() -> None:
    class Shared(HeadFirst):
        def forward(self, inputs: Tensor) -> Tensor:
            first = self.body[0](inputs)
            return self.head(first) + self.head(self.body[2](first))  # type: ignore[no-any-return]  # a Linear's

    order = order_of(Shared(), torch.randn(3, 4))

    assert order == ("body.0", "head", "body.2", "head")


def test_a_parent_stands_for_a_part_whose_weights_it_uses_itself() -> None:
    attention = nn.ModuleDict({"mixing": nn.MultiheadAttention(8, 2, batch_first=True)})
    inputs = torch.randn(2, 3, 8)

    with execution_recorded(attention) as execution:
        attention["mixing"](inputs, inputs, inputs)

    assert execution.order == ("mixing",)


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_checkpointing_runs_again_in_the_backward_pass_does_not_count(reentrant: bool) -> None:
    class Checkpointed(HeadFirst):
        def forward(self, inputs: Tensor) -> Tensor:
            states = checkpoint(self.body, inputs.requires_grad_(), use_reentrant=reentrant)
            return self.head(states)  # type: ignore[no-any-return]  # a Linear's

    order = order_of(Checkpointed(), torch.randn(3, 4))

    assert order == ("body.0", "body.2", "head")


def test_a_parametrized_module_is_listed_as_itself() -> None:
    model = nn.ModuleDict({"conv": nn.utils.parametrizations.weight_norm(nn.Conv1d(1, 2, 3))})

    with execution_recorded(model) as execution:
        model["conv"](torch.randn(1, 1, 8))

    assert execution.order == ("conv",)


def test_the_modules_of_others_do_not_count() -> None:
    model, other = HeadFirst(), HeadFirst()

    with execution_recorded(model) as execution:
        other(torch.randn(3, 4))

    assert execution.order == ()


def test_of_a_compiled_model_the_order_is_that_of_the_model_that_was_written() -> None:
    whole, inside, in_place = HeadFirst(), HeadFirst(), HeadFirst()
    inside.body = torch.compile(inside.body, backend="eager")  # type: ignore[assignment]  # a module, with the same calls
    in_place.compile(backend="eager")
    compiled: list[Any] = [torch.compile(whole, backend="eager"), inside, in_place]

    orders = [order_of(model, torch.randn(3, 4)) for model in compiled]

    assert orders == [("body.0", "body.2", "head")] * 3


def test_nothing_is_left_behind_when_the_model_raises() -> None:
    model = HeadFirst()

    with pytest.raises(RuntimeError, match="shapes"), execution_recorded(model):
        model(torch.randn(3, 5))

    assert not _global_forward_pre_hooks
