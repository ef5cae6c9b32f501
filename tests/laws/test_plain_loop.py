"""Around a loop in plain PyTorch: a search leaves no trace, chooses the same again, and its plan trains."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from optselect import Budget, OptimizerPlan, TorchWorkload
from optselect.optim.composite import CompositeOptimizer
from optselect.workload.rng import rng_state, set_rng_state
from tests.support.searches import LOSS, STEPS, choose, same_choice, training
from tests.support.small import loader, net, sentences, vectors, words


def train(model: nn.Module, plan: OptimizerPlan, data: DataLoader[Any], epochs: int = 2) -> list[float]:
    optimizer, scheduler = plan.build(model, total_steps=STEPS)
    losses = []
    for _, (inputs, target) in itertools.product(range(epochs), data):
        optimizer.zero_grad()
        loss = LOSS(model(inputs), target)
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        losses.append(loss.item())
    return losses


def shuffled() -> DataLoader[Any]:
    return DataLoader(vectors(), batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("data", [loader, shuffled], ids=["global", "generator"])
@pytest.mark.parametrize("budget", [0, Budget(steps=150)])
def test_training_after_a_search_is_training_without_one_bit_for_bit(budget: Any, data: Callable[[], Any]) -> None:
    def prepared() -> tuple[nn.Module, DataLoader[Any]]:
        torch.manual_seed(5)
        np.random.seed(5)  # noqa: NPY002  # what trainings draw from
        model, batches = net(), data()
        model.body.eval()
        model(torch.randn(4, 6)).sum().backward()
        return model, batches

    model, batches = prepared()
    held = [*model.parameters(), *model.buffers(), *(parameter.grad for parameter in model.parameters())]
    contents = [tensor.detach().clone() for tensor in held if tensor is not None]
    state = rng_state()
    attributes = {name: dict(vars(module)) for name, module in model.named_modules()}

    plan = choose(TorchWorkload(model, LOSS, batches, loader(vectors(48)), steps=STEPS), budget)

    after = rng_state()
    now = [*model.parameters(), *model.buffers(), *(parameter.grad for parameter in model.parameters())]
    assert all(one is other for one, other in zip(now, held, strict=True))
    assert all(map(torch.equal, [tensor for tensor in now if tensor is not None], contents))
    assert torch.equal(after.torch, state.torch)
    assert (after.python, after.numpy[2:]) == (state.python, state.numpy[2:])
    assert np.array_equal(after.numpy[1], state.numpy[1])
    assert {name: dict(vars(module)) for name, module in model.named_modules()} == attributes

    untouched, fresh = prepared()
    set_rng_state(state)
    by_hand = train(untouched, plan, fresh)
    set_rng_state(state)
    assert train(model, plan, batches) == by_hand
    assert all(map(torch.equal, model.state_dict().values(), untouched.state_dict().values()))


def test_two_searches_from_the_same_state_choose_the_same() -> None:
    plans = []
    for _ in range(2):
        torch.manual_seed(1)
        plans.append(choose(training(), Budget(steps=120)))

    assert same_choice(*plans)


def test_the_plan_of_a_sparse_model_trains_it_in_a_plain_loop() -> None:
    model = words()
    data = loader(sentences())
    workload = TorchWorkload(model, LOSS, data, loader(sentences(48)), steps=STEPS)

    plan = choose(workload, Budget(steps=120), candidates=["sparse_adam"])

    losses = train(model, plan, data, epochs=4)
    assert plan.sparse == ("table.weight",)
    assert np.mean(losses[-6:]) < np.mean(losses[:6])
    if plan.optimizer == "sparse_adam":
        assert isinstance(plan.build(model)[0], CompositeOptimizer)


def test_a_plan_from_a_file_builds_what_the_plan_builds(tmp_path: Path) -> None:
    plan = choose(training(), Budget(steps=120))
    plan.save(tmp_path / "plan.json")

    again = OptimizerPlan.load(tmp_path / "plan.json")

    torch.manual_seed(0)
    one = train(net(), plan, loader())
    torch.manual_seed(0)
    assert train(net(), again, loader()) == one
