"""What is read of a data set, and what is told from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_digits
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, random_split

from optselect.profile.data import profile_data
from optselect.profile.sample import MAX_NUMBERS, MAX_ROWS, spread_indices
from optselect.profile.values import DataProfile
from optselect.workload.protocol import DataSource
from optselect.workload.rng import rng_state

# scikit-learn needs scipy; imported this way because scipy brings no types.
sparse = pytest.importorskip("scipy.sparse")


def source(dataset: Any, **fields: Any) -> DataSource:
    defaults: dict[str, Any] = {"collate": None, "batch_size": None, "batches": None, "head": lambda n: []}
    return DataSource(dataset=dataset, **{**defaults, **fields})


def profile(dataset: Any) -> DataProfile:
    return profile_data(source(dataset))


def digits() -> TensorDataset:
    images, labels = load_digits(return_X_y=True)
    return TensorDataset(torch.tensor(images, dtype=torch.float32), torch.tensor(labels))


def rows(count: int = 100, features: int = 5, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, features, generator=torch.Generator().manual_seed(seed))


class Counting(Dataset[Any]):
    """Counts what is read of it."""

    def __init__(self, items: Any) -> None:
        self.items = items
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        self.read.append(index)
        return self.items[index]


# --- what is read -------------------------------------------------------------------------------------------


def test_of_a_hundred_million_rows_two_thousand_are_read(tmp_path: Path) -> None:
    with (tmp_path / "rows").open("wb") as file:
        file.truncate(100_000_000 * 4)  # a sparse file: it takes no room on disk
    dataset = Counting(np.memmap(tmp_path / "rows", dtype=np.float32, mode="r", shape=(100_000_000, 1)))

    result = profile(dataset)

    assert (result.size, result.rows_read, len(dataset.read)) == (100_000_000, MAX_ROWS, MAX_ROWS)


def test_of_fewer_rows_each_is_read_once() -> None:
    dataset = Counting(rows(300))

    profile(dataset)

    assert sorted(dataset.read) == list(range(300))


@pytest.mark.parametrize("size", [1, 7, 1_999, 2_000, 2_001, 10**12])
def test_indices_are_distinct_and_come_from_everywhere(size: int) -> None:
    indices = sorted(spread_indices(size, MAX_ROWS))

    assert len(set(indices)) == len(indices) == min(size, MAX_ROWS)
    assert indices[0] >= 0
    assert indices[-1] < size
    # No gap is longer than two stretches, each of at most size / count rows, rounded up.
    gaps = [high - low for low, high in pairwise([0, *indices, size])]
    assert max(gaps) <= 2 * (size // len(indices) + 1)


def test_huge_rows_are_read_up_to_twenty_million_numbers() -> None:
    dataset = Counting([np.zeros(MAX_NUMBERS // 10, dtype=np.uint8)] * 50)

    result = profile(dataset)

    assert result.rows_read == len(dataset.read) <= 10


def test_the_global_random_state_is_left_alone() -> None:
    dataset = digits()
    before = rng_state()

    profile(dataset)

    after = rng_state()
    assert torch.equal(after.torch, before.torch)
    assert all(map(np.array_equal, after.numpy, before.numpy))
    assert after.python == before.python


def test_the_same_data_give_the_same_profile() -> None:
    dataset = TensorDataset(rows(5_000), torch.arange(5_000) % 3)

    assert profile(dataset) == profile(dataset)


def test_a_tensor_data_set_profiles_like_the_same_rows_read_one_by_one() -> None:
    dataset = digits()

    assert profile(dataset) == profile(Counting(dataset))


def test_a_subset_is_profiled_by_its_own_rows() -> None:
    dataset = TensorDataset(torch.cat([torch.zeros(50, 2), torch.ones(50, 2)]))
    zeros = Subset(Subset(dataset, range(60)), range(50))

    result = profile(zeros)

    assert (result.size, result.density) == (50, 0.0)


def test_a_random_split_is_read() -> None:
    train, _ = random_split(digits(), [1500, 297], generator=torch.Generator().manual_seed(0))

    result = profile(train)

    assert (result.size, result.rows_read, result.classes) == (1500, 1500, 10)


def test_a_row_that_cannot_be_read_costs_only_itself() -> None:
    class Holed(Counting):
        def __getitem__(self, index: int) -> Any:
            if index == 3:
                raise OSError
            return super().__getitem__(index)

    assert profile(Holed(rows(20))).rows_read == 19


class Broken(Dataset[Any]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        raise OSError


def test_a_data_set_that_cannot_be_read_is_profiled_by_its_batches() -> None:
    drawn = [[rows(8), torch.zeros(8)]]

    result = profile_data(source(Broken(), head=lambda n: drawn[:n]))

    assert (result.size, result.rows_read, result.features) == (10, 8, 5)


@pytest.mark.parametrize(
    "dataset",
    [Broken(), None, [], [None] * 20, ["text"] * 20, [object()] * 20, [{"a": "b"}] * 20, object(), 7],
)
def test_what_cannot_be_read_stays_none(dataset: Any) -> None:
    def fail(_: int) -> list[Any]:
        raise OSError

    result = profile_data(source(dataset, head=fail))

    assert (result.features, result.density, result.value_range, result.label_kind) == (
        None,
        None,
        None,
        "unknown",
    )


def test_texts_are_read_through_the_trainings_collate_function() -> None:
    texts = [("some words", 0), ("others", 1)] * 10

    def collate(items: list[Any]) -> Any:
        return torch.ones(len(items), 12, dtype=torch.int64), torch.tensor([label for _, label in items])

    result = profile_data(source(texts, collate=collate))

    assert (result.sequence_length, result.label_kind, result.size) == (12, "binary", 20)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(0)
        for index in range(10**6):
            yield torch.randn(3, generator=generator), index % 4


def test_a_stream_is_profiled_from_its_first_batches() -> None:
    asked = []

    def head(count: int) -> list[Any]:
        asked.append(count)
        return [batch for _, batch in zip(range(count), DataLoader(Stream(), batch_size=16), strict=False)]

    result = profile_data(source(None, batch_size=16, head=head))

    assert (result.size, result.rows_read, result.classes, max(asked)) == (None, 320, 4, 20)


def test_batches_already_drawn_are_not_drawn_again() -> None:
    def head(count: int) -> list[Any]:
        raise AssertionError

    result = profile_data(source(None, head=head), batches=[{"x": rows(6), "label": torch.zeros(6)}])

    assert (result.rows_read, result.features) == (6, 5)


# --- items of every form ------------------------------------------------------------------------------------


class Named(NamedTuple):
    label: int
    x: torch.Tensor


@dataclass
class Record:
    y: int
    x: torch.Tensor


class Graph:
    """As PyTorch Geometric's Data: keys() and indexing, but no Mapping."""

    def __init__(self, index: int) -> None:
        self.fields = {"x": rows(4, 5, seed=index), "y": torch.tensor(index % 3)}

    def keys(self) -> list[str]:
        return list(self.fields)

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.fields[key]


