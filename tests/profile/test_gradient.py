"""What a few backward passes tell."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optselect.profile import gradient
from optselect.profile.gradient import profile_gradient, samples_in
from optselect.profile.values import GradientProfile

Batch = tuple[Tensor, Tensor]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def regression(model: nn.Module) -> Callable[[Batch], float]:
    def backward(batch: Batch) -> float:
        inputs, targets = batch
        loss = F.mse_loss(model(inputs).squeeze(-1), targets)
        loss.backward()
        return float(loss.detach())

    return backward


def batches(count: int, size: int = 8, features: int = 4) -> list[Batch]:
    return [(torch.randn(size, features), torch.randn(size)) for _ in range(count)]


class Bag(nn.Module):
    """A bag of features with a sparse table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(100, 8, sparse=True, mode="sum")
        self.head = nn.Linear(8, 1)

    def forward(self, ids: Tensor) -> Tensor:
        result: Tensor = self.head(self.table(ids))
        return result


def test_sparse_gradients_are_named_and_their_rows_counted() -> None:
    model = Bag()
    ids = torch.arange(20).reshape(5, 4)

    result = profile_gradient(model, regression(model), [(ids, torch.zeros(5))] * 3)

    assert result.sparse == ("table.weight",)
    assert result.touched_rows == pytest.approx(0.2)


def test_a_row_met_twice_in_a_batch_is_touched_once() -> None:
    model = Bag()

    result = profile_gradient(model, regression(model), [(torch.zeros(5, 4, dtype=torch.int64), torch.ones(5))])

    assert result.touched_rows == pytest.approx(0.01)


def test_a_tied_sparse_embedding_has_a_dense_gradient() -> None:
    table = nn.Embedding(10, 4, sparse=True)
    head = nn.Linear(4, 10, bias=False)
    head.weight = table.weight
    model = nn.Sequential(table, head)

    def backward(batch: Tensor) -> float:
        loss = model(batch).square().mean()
        loss.backward()
        return float(loss.detach())

    result = profile_gradient(model, backward, [torch.arange(3)] * 2)

    assert (result.sparse, result.touched_rows) == ((), None)


def test_dense_embeddings_show_in_the_zero_fraction() -> None:
    model = nn.Sequential(nn.Embedding(100, 8), nn.Flatten(), nn.Linear(16, 1, bias=False))

    result = profile_gradient(model, regression(model), [(torch.tensor([[0, 1]]), torch.ones(1))])

    assert result.zero_fraction == pytest.approx(98 * 8 / (100 * 8 + 16))


def test_parameters_without_a_gradient_are_named() -> None:
    model = nn.ModuleDict({"used": nn.Linear(4, 1), "unused": nn.Linear(4, 1), "frozen": nn.Linear(4, 1)})
    model["frozen"].requires_grad_(False)

    result = profile_gradient(model, regression(model["used"]), batches(2))

    assert result.unused == ("unused.weight", "unused.bias")


def test_norms_are_those_of_the_whole_gradient() -> None:
    model = nn.Linear(4, 1)
    (batch,) = batches(1)
    regression(model)(batch)
    expected = math.sqrt(sum(float(each.grad.square().sum()) for each in model.parameters() if each.grad is not None))

    result = profile_gradient(model, regression(model), [batch])

    assert result.norms == pytest.approx((expected,))
    assert result.norm_quantiles == pytest.approx((expected,) * 3)
    assert result.noise_scale is None
    assert result.relative_norms.keys() == {"weight"}


def test_relative_norms_are_gradient_over_weight() -> None:
    model = nn.Linear(4, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)

    def backward(_: Any) -> float:
        model.weight.sum().backward()
        return 1.0

    result = profile_gradient(model, backward, [None] * 2)

    assert result.relative_norms == {"weight": pytest.approx(0.5)}


def test_at_most_two_hundred_layers_are_listed() -> None:
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(250)))

    result = profile_gradient(model, regression(model), batches(1, features=1))

    assert len(result.relative_norms) == 200


def test_the_noise_scale_is_trace_over_squared_mean() -> None:
    # Gradients of w·x are x: Σ = 4 I in 50 dimensions and ‖G‖² = 50, so tr(Σ)/‖G‖² = 4 samples.
    model = nn.Linear(50, 1, bias=False)
    drawn = [1 + 2 * torch.randn(16, 50) for _ in range(32)]

    def backward(batch: Tensor) -> float:
        loss = model(batch).mean()
        loss.backward()
        return float(loss.detach())

    result = profile_gradient(model, backward, drawn)

    assert result.noise_scale == pytest.approx(4, rel=0.2)


