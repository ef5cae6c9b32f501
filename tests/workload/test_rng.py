"""Random numbers read and put back."""

import io
import random

import numpy as np
import pytest
import torch

from optselect.workload.rng import (
    Generator,
    RngState,
    generators_restored,
    rng_isolated,
    rng_state,
    seed_rng,
    set_rng_state,
)


def draw() -> list[float]:
    return [
        torch.rand(()).item(),
        float(torch.randn(3).sum()),
        float(np.random.rand()),  # noqa: NPY002  # the legacy generator is what trainings draw from
        float(np.random.randn()),  # noqa: NPY002  # as above; keeps a second normal number back
        random.random(),
        random.gauss(0, 1),
    ]


def test_a_state_put_back_gives_the_same_numbers() -> None:
    draw()
    state = rng_state()
    first = draw()

    set_rng_state(state)

    assert draw() == first


def test_a_state_survives_a_checkpoint_loaded_with_weights_only() -> None:
    draw()
    state = rng_state()
    stored = io.BytesIO()
    torch.save(state.to_dict(), stored)
    stored.seek(0)
    first = draw()

    set_rng_state(RngState.from_dict(torch.load(stored, weights_only=True)))

    assert draw() == first


def test_what_is_drawn_in_isolation_leaves_no_trace_even_if_it_raises() -> None:
    state = rng_state()
    first = draw()
    set_rng_state(state)

    with pytest.raises(ZeroDivisionError), rng_isolated():  # noqa: PT012  # the law is about leaving by an exception
        seed_rng(7)
        draw()
        raise ZeroDivisionError

    assert draw() == first


@pytest.mark.parametrize("seed", [0, 1, 2**32 + 5, 2**63 - 1])
def test_a_seed_decides_every_generator(seed: int) -> None:
    with rng_isolated():
        seed_rng(seed)
        first = draw()
        seed_rng(seed)

        assert draw() == first


@pytest.mark.parametrize(
    "generator",
    [torch.Generator(), np.random.default_rng(0), np.random.RandomState(0), random.Random(0)],
    ids=lambda generator: type(generator).__qualname__,
)
def test_a_generator_object_is_put_back_even_if_the_body_raises(generator: Generator) -> None:
    def number() -> float:
        if isinstance(generator, torch.Generator):
            return torch.rand((), generator=generator).item()
        return float(generator.random())

    with pytest.raises(ZeroDivisionError), generators_restored([generator, generator]):  # noqa: PT012  # the law is about leaving by an exception
        first = number()
        raise ZeroDivisionError

    assert number() == first
