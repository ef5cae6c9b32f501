"""Which parameters make the output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from optselect.parameters.adapters import is_adapter
from optselect.parameters.blocks import Repetitions
from optselect.parameters.conventions import asked
from optselect.parameters.kind import Kind
from optselect.parameters.names import named_modules
from optselect.parameters.place import Place

# Only where nothing says what ran last: many modules register their head before their backbone.
_HEAD_NAMES = {"head", "heads", "classifier", "lm_head", "score"}


def find_head(
    model: nn.Module, places: Mapping[str, Place], kinds: Mapping[str, Kind], order: Sequence[str] | None
) -> set[str]:
    """Name the parameters in the module or modules that make the output; none when it cannot be told.

    Asked in turn: the model's own `get_output_embeddings()` (Hugging Face) and `get_classifier()` (timm); the
    last Linear or convolution that ran; the last Linear registered under a head's name; the last one registered;
    the last convolution. One of several blocks alike is none: an encoder without an output layer has no head.
    """
    outermost = list(_declared(model)) or [_with_wrappers(place) for place in _last_layer(places, kinds, order)]
    modules = {inner for module in outermost for inner in module.modules()}
    return {name for name, place in places.items() if place.owner in modules}


def _last_layer(places: Mapping[str, Place], kinds: Mapping[str, Kind], order: Sequence[str] | None) -> Sequence[Place]:
    """Find the place of the last layer, if there is one."""
    layers = {
        place.around.name: (place, kinds[name])
        for name, place in places.items()
        if kinds[name] in {"linear", "conv"} and not is_adapter(name)
    }
    repetitions = Repetitions(places.values())
    if order is not None:
        last = [layers[name][0] for name in order if name in layers][-1:]
        return [place for place in last if not repetitions.has_twin(place)]
    single = [(place, kind) for place, kind in layers.values() if not repetitions.has_twin(place)]
    linears = [place for place, kind in single if kind == "linear"]
    named = [place for place in linears if _HEAD_NAMES & set(place.around.name.split("."))]
    return named[-1:] or linears[-1:] or [place for place, _ in single][-1:]


def _with_wrappers(place: Place) -> nn.Module:
    """Return its owner, or the outermost module around without another layer: a bare bias, dropout, adapters."""
    found = place.owner
    for around in reversed(place.path[1:-1]):
        inside = {
            name
            for name, inner in named_modules(around.module)
            if name and next(inner.parameters(recurse=False), None) is not None and not is_adapter(name)
        }
        if len(inside) > 1:
            break
        found = around.module
    return found


def _declared(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the heads that the outermost module with named heads declares."""
    for module in model.modules():
        heads = [
            head
            for method in ("get_output_embeddings", "get_classifier")
            for head in _modules_in(asked(module, method))
            if next(head.parameters(), None) is not None
        ]
        if heads:
            yield from heads
            return


def _modules_in(value: Any) -> Iterator[nn.Module]:
    # timm's distilled models return a pair of heads.
    for each in value if isinstance(value, tuple | list) else (value,):
        if isinstance(each, nn.Module):
            yield each
