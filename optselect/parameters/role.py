"""What a parameter is for, as the optimizers tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from optselect.parameters.kind import Kind
from optselect.parameters.place import Place

Role = Literal["embedding", "hidden matrix", "convolution", "norm", "bias", "head", "other"]

# Muon orthogonalises its update; on a sliver or a very long strip that is no better than a sign. The bounds
# are those of OPTIMIZERS.md § 5 (as in the pytorch_optimizer and timm implementations).
SMALLEST_MATRIX_SIDE = 4
LARGEST_MATRIX_ASPECT = 128


def role_of(place: Place, kind: Kind, *, in_head: bool) -> Role:
    """Tell the role of a parameter of this kind; everything inside the head is "head", its bias too."""
    if kind == "embedding":
        return "embedding"
    if in_head:
        return "head"
    if kind == "norm":
        return "norm"
    if place.is_bias:
        return "bias"
    if kind == "conv":
        return "convolution"
    if kind == "linear" and _named_as_embedding(place):
        return "embedding"
    return "hidden matrix" if _is_hidden_shape(place.shape) else "other"


def _named_as_embedding(place: Place) -> bool:
    """Tell whether it embeds patches or features by name: `patch_embedding`, or inside a Sequential of that name."""
    words = [part for part in place.around.name.split(".") if part and not part.isdigit()]
    return bool(words) and "embed" in words[-1].lower()


def _is_hidden_shape(shape: Sequence[int]) -> bool:
    if len(shape) != 2:
        return False
    short, long = sorted(shape)
    return short >= SMALLEST_MATRIX_SIDE and long <= LARGEST_MATRIX_ASPECT * short