@pytest.mark.parametrize(
    "items",
    [
        [(torch.ones(5), index % 3) for index in range(30)],
        [[np.ones(5), np.int64(index % 3)] for index in range(30)],
        [{"x": torch.ones(5), "labels": index % 3, "attention_mask": torch.ones(5)} for index in range(30)],
        [{"x": [1.0] * 5, "label": torch.tensor([index % 3])} for index in range(30)],
        [Named(label=index % 3, x=torch.ones(5)) for index in range(30)],
        [Record(y=index % 3, x=torch.ones(5)) for index in range(30)],
        [((torch.ones(2), torch.ones(3)), index % 3) for index in range(30)],
        [(torch.ones(5, dtype=torch.bfloat16), "abc"[index % 3]) for index in range(30)],
        [(sparse.csr_array(np.ones((1, 5))), index % 3) for index in range(30)],
        [(torch.ones(5).to_sparse(), index % 3) for index in range(30)],
    ],
    ids=["tuple", "list", "dict", "lists", "namedtuple", "dataclass", "nested", "strings", "scipy", "sparse"],
)
def test_inputs_and_target_are_told_apart_in_items_of_every_form(items: list[Any]) -> None:
    result = profile(items)

    assert (result.features, result.density, result.label_kind, result.classes) == (5, 1.0, "multiclass", 3)


