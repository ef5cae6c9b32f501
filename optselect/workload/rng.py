"""Every random number generator a training draws from, read and put back."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Generator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random
"""Random number generators that a loader, a sampler or a data set may hold."""


@dataclass(frozen=True, kw_only=True)
class RngState:
    """Where torch (CPU and every CUDA device), NumPy and Python stand. `to_dict` holds builtins only."""

    torch: Tensor
    cuda: tuple[Tensor, ...]
    numpy: tuple[Any, ...]
    python: tuple[Any, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return builtins that `weights_only=True` loads."""
        return {
            "torch": _as_builtins(self.torch),
            "cuda": list(map(_as_builtins, self.cuda)),
            "numpy": _as_builtins(self.numpy),
            "python": self.python,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RngState:
        """Rebuild the state that `to_dict` wrote."""
        return cls(
            torch=torch.as_tensor(_from_builtins(data["torch"])),
            cuda=tuple(torch.as_tensor(_from_builtins(state)) for state in data["cuda"]),
            numpy=_from_builtins(data["numpy"]),
            python=data["python"],
        )


def rng_state() -> RngState:
    """Return where the generators stand now."""
    cuda = tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else ()
    return RngState(
        torch=torch.get_rng_state(),
        cuda=cuda,
        numpy=tuple(np.random.get_state(legacy=True)),  # the legacy one is what trainings use
        python=random.getstate(),
    )


def set_rng_state(state: RngState) -> None:
    """Put the generators where `state` says. CUDA states of devices that are not here are left out."""
    torch.set_rng_state(state.torch)
    for device, cuda in enumerate(state.cuda[: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(cuda, device)
    np.random.set_state(state.numpy)  # as above
    random.setstate(state.python)


def seed_rng(seed: int) -> None:
    """Seed all generators."""
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        # torch.manual_seed would also note a seed, and a printed stack, for every kind of device that is not here.
        torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)  # as above
    random.seed(seed)


@contextmanager
def rng_isolated() -> Iterator[None]:
    """Leave all generators where they stood."""
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)


@contextmanager
def generators_restored(generators: Iterable[Generator]) -> Iterator[None]:
    """Leave generator objects (a loader's `generator=`, a sampler's) where they stood."""
    distinct = {id(generator): generator for generator in generators}.values()
    states = [(generator, _state_of(generator)) for generator in distinct]
    try:
        yield
    finally:
        for generator, state in states:
            _set_state_of(generator, state)


def generator_state(generator: Generator) -> Any:
    """Return where a generator object stands: builtins only, loadable with `weights_only=True`."""
    return _as_builtins(_state_of(generator))


def set_generator_state(generator: Generator, state: Any) -> None:
    """Put `generator` where `generator_state` found one of its kind."""
    _set_state_of(generator, _from_builtins(state))


def _state_of(generator: Generator) -> Any:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def _set_state_of(generator: Generator, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, torch.Generator):
        generator.set_state(torch.as_tensor(state))
    else:
        generator.set_state(state)


def _as_builtins(state: Any) -> Any:
    if isinstance(state, Tensor):
        state = state.numpy()
    if isinstance(state, np.ndarray):
        return {"words": state.tobytes(), "dtype": state.dtype.str}
    if isinstance(state, np.generic):
        return state.item()
    if isinstance(state, dict):
        return {name: _as_builtins(value) for name, value in state.items()}
    return tuple(map(_as_builtins, state)) if isinstance(state, tuple) else state


def _from_builtins(state: Any) -> Any:
    if isinstance(state, dict):
        if "words" in state:
            # Copied: torch warns of memory that it may not write to.
            return np.frombuffer(state["words"], state["dtype"]).copy()
        return {name: _from_builtins(value) for name, value in state.items()}
    return tuple(map(_from_builtins, state)) if isinstance(state, tuple) else state
