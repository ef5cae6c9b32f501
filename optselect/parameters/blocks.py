"""Repeated blocks: which one is around a parameter, and whether another one is like it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

from optselect.parameters.place import NUMBERED, Place

_REPEATED = {"blocks", "layers", "layer", "h"}

# Layers inside a block that are numbered, too; the block is what is around them.
_LAYER_STEMS = {"conv", "fc", "linear", "lin", "dense", "norm", "bn", "ln", "attn", "mlp", "proj", "head", "classifier"}

_DIGITS = "0123456789"
_NUMBER_OF_A_MODULE = re.compile(r"\d+(?=\.)")


def block_around(place: Place) -> str | None:
    """Name the repeated block around a parameter: `encoder.layers.3`, `layer1.0`, `stage2.block1`; or None.

    Only numbered modules with modules inside are blocks: the Linear numbered 2 of a Sequential is a layer
    itself.
    """
    block = None
    for each in place.path[1:]:
        if each.part.isdigit() and each.has_children:
            block = each.name
        elif block is not None and each.part not in _REPEATED:
            break
    return block or _named_block(place)


def _named_block(place: Place) -> str | None:
    """Name the innermost module around it that is numbered among others of its kind: `stage2.block1`."""
    block = None
    for outer, inner in pairwise(place.path):
        found = NUMBERED.fullmatch(inner.part)
        if found is None or found[1] in _LAYER_STEMS or not inner.has_children:
            if block is not None:
                break
            continue
        if outer.numbered_children.get((type(inner.module), found[1]), 0) > 1:
            block = inner.name
    return block


class Repetitions:
    """Which parameters stand in one of several blocks alike."""

    def __init__(self, places: Iterable[Place]) -> None:
        # By what stands before and after each number in a name: a block differs from its twins in that number alone.
        self._numbers: dict[tuple[str, str, tuple[int, ...]], set[str]] = {}
        for place in places:
            for number in _NUMBER_OF_A_MODULE.finditer(place.name):
                key = (place.name[: number.start()], place.name[number.end() :], place.shape)
                self._numbers.setdefault(key, set()).add(number[0])

    def has_twin(self, place: Place) -> bool:
        """Tell whether the block around it has a sibling with a parameter of this name and shape."""
        block = block_around(place)
        if block is None:
            return False
        stem = block.rstrip(_DIGITS)
        numbers = self._numbers.get((stem, place.name[len(block) :], place.shape), set())
        return bool(numbers - {block[len(stem) :]})