def test_a_graph_is_read_by_its_keys() -> None:
    result = profile([Graph(index) for index in range(12)])

    assert (result.features, result.label_kind) == (20, "multiclass")


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csr_array])
def test_a_sparse_matrix_is_a_data_set(form: Any) -> None:
    matrix = form(sparse.random(500, 1000, density=0.01, random_state=0, format="csr"))

    result = profile(matrix)

    assert (result.size, result.features, result.dtypes) == (500, 1000, ("float64",))
    assert result.density == pytest.approx(0.01)
    assert result.value_range is not None
    assert result.value_range[0] == 0.0


def test_a_bare_array_has_inputs_and_no_target() -> None:
    result = profile(np.ones((50, 3), dtype=np.float32))

    assert (result.size, result.features, result.dtypes, result.label_kind) == (
        50,
        3,
        ("float32",),
        "unknown",
    )


# --- what the inputs are ------------------------------------------------------------------------------------


def test_digits_are_what_they_are_known_to_be() -> None:
    result = profile_data(source(digits(), batch_size=64, batches=29))

    assert (result.size, result.rows_read, result.features, result.dtypes) == (1797, 1797, 64, ("float32",))
    assert (result.value_range, result.label_kind, result.classes) == ((0.0, 16.0), "multiclass", 10)
    assert (result.batch_size, result.batches) == (64, 29)
    assert (result.sequence_length, result.duplicates) == (None, 0.0)
    assert result.density == pytest.approx(0.51, abs=0.01)
    assert result.scale_ratio is not None
    assert result.scale_ratio < 10


def test_unscaled_features_show_in_the_scale_ratio() -> None:
    table = rows(500, 2) * torch.tensor([1.0, 1000.0])

    assert profile(table).scale_ratio == pytest.approx(1000, rel=0.2)


def test_the_scale_ratio_survives_a_large_offset() -> None:
    table = rows(500, 2).double() * torch.tensor([1.0, 2.0]).double() + 1e9

    assert profile(table).scale_ratio == pytest.approx(2, rel=0.2)


def test_missing_values_do_not_hide_the_scale() -> None:
    table = rows(500, 2) * torch.tensor([1.0, 100.0])
    table[::7, 0] = torch.nan

    result = profile(table)

    assert result.scale_ratio == pytest.approx(100, rel=0.2)
    assert result.value_range is not None
    assert np.isfinite(result.value_range).all()


def test_images_are_scaled_by_channel() -> None:
    images = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images[:, 2] *= 10

    result = profile(images)

    assert result.scale_ratio == pytest.approx(10, rel=0.2)
    assert result.sequence_length is None


def test_repeated_rows_are_duplicates() -> None:
    table = rows(50)

    assert profile(torch.cat([table, table])).duplicates == pytest.approx(0.5)
    assert profile(table).duplicates == 0.0


@pytest.mark.parametrize(
    "inputs, length",
    [
        (torch.zeros(20, 30, 12), 30),  # [time, channel]
        (torch.zeros(20, 1, 30), 30),  # [channel, time] of one channel
        (torch.zeros(20, 16, dtype=torch.int64), 16),  # tokens
        (torch.zeros(20, 2, dtype=torch.int64), None),  # user and item
        (torch.zeros(20, 8, 8), None),  # a grey image
        (torch.zeros(20, 1, 28, 28), None),  # an image
        (torch.zeros(20, 784, dtype=torch.uint8), None),  # a flat image
        (torch.zeros(20, 64), None),  # features
    ],
)
def test_a_sequence_axis_is_time_or_tokens(inputs: torch.Tensor, length: int | None) -> None:
    assert profile(TensorDataset(inputs, torch.zeros(20))).sequence_length == length


