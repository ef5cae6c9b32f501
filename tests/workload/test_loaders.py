"""Reading a loader for trials without moving it."""

import random
from collections.abc import Callable, Iterator
from itertools import islice, product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler

from optselect.workload.loaders import is_one_shot, loader_generators, trial_loader
from optselect.workload.replay import RecordedLoader
from optselect.workload.rng import rng_isolated, seed_rng
from tests.support.cases import case
from tests.support.loaders import DATA, LOADERS, Own, Stream

every_loader = pytest.mark.parametrize("made", LOADERS.values(), ids=LOADERS.keys())


def epochs(loader: Any, count: int = 2, seed: int = 11) -> list[Any]:
    """What `count` epochs give under this seed of the global generators."""
    with rng_isolated():
        seed_rng(seed)
        return [_plain(batch) for _ in range(count) for batch in loader]


def _plain(batch: Any) -> Any:
    return batch.tolist() if isinstance(batch, Tensor) else [part.tolist() for part in batch]


@every_loader
def test_the_twin_gives_what_the_loader_would_have_given(made: Callable[[], Any]) -> None:
    assert epochs(trial_loader(made())) == epochs(made())


@every_loader
def test_the_loader_gives_afterwards_what_it_would_have_given(made: Callable[[], Any]) -> None:
    loader = made()

    epochs(trial_loader(loader), count=3)
    epochs(trial_loader(loader, seed=1))

    assert epochs(loader) == epochs(made())


def test_each_twin_of_a_seed_gives_the_same() -> None:
    for (name, made), seed in product(LOADERS.items(), (0, 5)):
        with case(name, seed):
            loader = made()

            assert epochs(trial_loader(loader, seed)) == epochs(trial_loader(loader, seed))


@pytest.mark.parametrize(
    "name",
    ["generator", "batch sampler", "in place, Random", "in place, numpy", "in place, legacy", "own class", "wrapped"],
)
def test_another_seed_gives_another_order_where_a_generator_is_kept(name: str) -> None:
    loader = LOADERS[name]()

    assert epochs(trial_loader(loader, 1)) != epochs(trial_loader(loader, 2)) != epochs(trial_loader(loader))


def test_persistent_workers_of_the_loader_are_left_alone() -> None:
    def made() -> DataLoader[Any]:
        return DataLoader(DATA, batch_size=4, shuffle=True, num_workers=1, persistent_workers=True)

    loader = made()
    with rng_isolated():
        seed_rng(11)
        iterator = iter(loader)
        first = [_plain(next(iterator))]
        twin = iter(trial_loader(loader))
        next(twin)
        del twin
        rest = [_plain(batch) for batch in iterator]
    workers = loader._iterator

    assert first + rest == epochs(made(), count=1)
    assert workers is iterator


def test_the_data_are_shared_not_copied() -> None:
    twin = trial_loader(DataLoader(DATA, batch_size=4))

    assert isinstance(twin, DataLoader)
    assert twin.dataset is DATA


def test_what_cannot_be_copied_is_used_as_it_is() -> None:
    class Stubborn:
        def __reduce_ex__(self, version: Any) -> Any:
            raise TypeError("no copies")

        def __iter__(self) -> Iterator[int]:
            return iter([1])

    loader = Stubborn()

    assert trial_loader(loader) is loader


def test_every_generator_around_a_loader_is_found() -> None:
    generators = [torch.Generator(), np.random.default_rng(0), random.Random(0)]
    sampler = RandomSampler(DATA, generator=generators[0])
    loader = DataLoader(DATA, batch_sampler=BatchSampler(sampler, 4, drop_last=False))
    stream = Stream()
    stream.rng = generators[1]  # type: ignore[attr-defined]
    own = Own()
    own.generator = generators[2]  # type: ignore[assignment]

    found = [*loader_generators(loader), *loader_generators(DataLoader(stream)), *loader_generators(own)]

    assert all(any(each is one for one in found) for each in generators)


@pytest.mark.parametrize("loader", [iter([1]), (x for x in [1]), map(str, [1])], ids=["iterator", "generator", "map"])
def test_an_iterator_is_one_shot(loader: Any) -> None:
    assert is_one_shot(loader)


def test_a_stream_over_an_iterator_is_one_shot_and_one_that_can_begin_anew_is_not() -> None:
    held = Stream()
    held.source = iter([1])  # type: ignore[attr-defined]

    assert is_one_shot(DataLoader(held))
    assert not any(is_one_shot(made()) for made in LOADERS.values())


class OneShot(IterableDataset[Tensor]):
    """Two epochs' worth of a source that is gone once read."""

    def __init__(self) -> None:
        self.source = iter(range(100, 112))

    def __iter__(self) -> Iterator[Tensor]:
        for _, value in zip(range(6), self.source, strict=False):
            yield torch.tensor([value])


def test_what_is_set_on_a_recorded_loader_is_set_on_the_loader() -> None:
    loader = DataLoader(OneShot(), batch_size=1)
    recorded: Any = RecordedLoader(loader)

    recorded.worker_init_fn = print

    assert loader.worker_init_fn is print
    assert recorded.worker_init_fn is print
    assert isinstance(recorded, DataLoader)


@pytest.mark.parametrize("drawn", [0, 1, 4, 6, 9])
def test_a_recorded_stream_gives_the_run_what_the_trials_read_and_then_goes_on(drawn: int) -> None:
    recorded = RecordedLoader(DataLoader(OneShot(), batch_size=1))
    for _ in range(2):
        reader = trial_loader(recorded)
        trial = (batch.item() for _ in range(2) for batch in reader)
        assert list(islice(trial, drawn)) == list(range(100, 100 + drawn))

    run = [[batch.item() for batch in recorded] for _ in range(2)]

    by_hand = DataLoader(OneShot(), batch_size=1)
    assert run == [[batch.item() for batch in by_hand] for _ in range(2)]


def test_a_loader_made_of_others_stays_where_it_was() -> None:
    class InTurn:
        def __init__(self) -> None:
            generators = (torch.Generator().manual_seed(seed) for seed in (3, 4))
            self.parts = [DataLoader(DATA, batch_size=8, shuffle=True, generator=each) for each in generators]

        def __iter__(self) -> Iterator[Any]:
            return (batch for part in self.parts for batch in part)

    loader = InTurn()
    trial = [batch[0].tolist() for batch in trial_loader(loader)]

    assert len(list(loader_generators(loader))) >= 2
    assert [batch[0].tolist() for batch in loader] == trial
