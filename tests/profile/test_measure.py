"""The whole profile of a small training, its cost and its text."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from optselect.errors import ConfigurationError, PlanFormatError, UnsupportedModuleError
from optselect.profile.measure import measure
from optselect.profile.text import describe
from optselect.profile.values import DataProfile, Profile
from optselect.workload.protocol import DataSource, Workload


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


class Digits:
    """What `measure` needs of a workload, and a count of what it uses."""

    def __init__(self, model: nn.Module | None = None, *, stream: bool = False) -> None:
        images, labels = load_digits(return_X_y=True)
        self.dataset = TensorDataset(torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels))
        self.model = model or nn.Sequential(
            nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)
        )
        self.steps, self.keeps_best = 400, False
        self.stream = stream
        self.passes = 0
        self.heads: list[int] = []
        self.is_borrowed = False

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        state = copy.deepcopy(self.model.state_dict())
        self.is_borrowed = True
        try:
            yield
        finally:
            self.is_borrowed = False
            self.model.load_state_dict(state)

    def source(self) -> DataSource:
        return DataSource(
            dataset=None if self.stream else self.dataset,
            collate=None,
            batch_size=64,
            batches=None if self.stream else 29,
            head=self.head,
        )

    def head(self, count: int) -> list[Any]:
        self.heads.append(count)
        return [batch for _, batch in zip(range(count), DataLoader(self.dataset, 64), strict=False)]

    def backward(self, batch: Any) -> float:
        assert self.is_borrowed
        self.passes += 1
        loss = F.cross_entropy(self.model(batch[0]), batch[1])
        loss.backward()
        return float(loss.detach())


def measured(workload: Digits, passes: int = 8) -> Profile:
    return measure(cast("Workload", workload), passes)


def test_a_profile_has_data_model_gradients_and_steps() -> None:
    profile = measured(Digits())

    assert (profile.data.size, profile.model.depth, profile.gradient.passes, profile.steps) == (
        1797,
        3,
        8,
        400,
    )


@pytest.mark.parametrize("passes", [0, 1, 8, 32])
def test_a_profile_takes_exactly_the_passes_it_was_given(passes: int) -> None:
    workload = Digits()

    profile = measured(workload, passes)

    # An epoch of digits has 29 batches, and each pass sees another one.
    assert workload.passes == profile.gradient.passes == min(passes, 29)


@pytest.mark.parametrize("passes", [-1, 33])
def test_more_passes_than_promised_are_refused(passes: int) -> None:
    with pytest.raises(ConfigurationError, match="0 to 32 passes"):
        measured(Digits(), passes)


def test_the_batches_of_a_stream_are_drawn_once() -> None:
    workload = Digits(stream=True)

    profile = measured(workload)

    assert workload.heads == [8]
    assert (profile.data.size, profile.data.rows_read) == (None, 512)


def test_the_model_is_judged_before_its_batch_norms_have_seen_data() -> None:
    assert measured(Digits()).model.at_initialisation is True


def test_a_lazy_model_is_counted_once_a_batch_has_shaped_it() -> None:
    model = nn.Sequential(nn.LazyLinear(32), nn.LazyBatchNorm1d(), nn.LazyLinear(10))
    workload = Digits(model)
    workload.is_borrowed = True

    profile = measure(cast("Workload", Unborrowed(workload)))

    assert profile.model.parameters == 64 * 32 + 32 + 64 + 320 + 10
    assert profile.model.at_initialisation is not False


class Unborrowed:
    """A workload that lets a lazy model keep the shapes it has taken."""

    def __init__(self, workload: Digits) -> None:
        self.model, self.steps, self.source, self.backward, self.keeps_best = (
            workload.model,
            workload.steps,
            workload.source,
            workload.backward,
            workload.keeps_best,
        )

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        yield


def test_a_profile_survives_json() -> None:
    profile = measured(Digits())

    assert Profile.from_dict(json.loads(json.dumps(profile.to_dict()))) == profile


def test_a_profile_with_an_unknown_field_is_refused() -> None:
    with pytest.raises(PlanFormatError, match="has no field colour"):
        DataProfile.from_dict({"colour": 1})


def test_a_quantity_is_found_by_its_path() -> None:
    profile = measured(Digits(), 0)

    assert profile.quantity("data.classes") == 10


def test_a_profile_is_described_in_five_lines_that_fit_a_page() -> None:
    lines = describe(measured(Digits()))

    assert [line.split(":")[0] for line in lines] == ["data", "targets", "model", "gradients", "training"]
    assert max(map(len, lines)) < 200


def test_what_was_not_measured_is_said() -> None:
    lines = describe(measured(Digits(), 0))

    assert "not measured" in lines[3]


def test_the_description_gives_the_numbers() -> None:
    data, targets, model, gradients, training = describe(measured(Digits()))

    assert "1,797 samples" in data
    assert "multiclass, 10 classes" in targets
    assert "at initialisation" in model
    assert "dense, norm" in gradients
    assert "400 steps" in training


class HeadFirst(nn.Module):
    """The head is registered first, under no name that would tell."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(32, 10)
        self.body = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.scores(self.body(images))
        return scores


def test_the_passes_tell_in_what_order_modules_run_and_what_is_the_head() -> None:
    profile = measure(cast("Workload", Digits(HeadFirst())), passes=1)

    assert profile.model.executed == ("body.0", "body.2", "scores")
    assert profile.model.head == ("scores.weight", "scores.bias")


def test_a_model_of_which_all_is_frozen_is_refused_by_name() -> None:
    model = HeadFirst().requires_grad_(False)

    with pytest.raises(UnsupportedModuleError, match="no trainable parameter; set requires_grad=True"):
        measure(cast("Workload", Digits(model)), passes=1)


def test_without_a_pass_the_order_is_not_known() -> None:
    profile = measure(cast("Workload", Digits(HeadFirst())), passes=0)

    assert profile.model.executed == ()


def test_the_passes_do_not_make_a_model_look_trained() -> None:
    profile = measure(cast("Workload", Digits()), passes=16)

    assert profile.model.pretrained == "no"
