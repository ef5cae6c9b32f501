"""What each parameter of a model is for, whatever the model: kind, role, depth, whether to decay it.

Module *types* are asked first, names only where a type says nothing: a `LayerNorm` is a norm under every
name, but a `Linear` called `q_proj` beside one called `k_proj` can only be told from its name.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

Kind = Literal["embedding", "conv", "linear", "norm", "recurrent", "attention", "other"]
Role = Literal["embedding", "hidden matrix", "convolution", "norm", "bias", "head", "other"]

# Muon orthogonalises its update; on a sliver or a very long strip that is no better than a sign. The bounds
# are those of OPTIMIZERS.md § 5 (as in the pytorch_optimizer and timm implementations).
SMALLEST_MATRIX_SIDE = 4
LARGEST_MATRIX_ASPECT = 128


@dataclass(frozen=True, kw_only=True)
class ParamInfo:
    """One parameter, as the parameter groups see it.

    name        the first of its names, as in `model.named_parameters()`
    shape       () for a scalar, and for a parameter of a lazy module that has seen no batch yet
    kind        what sort of module it belongs to
    role        what it is for; everything inside the head is "head", its bias too
    depth       index of its layer, 0 nearest the input; a repeated block is one layer, a norm belongs to the
                layer before it
    decay       whether weight decay is customary
    numel       scalars in it (a lazy parameter: 0)
    frozen      requires_grad is False
    tied_names  its further names, when one tensor stands in several places
    sparse      its gradient is a sparse tensor
    is_complex  its numbers are complex
    adapter     it was added beside the weights of a trained model (LoRA and its like)
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind
    role: Role
    depth: int
    decay: bool
    numel: int
    frozen: bool = False
    tied_names: tuple[str, ...] = ()
    sparse: bool = False
    is_complex: bool = False
    adapter: bool = False

    @property
    def part(self) -> Literal["head", "adapter", "backbone"]:
        """Which part of the model it belongs to."""
        return "head" if self.role == "head" else "adapter" if self.adapter else "backbone"


def describe_params(
    model: nn.Module,
    *,
    sparse: Collection[str] = (),
    order: Sequence[str] | None = None,
    head: Collection[str] | None = None,
) -> list[ParamInfo]:
    """Every parameter of `model` once, frozen ones too, in the order of `model.named_parameters()`.

    `sparse` names the parameters whose gradients were seen to be sparse tensors. `order` names the modules in
    the order they were executed (`optselect.parameters.execution`); None, or none: the order in which they were
    registered stands for it, with the head at the end. A model's own `group_matcher` goes before both. `head` names the
    parameters of the head, where the user says what it is.
    """
    order = order or None
    places = _places(model)
    parents = _attention_parents(model)
    kinds = {name: _kind(place, parents) for name, place in places.items()}
    aliases = _aliases(model)
    # An embedding whose weight is also the output layer's stays an embedding, whichever was registered first.
    kind_of = {
        name: "embedding" if any(kinds[each] == "embedding" for each in (name, *others)) else kinds[name]
        for name, others in aliases.items()
    }
    if head is None:
        modules = _head_modules(model, places, kinds, order)
        head = {name for name, place in places.items() if place.owner in modules}
    matched = _matched(model)
    depths = _depths(_in_order([places[name] for name in aliases], order, head, matched), kind_of, matched)
    undecayed = _undecayed(model)
    infos = []
    for name, others in aliases.items():
        place = places[name]
        names = (name, *others)
        is_sparse = any(each in sparse for each in names)
        role = _role(place, kind_of[name], in_head=any(each in head for each in names))
        if is_sparse and role != "head":
            role = "embedding"
        plain = kind_of[name] == "norm" or place.is_bias or len(place.shape) <= 1
        infos.append(
            ParamInfo(
                name=name,
                shape=place.shape,
                kind=kind_of[name],
                role=role,
                depth=depths[name],
                # Of torch's optimizers those that take sparse gradients refuse to decay them.
                decay=not (plain and not place.lazy_matrix) and not is_sparse and undecayed.isdisjoint(names),
                numel=place.numel,
                frozen=not place.parameter.requires_grad,
                tied_names=others,
                sparse=is_sparse,
                is_complex=place.parameter.is_complex(),
                adapter=is_adapter(name),
            )
        )
    return infos


