"""What sort of module a parameter belongs to: told from types first, from names where a type says nothing."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

from optselect.parameters.place import NamedModule, Place, words_in

Kind = Literal["embedding", "conv", "linear", "norm", "recurrent", "attention", "other"]

_NORM_NAME = re.compile(r"norm(\d+d?)?$", re.IGNORECASE)
# Ends in, not contains: an `AttentionBlock` or `AttentionNet` usually holds an MLP beside its attention.
_ATTENTION_NAME = re.compile(r"(attention|attn)\d*$", re.IGNORECASE)
_QUERY = {"q", "query", "queries", "wq", "qs"}
_KEY = {"k", "key", "keys", "wk", "ks", "kv"}
_FUSED = {"qkv", "wqkv"}
_ATTENTION_PARTS = _QUERY | _KEY | _FUSED | {"v", "value", "values", "wv", "vs", "o", "out", "output", "wo", "proj"}


def kind_of(place: Place) -> Kind:
    """Tell the kind of the module that holds a parameter."""
    owner = place.owner
    if isinstance(owner, nn.Embedding | nn.EmbeddingBag):
        return "embedding"
    if isinstance(owner, _ConvNd):
        return "conv"
    if is_norm(owner):
        return "norm"
    if isinstance(owner, nn.RNNBase | nn.RNNCellBase):
        return "recurrent"
    if isinstance(owner, nn.MultiheadAttention):
        return "attention"
    if _is_linear(place.around):
        return "attention" if _projects_for_attention(place) else "linear"
    if "embed" in place.leaf.lower():
        return "embedding"
    if is_attention(owner) and len(place.shape) == 2 and words_in(place.leaf) & _ATTENTION_PARTS:
        return "attention"
    return "other"


def is_norm(module: nn.Module) -> bool:
    """Tell whether `module` normalises: torch's norms, and classes named like one (LlamaRMSNorm, LayerNorm2d)."""
    known = isinstance(module, _NormBase | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm)
    return known or _NORM_NAME.search(type(module).__name__) is not None


def is_attention(module: nn.Module) -> bool:
    """Tell whether `module` is torch's attention, or of a class named like one."""
    return isinstance(module, nn.MultiheadAttention) or _ATTENTION_NAME.search(type(module).__name__) is not None


def _is_linear(around: NamedModule) -> bool:
    """Tell whether it is a Linear, or acts as one: it holds a 2-D weight, perhaps a bias, and no more."""
    if isinstance(around.module, nn.Linear | nn.Bilinear):
        return True
    weight = around.own_parameters.get("weight")
    return (
        weight is not None
        and not is_lazy(weight)
        and weight.ndim == 2
        and around.own_parameters.keys() <= {"weight", "bias"}
        and not around.has_children
    )


def _projects_for_attention(place: Place) -> bool:
    if any(is_attention(each.module) for each in place.path):
        return True
    return any(
        words_in(inner.part) & _ATTENTION_PARTS and _has_projections(outer) for outer, inner in pairwise(place.path)
    )


def _has_projections(around: NamedModule) -> bool:
    """Tell whether its children are named like the projections of an attention."""
    queries, keys, fused = (around.words_of_children & known for known in (_QUERY, _KEY, _FUSED))
    return bool(fused or (queries and keys))