def test_sequences_of_many_lengths_have_a_median_length() -> None:
    items = [(torch.zeros(length, 3), 0) for length in (10, 20, 31)]

    assert profile(items).sequence_length == 20


def test_tokens_have_no_density_and_no_range() -> None:
    result = profile(torch.ones(20, 16, dtype=torch.int64))

    assert (result.density, result.value_range) == (None, None)


# --- what the targets are -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "targets, kind",
    [
        (torch.arange(60) % 2, "binary"),
        (torch.arange(60) % 2 == 0, "binary"),
        ((torch.arange(60) % 2).float(), "binary"),
        ((torch.arange(60) % 2).float()[:, None], "binary"),
        (torch.arange(60) % 5, "multiclass"),
        (torch.eye(5).repeat(12, 1), "multiclass"),
        (torch.full((60, 5), 0.2), "multiclass"),
        ((rows(60, 4) > 0).float(), "multilabel"),
        (rows(60, 1), "continuous"),
        (rows(60, 3), "continuous"),
        ((torch.arange(60) % 5).float(), "continuous"),  # ratings
        (rows(60, 9).reshape(60, 3, 3), "continuous"),
        (torch.arange(600).reshape(60, 10) % 7, "tokens"),
        (torch.arange(540).reshape(60, 3, 3) % 7, "tokens"),  # a class for each pixel
    ],
)
def test_the_kind_of_the_targets_is_told(targets: torch.Tensor, kind: str) -> None:
    assert profile(TensorDataset(rows(60), targets)).label_kind == kind


def test_whole_numbers_as_floats_are_not_classes() -> None:
    features, progression = load_diabetes(return_X_y=True)

    result = profile(TensorDataset(torch.tensor(features), torch.tensor(progression)))

    assert (result.label_kind, result.classes, result.class_counts) == ("continuous", None, ())


def test_a_sequence_without_a_target_is_its_own() -> None:
    text = torch.tensor([0, 1, 0, 2, 0, 1, 0, 3]).repeat(20, 1)

    result = profile(text)

    assert (result.label_kind, result.class_counts) == ("tokens", (80, 40, 20, 20))


def test_padding_of_token_targets_is_no_class() -> None:
    targets = torch.tensor([[1, 2, 3, -100]]).repeat(10, 1)

    assert profile(TensorDataset(rows(10), targets)).class_counts == (10, 10, 10)


def test_balanced_classes_have_no_tail() -> None:
    result = profile(TensorDataset(rows(1000), torch.arange(1000) % 10))

    assert result.tail_exponent == pytest.approx(0, abs=1e-6)
    assert result.top_class_share == pytest.approx(0.1)
    assert result.rare_class_share == 0.0


def test_classes_by_zipfs_law_have_the_exponent_one() -> None:
    targets = torch.cat([torch.full((1000 // rank,), rank) for rank in range(1, 101)])

    result = profile(TensorDataset(rows(len(targets)), targets))

    assert result.tail_exponent == pytest.approx(1, abs=0.15)
    assert result.rare_class_share is not None
    assert result.rare_class_share > 0.5


def test_a_class_is_rare_below_a_tenth_of_the_top_class() -> None:
    counts = {0: 100, 1: 10, 2: 9}
    targets = torch.cat([torch.full((count,), label) for label, count in counts.items()])

    result = profile(TensorDataset(rows(len(targets)), targets))

    assert result.class_counts == (100, 10, 9)
    assert result.rare_class_share == pytest.approx(1 / 3)


def test_no_more_than_a_thousand_counts_are_kept() -> None:
    result = profile(TensorDataset(rows(1500), torch.arange(1500)))

    assert (result.classes, len(result.class_counts)) == (1500, 1000)


def test_a_data_profile_survives_json() -> None:
    result = profile(digits())

    assert DataProfile.from_dict(result.to_dict()) == result