def test_the_noise_scale_counts_sparse_gradients_too() -> None:
    model = nn.Embedding(10, 4, sparse=True)

    def backward(batch: Tensor) -> float:
        model(batch).sum(1).mean().backward()
        return 1.0

    same = profile_gradient(model, backward, [torch.tensor([1, 2])] * 3)
    different = profile_gradient(model, backward, [torch.tensor([1, 2]), torch.tensor([2, 3])])

    assert same.noise_scale == pytest.approx(0, abs=1e-6)
    assert different.noise_scale is not None
    assert different.noise_scale > 0.5


def test_identical_batches_have_no_noise() -> None:
    model = nn.Linear(4, 1)

    result = profile_gradient(model, regression(model), batches(1) * 4)

    assert result.noise_scale == pytest.approx(0, abs=1e-4)


def test_a_thinned_mean_gives_the_same_noise_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(400, 1, bias=False)
    drawn = [1 + torch.randn(8, 400) for _ in range(16)]

    def backward(batch: Tensor) -> float:
        model(batch).mean().backward()
        return 1.0

    whole = profile_gradient(model, backward, drawn)
    monkeypatch.setattr(gradient, "_MEAN_SCALARS", 100)
    thinned = profile_gradient(model, backward, drawn)

    assert thinned.noise_scale == pytest.approx(whole.noise_scale, rel=0.2)
    assert thinned.norm_quantiles == whole.norm_quantiles


def test_without_a_batch_size_there_is_no_noise_scale() -> None:
    model = nn.Linear(4, 1)
    drawn = batches(3)

    def backward(batch: Any) -> float:
        return regression(model)(drawn[batch["index"]])

    opaque = [{"index": index} for index in range(3)]

    assert profile_gradient(model, backward, opaque).noise_scale is None
    assert profile_gradient(model, backward, opaque, batch_size=8).passes == 3


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_passes_that_are_not_finite_count_for_nothing(value: float) -> None:
    model = nn.Linear(4, 1)
    drawn = batches(3)
    drawn[1] = (torch.full((8, 4), value), torch.zeros(8))

    result = profile_gradient(model, regression(model), drawn)

    assert (result.passes, result.nonfinite) == (3, 1)
    assert result.initial_loss is not None
    assert math.isfinite(result.initial_loss)
    assert result == GradientProfile.from_dict(result.to_dict())


def test_only_passes_that_are_not_finite_leave_nothing_known() -> None:
    model = nn.Linear(4, 1)

    result = profile_gradient(model, lambda batch: math.nan, batches(2))

    assert (result.nonfinite, result.initial_loss, result.norm_quantiles, result.noise_scale) == (
        2,
        None,
        None,
        None,
    )


def test_no_batches_measure_nothing() -> None:
    assert profile_gradient(nn.Linear(4, 1), lambda batch: 1.0, []) == GradientProfile()


def test_gradients_do_not_add_up_over_the_passes_nor_stay_behind() -> None:
    model = nn.Linear(4, 1)
    (batch,) = batches(1)

    once = profile_gradient(model, regression(model), [batch])
    thrice = profile_gradient(model, regression(model), [batch] * 3)

    assert thrice.norm_quantiles == pytest.approx(once.norm_quantiles)
    assert all(each.grad is None for each in model.parameters())


def test_gradients_are_cleared_when_a_pass_fails() -> None:
    model = nn.Linear(4, 1)

    def backward(batch: Batch) -> float:
        regression(model)(batch)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        profile_gradient(model, backward, batches(1))

    assert all(each.grad is None for each in model.parameters())


def test_half_precision_gradients_do_not_overflow() -> None:
    model = nn.Linear(4, 1, bias=False, dtype=torch.float16)

    def backward(_: Any) -> float:
        model.weight.grad = torch.full_like(model.weight, 1e4)
        return 1.0

    result = profile_gradient(model, backward, [None] * 2)

    assert result.norm_quantiles == pytest.approx((2e4,) * 3)


def test_lazy_modules_are_measured_once_they_have_a_shape() -> None:
    model = nn.Sequential(nn.LazyLinear(4), nn.LazyLinear(1))

    result = profile_gradient(model, regression(model), batches(2))

    assert result.relative_norms.keys() == {"0.weight", "1.weight"}


@pytest.mark.parametrize(
    "batch, size",
    [
        (torch.zeros(5, 2), 5),
        ((torch.zeros(5, 2), torch.zeros(5)), 5),
        ({"meta": "x", "ids": torch.zeros(7, 2)}, 7),
        ([[torch.zeros(3)]], 3),
        (torch.zeros(()), None),
        ("text", None),
        (None, None),
    ],
)
def test_the_samples_of_a_batch_are_counted(batch: Any, size: int | None) -> None:
    assert samples_in(batch) == size
