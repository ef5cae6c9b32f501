"""Where the parameters of a model stand: their names, and the modules around each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

from optselect.parameters.names import named_children, named_modules, own_name

NUMBERED = re.compile(r"(.*?)_?(\d+)")


@dataclass(frozen=True, kw_only=True, eq=False)
class NamedModule:
    """A module under one of its names ("" for the model itself).

    All parameters inside it share this one value, so that whatever they ask of it is looked up once.
    """

    name: str
    module: nn.Module

    @property
    def part(self) -> str:
        """What it is called by the module around it."""
        return self.name.rpartition(".")[2]

    @cached_property
    def has_children(self) -> bool:
        """Whether it has modules inside."""
        return next(self.module.children(), None) is not None

    @cached_property
    def has_parameters_below(self) -> bool:
        """Whether a module inside it has parameters; a convolution may have its padding as a child."""
        return any(next(child.parameters(), None) is not None for child in self.module.children())

    @cached_property
    def own_parameters(self) -> Mapping[str, nn.Parameter]:
        """The parameters that it holds itself."""
        return dict(self.module.named_parameters(recurse=False))

    @cached_property
    def words_of_children(self) -> frozenset[str]:
        """The words that its children are called by."""
        return frozenset(word for name, _ in self.module.named_children() for word in words_in(name))

    @cached_property
    def numbered_children(self) -> Mapping[tuple[type, str], int]:
        """How many of its children are numbered, by their class and what stands before the number."""
        found = ((type(child), NUMBERED.fullmatch(name)) for name, child in named_children(self.module))
        return Counter((kind, match[1]) for kind, match in found if match is not None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """One name of a parameter, and the modules around it from the model inwards."""

    name: str
    parameter: nn.Parameter
    path: tuple[NamedModule, ...]

    @property
    def around(self) -> NamedModule:
        """The module that holds the parameter."""
        return self.path[-1]

    @property
    def owner(self) -> nn.Module:
        """The same without its name."""
        return self.around.module

    @property
    def leaf(self) -> str:
        """`weight` of `encoder.0.weight`, and of `encoder.0.parametrizations.weight.original`."""
        rest = self.name.removeprefix(f"{self.around.name}.").split(".")
        return rest[1] if rest[0] == "parametrizations" else rest[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """() for a scalar, and for a parameter of a lazy module that has seen no batch yet."""
        return () if is_lazy(self.parameter) else tuple(self.parameter.shape)

    @property
    def numel(self) -> int:
        """Scalars in it; 0 for a lazy one."""
        return 0 if is_lazy(self.parameter) else self.parameter.numel()

    @property
    def is_lazy_matrix(self) -> bool:
        """A weight whose shape is not known yet but will have two dimensions or more."""
        return is_lazy(self.parameter) and self.leaf == "weight" and isinstance(self.owner, nn.Linear | _ConvNd)

    @property
    def is_bias(self) -> bool:
        """Whether it is added to what a layer gives."""
        vector = len(self.shape) <= 1
        # bias_ih_l0 of an LSTM, bias_k of an attention; not a relative_position_bias_table, which has two
        # dimensions.
        return self.leaf.endswith("bias") or (vector and "bias" in self.leaf) or self.leaf in {"bias_k", "bias_v"}


def places_of(model: nn.Module) -> dict[str, Place]:
    """Locate every parameter of `model` under each of its names, in the order of `model.named_parameters()`."""
    modules = {
        name: NamedModule(name=name, module=module) for name, module in named_modules(model, remove_duplicate=False)
    }
    places = {}
    for wrapped, parameter in model.named_parameters(remove_duplicate=False):
        name = own_name(wrapped)
        parts = name.split(".")[:-1]
        if "parametrizations" in parts:
            # torch.nn.utils.parametrize keeps the originals in a module of its own below the one they belong
            # to.
            parts = parts[: parts.index("parametrizations")]
        path = tuple(modules[".".join(parts[:length])] for length in range(len(parts) + 1))
        places[name] = Place(name=name, parameter=parameter, path=path)
    return places


def aliases_of(places: Mapping[str, Place]) -> dict[str, tuple[str, ...]]:
    """Map the first name of each parameter to its further names."""
    names: dict[int, list[str]] = {}
    for name, place in places.items():
        names.setdefault(id(place.parameter), []).append(name)
    return {first: tuple(others) for first, *others in names.values()}


def modules_around(name: str) -> Iterator[str]:
    """Yield the names of all modules around this name: `encoder.0`, `encoder` and "" for `encoder.0.weight`."""
    while name:
        name = name.rpartition(".")[0]
        yield name


def words_in(name: str) -> set[str]:
    """Split a name into its words: `to`, `qkv` and `toqkv` for `to_qkv`."""
    lower = name.lower()
    return {*re.split(r"[^a-z0-9]+", lower), lower.replace("_", "")}