def is_muon_matrix(info: ParamInfo) -> bool:
    """Whether torch's Muon is meant for this parameter: a real hidden matrix with a dense gradient."""
    return info.role == "hidden matrix" and not info.sparse and not info.is_complex


@dataclass(frozen=True, kw_only=True)
class _Place:
    """One name of a parameter, and the modules around it from the root (named "") inwards."""

    name: str
    parameter: nn.Parameter
    path: tuple[tuple[str, nn.Module], ...]

    @property
    def owner(self) -> nn.Module:
        return self.path[-1][1]

    @property
    def owner_name(self) -> str:
        return self.path[-1][0]

    @property
    def leaf(self) -> str:
        """`weight` of `encoder.0.weight`, and of `encoder.0.parametrizations.weight.original`."""
        rest = self.name.removeprefix(f"{self.owner_name}.").split(".")
        return rest[1] if rest[0] == "parametrizations" else rest[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        return () if is_lazy(self.parameter) else tuple(self.parameter.shape)

    @property
    def numel(self) -> int:
        return 0 if is_lazy(self.parameter) else self.parameter.numel()

    @property
    def lazy_matrix(self) -> bool:
        """A weight whose shape is not known yet but will have two dimensions or more."""
        return is_lazy(self.parameter) and self.leaf == "weight" and isinstance(self.owner, nn.Linear | _ConvNd)

    @property
    def is_bias(self) -> bool:
        vector = len(self.shape) <= 1
        # bias_ih_l0 of an LSTM, bias_k of an attention; not a relative_position_bias_table, which has two
        # dimensions.
        return self.leaf.endswith("bias") or (vector and "bias" in self.leaf) or self.leaf in {"bias_k", "bias_v"}


def _places(model: nn.Module) -> dict[str, _Place]:
    modules = dict(model.named_modules(remove_duplicate=False))
    places = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        parts = name.split(".")[:-1]
        if "parametrizations" in parts:
            # torch.nn.utils.parametrize keeps the originals in a module of its own below the one they belong
            # to.
            parts = parts[: parts.index("parametrizations")]
        prefixes = [".".join(parts[:length]) for length in range(len(parts) + 1)]
        path = tuple((prefix, modules[prefix]) for prefix in prefixes)
        places[name] = _Place(name=name, parameter=parameter, path=path)
    return places


def _aliases(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """The first name of each parameter, and its further names."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {first: tuple(others) for first, *others in names.values()}


# --- kind ---------------------------------------------------------------------------------------------------

_NORM_NAME = re.compile(r"norm(\d+d?)?$", re.IGNORECASE)
# Ends in, not contains: an `AttentionBlock` or `AttentionNet` usually holds an MLP beside its attention.
_ATTENTION_NAME = re.compile(r"(attention|attn)\d*$", re.IGNORECASE)
_QUERY = {"q", "query", "queries", "wq", "qs"}
_KEY = {"k", "key", "keys", "wk", "ks", "kv"}
_FUSED = {"qkv", "wqkv"}
_ATTENTION_PARTS = _QUERY | _KEY | _FUSED | {"v", "value", "values", "wv", "vs", "o", "out", "output", "wo", "proj"}


def _tokens(name: str) -> set[str]:
    lower = name.lower()
    return {*re.split(r"[^a-z0-9]+", lower), lower.replace("_", "")}


def is_norm(module: nn.Module) -> bool:
    """Whether `module` normalises: torch's norms, and classes named like one (LlamaRMSNorm, LayerNorm2d)."""
    known = isinstance(module, _NormBase | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm)
    return known or _NORM_NAME.search(type(module).__name__) is not None


def _is_attention(module: nn.Module) -> bool:
    return isinstance(module, nn.MultiheadAttention) or _ATTENTION_NAME.search(type(module).__name__) is not None


def _attention_parents(model: nn.Module) -> set[nn.Module]:
    """Modules whose direct children are named like the projections of an attention."""
    found = set()
    for module in model.modules():
        names = [_tokens(name) for name, _ in module.named_children()]
        queries, keys, fused = (any(each & known for each in names) for known in (_QUERY, _KEY, _FUSED))
        if fused or (queries and keys):
            found.add(module)
    return found


def _kind(place: _Place, attention_parents: Collection[nn.Module]) -> Kind:
    owner = place.owner
    if isinstance(owner, nn.Embedding | nn.EmbeddingBag):
        return "embedding"
    if isinstance(owner, _ConvNd):
        return "conv"
    if is_norm(owner):
        return "norm"
    if isinstance(owner, nn.RNNBase | nn.RNNCellBase):
        return "recurrent"
    if isinstance(owner, nn.MultiheadAttention) or (
        _is_linear(place) and _projects_for_attention(place, attention_parents)
    ):
        return "attention"
    if _is_linear(place):
        return "linear"
    if "embed" in place.leaf.lower():
        return "embedding"
    if _is_attention(owner) and len(place.shape) == 2 and _tokens(place.leaf) & _ATTENTION_PARTS:
        return "attention"
    return "other"


def _is_linear(place: _Place) -> bool:
    """A Linear, or a module that is one by another name: it holds a 2-D weight, perhaps a bias, no more."""
    owner = place.owner
    if isinstance(owner, nn.Linear | nn.Bilinear):
        return True
    own = dict(owner.named_parameters(recurse=False))
    weight = own.get("weight")
    return (
        weight is not None
        and not is_lazy(weight)
        and weight.ndim == 2
        and own.keys() <= {"weight", "bias"}
        and next(owner.children(), None) is None
    )


def _projects_for_attention(place: _Place, parents: Collection[nn.Module]) -> bool:
    if any(_is_attention(module) for _, module in place.path):
        return True
    below = [prefix.rpartition(".")[2] for prefix, _ in place.path[1:]]
    return any(
        module in parents and _tokens(child) & _ATTENTION_PARTS
        for (_, module), child in zip(place.path[:-1], below, strict=True)
    )


# --- adapters -----------------------------------------------------------------------------------------------

# The names under which peft 0.21 adds its parameters, and those that others have for bottleneck adapters.
_PEFT = re.compile(
    r"(.*_)?(gra|rand|tiny|uni|vb|de|g)?lora(_.*)?$"
    r"|(hada|lokr|oft|boft|ia3|p?vera|fourierft|waveft|hira|hra|ln_tuning|shira|adamss|beft|c3a|psoft|osf"
    r"|supertuning|trainable_tokens|adaption)_\w+$"
    r"|(road_theta|road_alpha|miss_block|prompt_encoder)$"
)
_ADAPTER = re.compile(rf"{_PEFT.pattern}|(.*_)?adapters?(_.*)?$")
_WRAPPED = re.compile(rf"{_ADAPTER.pattern}|(base_layer|original_module|modules_to_save)$")


def is_peft(name: str) -> bool:
    """Whether a parameter of this name is one that peft adds to a trained model."""
    return any(_PEFT.match(part) for part in name.split("."))


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name was added beside a trained model's own."""
    return any(_ADAPTER.match(part) for part in name.split("."))


# --- role ---------------------------------------------------------------------------------------------------


def _role(place: _Place, kind: Kind, *, in_head: bool) -> Role:
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


def _named_as_embedding(place: _Place) -> bool:
    """A Linear that embeds patches or features: `patch_embedding`, or inside a Sequential of that name."""
    words = [part for part in place.owner_name.split(".") if part and not part.isdigit()]
    return bool(words) and "embed" in words[-1].lower()


def _is_hidden_shape(shape: Sequence[int]) -> bool:
    if len(shape) != 2:
        return False
    short, long = sorted(shape)
    return short >= SMALLEST_MATRIX_SIDE and long <= LARGEST_MATRIX_ASPECT * short


# Only where nothing says what ran last: many modules register their head before their backbone.
_HEAD_NAMES = {"head", "heads", "classifier", "lm_head", "score"}


def _head_modules(
    model: nn.Module, places: Mapping[str, _Place], kinds: Mapping[str, Kind], order: Sequence[str] | None
) -> set[nn.Module]:
    """The module or modules that make the output, with all inside them; none when it cannot be told.

    Asked in turn: the model's own `get_output_embeddings()` (Hugging Face) and `get_classifier()` (timm); the
    last Linear or convolution that ran; the last Linear registered under a head's name; the last one registered;
    the last convolution. One of several blocks alike is none: an encoder without an output layer has no head.
    """
    declared = {inner for module in _declared_heads(model) for inner in module.modules()}
    if declared:
        return declared
    layers = {
        place.owner_name: (place, kinds[name])
        for name, place in places.items()
        if kinds[name] in {"linear", "conv"} and not is_adapter(name)
    }
    if order is not None:
        last = [layers[name][0] for name in order if name in layers][-1:]
        last = [place for place in last if not _is_repeated(place, places)]
    else:
        single = [(place, kind) for place, kind in layers.values() if not _is_repeated(place, places)]
        linears = [place for place, kind in single if kind == "linear"]
        named = [place for place in linears if _HEAD_NAMES & set(place.owner_name.split("."))]
        last = named[-1:] or linears[-1:] or [place for place, _ in single][-1:]
    return {inner for place in last for inner in _with_wrappers(place).modules()}


def _is_repeated(place: _Place, places: Mapping[str, _Place]) -> bool:
    """Whether the block around it has a sibling with a parameter of this name and shape."""
    block = _block(place)
    if block is None:
        return False
    stem = block.rstrip("0123456789")
    twin = re.compile(rf"{re.escape(stem)}(?!{block[len(stem) :]}\.)\d+{re.escape(place.name[len(block) :])}")
    return any(twin.fullmatch(name) and other.shape == place.shape for name, other in places.items())


def _with_wrappers(place: _Place) -> nn.Module:
    """Its owner, or the outermost module around that holds no other layer: a bare bias, dropout, adapters."""
    found = place.owner
    for _, module in reversed(place.path[1:-1]):
        inside = {
            name
            for name, inner in module.named_modules()
            if name and next(inner.parameters(recurse=False), None) is not None and not is_adapter(name)
        }
        if len(inside) > 1:
            break
        found = module
    return found


def _declared_heads(model: nn.Module) -> Iterator[nn.Module]:
    for module in model.modules():
        heads = [
            head
            for method in ("get_output_embeddings", "get_classifier")
            for head in _modules_in(_call(module, method))
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


def _call(module: nn.Module, method: str) -> Any:
    try:
        return getattr(module, method)()
    except Exception:  # noqa: BLE001  # a method of that name may want arguments: then it says nothing
        return None


def _undecayed(model: nn.Module) -> set[str]:
    """Names under the `no_weight_decay()` convention of timm, of the model or of a model inside it."""
    names: set[str] = set()
    for prefix, module in model.named_modules():
        listed = _call(module, "no_weight_decay")
        if isinstance(listed, Iterable):
            names |= {f"{prefix}.{name}" if prefix else str(name) for name in listed}
    return names


# --- depth --------------------------------------------------------------------------------------------------

_REPEATED = {"blocks", "layers", "layer", "h"}


def _depths(places: Sequence[_Place], kinds: Mapping[str, Kind], matched: Mapping[str, str]) -> dict[str, int]:
    """The index of each parameter's layer, by its first name; `places` come from input to output.

    `matched` gives the layers that the model itself names.
    """
    index: dict[str, int] = {}
    depths: dict[str, int] = {}
    latest, begun = 0, False
    waiting = []
    for place in places:
        layer = matched.get(place.name) or _layer(place)
        if layer is None:
            waiting.append(place)
            continue
        if layer not in index:
            own = place.name in matched
            follows = kinds[place.name] == "norm" and _block(place) is None and not own
            still_input = kinds[place.name] == "embedding" and not own
            # All embeddings at the input are one layer, and a norm goes with the layer whose output it takes.
            if begun and not follows and not (still_input and latest == 0 and _only_embeddings(depths, kinds)):
                latest = max(index.values()) + 1
            index[layer] = latest
            begun = True
        depths[place.name] = latest = index[layer]
    for place in waiting:
        # A bare parameter of a module with children (a class token, a position table) enters with its first
        # layer.
        inside = [depths[name] for name in depths if name.startswith(f"{place.owner_name}.") or not place.owner_name]
        depths[place.name] = min(inside, default=0)
    return depths


def _only_embeddings(depths: Mapping[str, int], kinds: Mapping[str, Kind]) -> bool:
    return all(kinds[name] in {"embedding", "norm"} for name in depths)


# Layers inside a block that are numbered, too; the block is what is around them.
_LAYER_STEMS = {"conv", "fc", "linear", "lin", "dense", "norm", "bn", "ln", "attn", "mlp", "proj", "head", "classifier"}
_NUMBERED = re.compile(r"(.*?)_?(\d+)")


def _block(place: _Place) -> str | None:
    """The repeated block around a parameter: `encoder.layers.3`, `layer1.0`, `stage2.block1`; or None.

    Only numbered modules with modules inside are blocks: the Linear numbered 2 of a Sequential is a layer
    itself.
    """
    block = None
    for position in range(1, len(place.path)):
        prefix, module = place.path[position]
        part = prefix.rpartition(".")[2]
        composite = next(module.children(), None) is not None
        if part.isdigit() and composite:
            block = prefix
        elif block is not None and part not in _REPEATED:
            break
    return block or _named_block(place)


def _named_block(place: _Place) -> str | None:
    """The innermost of the modules around it that are numbered among others of their kind: `stage2.block1`."""
    block = None
    for (_, parent), (prefix, module) in itertools.pairwise(place.path):
        found = _NUMBERED.fullmatch(prefix.rpartition(".")[2])
        if found is None or found[1] in _LAYER_STEMS or next(module.children(), None) is None:
            if block is not None:
                break
            continue
        others = (_NUMBERED.fullmatch(name) for name, child in parent.named_children() if type(child) is type(module))
        if sum(other is not None and other[1] == found[1] for other in others) > 1:
            block = prefix
    return block


def _layer(place: _Place) -> str | None:
    block = _block(place)
    if block is not None:
        return block
    # What was put around a layer, or beside it, is in the layer's place.
    for (prefix, _), (inner, _) in itertools.pairwise(place.path):
        if _WRAPPED.match(inner.rpartition(".")[2]):
            return prefix
    # A convolution may have its padding as a child.
    composite = any(next(child.parameters(), None) is not None for child in place.owner.children())
    if composite and not _is_attention(place.owner):
        return None
    # An LSTM holds all its layers in one module: weight_ih_l0, weight_ih_l1_reverse.
    stacked = re.search(r"_(l\d+)", place.leaf) if isinstance(place.owner, nn.RNNBase) else None
    attention = next((prefix for prefix, module in place.path if _is_attention(module)), place.owner_name)
    return f"{attention}.{stacked[1]}" if stacked else attention


def _in_order(
    places: Sequence[_Place], order: Sequence[str] | None, head: Collection[str], matched: Mapping[str, str]
) -> list[_Place]:
    """From input to output; `matched` gives the layers that the model itself names."""
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


def _sorted_by_execution(places: Sequence[_Place], order: Sequence[str]) -> list[_Place]:
    first: dict[str, int] = {}
    for place_in_order, name in enumerate(order):
        first.setdefault(name, place_in_order)
    position: float = -1
    positions = {}
    for place in places:
        # A module may run through its parent's forward alone (MultiheadAttention's out_proj): then the parent
        # counts, but never the root, which is around everything.
        around = [first[prefix] for prefix, _ in reversed(place.path) if prefix and prefix in first]
        position = around[0] if around else position
        positions[place.name] = position
    return sorted(places, key=lambda place: positions[place.name])


# What timm's matchers end in for parameters that belong to the layer before them.
_TO_PREVIOUS = 99999


def _matched(model: nn.Module) -> dict[str, str]:
    """Layers, in sortable form, by parameter name, of a model that says them by timm's `group_matcher`.

    The protocol: a dict from names to a regular expression, or to pairs of one and a suffix; a parameter's layer
    is the place in the dict, the numbers that the expression's groups match, and the suffix. What nothing
    matches comes last. A function of the name is taken, too.
    """
    for prefix, module in model.named_modules():
        if (matcher := _call(module, "group_matcher")) is None:
            continue
        names = [name for name, _ in module.named_parameters()]
        try:
            ordinals = {name: _ordinal(matcher, name) for name in names}
        except (TypeError, ValueError, AttributeError, re.error):  # something else by that name
            return {}
        ranks: dict[tuple[float, ...], int] = {}
        for ordinal in sorted(set(ordinals.values())):
            ranks[ordinal] = max(len(set(ranks.values())) - (bool(ranks) and ordinal[-1] == _TO_PREVIOUS), 0)
        dot = f"{prefix}." if prefix else ""
        return {f"{dot}{name}": f"{dot}layer {ranks[ordinal]:06}" for name, ordinal in ordinals.items()}
    return {}


def _ordinal(matcher: Any, name: str) -> tuple[float, ...]:
    if callable(matcher):
        given = matcher(name)
        return tuple(map(float, given)) if isinstance(given, Iterable) else (float(given),)
    for place, patterns in enumerate(matcher.values()):
        pairs = [(patterns, None)] if isinstance(patterns, str) else patterns or ()
        for pattern, suffix in pairs:
            if (found := re.match(pattern, name)) is not None:
                return tuple(map(float, (place, *(each for each in found.groups() if each), *(suffix or ()))))
    return (math.inf,)
