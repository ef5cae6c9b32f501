"""A model is described once, and what was told of it is handed on."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
import torch
from torch import nn

from optselect import Budget, FineTuning, TorchWorkload, select
from optselect.parameters import anatomy as module
from optselect.parameters.anatomy import anatomy_of
from optselect.parameters.describe import describe_params
from optselect.search.progress import Silent
from tests.support.small import loader, net, vectors


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The models that were described, one for each time."""
    models: list[nn.Module] = []

    def noted(model: nn.Module, **options: Any) -> Any:
        models.append(model)
        return describe_params(model, **options)

    monkeypatch.setattr(module, "describe_params", noted)
    return models


def test_another_head_keeps_what_ran_and_what_is_sparse() -> None:
    model, order, sparse = net(), ("head", "hidden"), ("hidden.weight",)
    head: Collection[str] = {"hidden.weight", "hidden.bias"}

    found = anatomy_of(model, order=order, sparse=sparse).with_head(head)

    assert list(found.parameters) == describe_params(model, order=order, sparse=sparse, head=head)


def test_what_is_frozen_is_not_trainable() -> None:
    model = net()
    model.get_parameter("hidden.weight").requires_grad_(False)

    anatomy = anatomy_of(model)

    assert {info.name for info in anatomy.parameters} - {info.name for info in anatomy.trainable} == {"hidden.weight"}


@pytest.mark.parametrize("policy", [None, FineTuning(head_lr_ratio=2.0)])
def test_more_trials_describe_the_model_no_more_often(described: list[nn.Module], policy: FineTuning | None) -> None:
    counts = []
    for trials in (1, 5):
        described.clear()
        workload = TorchWorkload(net(), nn.CrossEntropyLoss(), loader(vectors()), loader(vectors()), steps=40)
        plan = select(workload, Budget(trials=trials), fine_tuning=policy or "auto", progress=Silent())
        counts.append((len(plan.trials), len(described)))

    (few, once), (many, again) = counts
    assert few < many
    assert once == again
