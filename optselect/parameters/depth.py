"""In which layer each parameter is, counted from the input."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

from torch import nn

from optselect.parameters.adapters import is_wrapped
from optselect.parameters.blocks import block_around
from optselect.parameters.kind import Kind, is_attention
from optselect.parameters.place import Place, modules_around


def depths_of(places: Sequence[Place], kinds: Mapping[str, Kind], matched: Mapping[str, str]) -> dict[str, int]:
    """Index each parameter's layer, by the parameter's first name; `places` come from input to output.

    `matched` gives the layers that the model itself names.
    """
    index: dict[str, int] = {}
    depths: dict[str, int] = {}
    latest = deepest = 0
    only_embeddings = True
    waiting = []
    for place in places:
        own = place.name in matched
        kind = kinds[place.name]
        layer = matched.get(place.name) or _layer(place)
        if layer is None:
            waiting.append(place)
            continue
        if layer not in index:
            # All embeddings at the input are one layer, and a norm goes with the layer whose output it takes.
            follows = kind == "norm" and block_around(place) is None and not own
            at_input = kind == "embedding" and not own and latest == 0 and only_embeddings
            if index and not follows and not at_input:
                latest = deepest + 1
            index[layer] = latest
            deepest = max(deepest, latest)
        depths[place.name] = latest = index[layer]
        only_embeddings = only_embeddings and kind in {"embedding", "norm"}
    return _with_waiting(depths, waiting)


def _with_waiting(depths: dict[str, int], waiting: Sequence[Place]) -> dict[str, int]:
    """Add the bare parameters of modules with children (a class token, a position table).

    They enter with the first layer in their module.
    """
    first_inside: dict[str, int] = {}

    def note(name: str) -> None:
        for module in modules_around(name):
            first_inside[module] = min(first_inside.get(module, depths[name]), depths[name])

    for name in depths:
        note(name)
    for place in waiting:
        depths[place.name] = first_inside.get(place.around.name, 0)
        note(place.name)
    return depths


def _layer(place: Place) -> str | None:
    block = block_around(place)
    if block is not None:
        return block
    # What was put around a layer, or beside it, is in the layer's place.
    for outer, inner in pairwise(place.path):
        if is_wrapped(inner.part):
            return outer.name
    if place.around.has_parameters_below and not is_attention(place.owner):
        return None
    # An LSTM holds all its layers in one module: weight_ih_l0, weight_ih_l1_reverse.
    stacked = re.search(r"_(l\d+)", place.leaf) if isinstance(place.owner, nn.RNNBase) else None
    attention = next((each.name for each in place.path if is_attention(each.module)), place.around.name)
    return f"{attention}.{stacked[1]}" if stacked else attention


def from_input_to_output(
    places: Sequence[Place], order: Sequence[str] | None, head: Collection[str], matched: Mapping[str, str]
) -> list[Place]:
    """Sort by execution, where its order is known; else keep the order of registration, with the head at the end.

    `matched` gives the layers that the model itself names; they go before both.
    """
    if order is not None:
        ordered = _sorted_by_execution(places, order)
    else:
        ordered = sorted(places, key=lambda place: place.name in head)
    inside = sorted((place for place in ordered if place.name in matched), key=lambda place: matched[place.name])
    if not inside:
        return ordered
    # A model that knows its layers stands as a whole where it begins.
    at = next(index for index, place in enumerate(ordered) if place.name in matched)
    outside = [place for place in ordered if place.name not in matched]
    return [*outside[:at], *inside, *outside[at:]]


def _sorted_by_execution(places: Sequence[Place], order: Sequence[str]) -> list[Place]:
    first: dict[str, int] = {}
    for place_in_order, name in enumerate(order):
        first.setdefault(name, place_in_order)
    position: float = -1
    positions = {}
    for place in places:
        # A module may run through its parent's forward alone (MultiheadAttention's out_proj): then the parent
        # counts, but never the root, which is around everything.
        around = [first[each.name] for each in reversed(place.path) if each.name and each.name in first]
        position = around[0] if around else position
        positions[place.name] = position
    return sorted(places, key=lambda place: positions[place.name])
