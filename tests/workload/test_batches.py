"""The same batches for every trial, however they are kept."""

import random
from collections import UserDict
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from optselect.errors import UnsupportedModuleError
from optselect.workload.batches import BatchCache
from optselect.workload.loaders import trial_loader
from optselect.workload.rng import rng_isolated, rng_state, seed_rng
from tests.support.cases import case
from tests.support.loaders import LOADERS, Own, Stream
from tests.support.small import vectors

limits = pytest.mark.parametrize("limit_bytes", [2**20, 0, 200], ids=["all kept", "none kept", "some kept"])


def cache(loader: Any, seed: int = 0, **options: Any) -> BatchCache:
    with rng_isolated():
        seed_rng(11)
        return BatchCache(lambda: trial_loader(loader, seed), seed=seed, **options)


def plain(batch: Any) -> Any:
    return batch.tolist() if isinstance(batch, Tensor) else [part.tolist() for part in batch]


class Augmented(Dataset[Tensor]):
    """Each row is drawn anew, with every kind of random number."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Tensor:
        return torch.rand(3) + random.random() + float(np.random.rand())  # noqa: NPY002  # what data sets do


@limits
def test_the_batches_are_those_the_training_would_have_drawn(limit_bytes: int) -> None:
    for name, made in LOADERS.items():
        with case(name):
            with rng_isolated():
                seed_rng(11)
                loader = made()
                expected = [plain(batch) for _ in range(2) for batch in loader]

            batches = cache(made(), limit_bytes=limit_bytes)

            assert [plain(batches[index]) for index in range(len(expected))] == expected


@limits
def test_each_trial_gets_the_same_batches(limit_bytes: int) -> None:
    loaders = {**LOADERS, "augmented": lambda: DataLoader(Augmented(), batch_size=3)}
    for (name, made), seed in product(loaders.items(), (0, 3)):
        with case(name, seed):
            batches = cache(made(), seed, limit_bytes=limit_bytes)

            trials = []
            for _ in range(3):
                trials.append([plain(batches[index]) for index in range(7)])
                torch.rand(5)  # what a trial draws itself

            assert trials[0] == trials[1] == trials[2]


@limits
def test_any_order_of_asking_gives_the_same_batches(limit_bytes: int) -> None:
    made = LOADERS["shuffled"]
    batches = cache(made(), limit_bytes=limit_bytes)
    in_order = [plain(cache(made())[index]) for index in range(12)]

    for index in (11, 0, 5, 5, 2, 10, 3):
        assert plain(batches[index]) == in_order[index]


@limits
def test_drawing_leaves_the_random_numbers_of_the_trial_alone(limit_bytes: int) -> None:
    batches = cache(DataLoader(Augmented(), batch_size=3, shuffle=True), limit_bytes=limit_bytes)
    before = rng_state()

    for index in range(9):
        batches[index]

    after = rng_state()
    assert torch.equal(after.torch, before.torch)
    assert after.python == before.python
    assert all(np.array_equal(one, other) for one, other in zip(after.numpy, before.numpy, strict=True))


@limits
def test_what_a_step_changes_in_place_is_as_it_was_for_the_next(limit_bytes: int) -> None:
    data = [{"x": torch.ones(2), "names": ["a", "b"], "extra": {"y": torch.zeros(1)}, "array": np.ones(2)}]
    batches = cache(data, limit_bytes=limit_bytes)

    for _ in range(3):
        batch = batches[0]
        assert batch["x"].tolist() == [1.0, 1.0]
        assert (batch["names"], batch["array"].tolist()) == (["a", "b"], [1.0, 1.0])
        batch["x"].sub_(1.0)
        batch["array"][0] = 7.0
        batch["names"].append("c")
        batch.pop("extra")["y"].add_(1.0)
        batch["added"] = 1

    assert sorted(data[0]) == ["array", "extra", "names", "x"]
    assert data[0]["x"].tolist() == [1.0, 1.0]  # type: ignore[attr-defined]


def test_a_tensor_that_a_batch_holds_twice_needs_no_gradient_of_its_own() -> None:
    tensor = torch.ones(2, requires_grad=True)

    batch = cache([(tensor * 2, tensor)])[0]

    assert [part.tolist() for part in batch] == [[2.0, 2.0], [1.0, 1.0]]


@limits
def test_epochs_differ_where_the_loader_shuffles(limit_bytes: int) -> None:
    batches = cache(LOADERS["shuffled"](), limit_bytes=limit_bytes)

    first, second = ([plain(batches[index]) for index in range(start, start + 6)] for start in (0, 6))

    assert first != second


def test_another_seed_shuffles_in_another_way() -> None:
    loader = LOADERS["shuffled"]()

    assert plain(cache(loader, 1)[0]) != plain(cache(loader, 2)[0]) != plain(cache(loader)[0])


def test_the_cache_keeps_no_more_than_its_limit() -> None:
    drawn = []

    class Counted(Own):
        def __iter__(self) -> Iterator[Tensor]:
            for batch in super().__iter__():
                drawn.append(1)
                yield batch

    batches = cache(Counted(), limit_bytes=3 * 16)
    for _ in range(4):
        for index in range(3):
            batches[index]

    assert len(drawn) == 3
    batches[3]
    batches[3]
    assert len(drawn) > 5


@limits
def test_the_end_of_an_epoch_is_known_whether_or_not_the_length_is(limit_bytes: int) -> None:
    for name, made in LOADERS.items():
        with case(name):
            length = len(list(made()))

            unsized = cache(made(), limit_bytes=limit_bytes)
            sized = cache(made(), limit_bytes=limit_bytes, epoch_batches=length)

            expected = [(index + 1) % length == 0 for index in range(2 * length + 1)]
            assert [unsized.is_last_of_epoch(index) for index in range(2 * length + 1)] == expected
            assert [sized.is_last_of_epoch(index) for index in range(2 * length + 1)] == expected


@limits
def test_looking_for_the_end_of_an_epoch_changes_no_batch(limit_bytes: int) -> None:
    expected = [plain(cache(DataLoader(Stream(), batch_size=4))[index]) for index in range(6)]
    batches = cache(DataLoader(Stream(), batch_size=4), limit_bytes=limit_bytes)

    seen = []
    for index in range(6):
        batches.is_last_of_epoch(index)
        seen.append(plain(batches[index]))

    assert seen == expected


@limits
def test_epochs_of_changing_length_end_where_they_end(limit_bytes: int) -> None:
    class Growing(IterableDataset[Tensor]):
        def __init__(self) -> None:
            self.epoch = 0

        def __iter__(self) -> Iterator[Tensor]:
            self.epoch += 1
            return iter([torch.tensor([self.epoch])] * (self.epoch + 1))

    batches = cache(DataLoader(Growing(), batch_size=1), limit_bytes=limit_bytes)

    ends = [index for index in range(9) if batches.is_last_of_epoch(index)]

    assert ends == [1, 4, 8]


@pytest.mark.parametrize("loader", [[], DataLoader(vectors(3), batch_size=4, drop_last=True)])
def test_a_loader_without_batches_is_an_error_that_says_so(loader: Any) -> None:
    with pytest.raises(UnsupportedModuleError, match="gives no batch"):
        cache(loader)[0]


def test_data_that_end_for_good_are_an_error_that_says_where() -> None:
    iterator = iter([torch.ones(1)] * 3)

    with pytest.raises(UnsupportedModuleError, match="ended for good after 3 batches"):
        BatchCache(lambda: iterator)[3]


@pytest.mark.parametrize("wrapped", [lambda: UserDict(x=torch.zeros(1_000)), lambda: {"x": np.zeros(1_000)}])
def test_what_other_libraries_wrap_counts_as_memory_too(wrapped: Callable[[], Any]) -> None:
    batches = cache([wrapped() for _ in range(10)], limit_bytes=20_000)

    for index in range(10):
        batches[index]

    assert 1 <= len(batches._kept) <= 4
