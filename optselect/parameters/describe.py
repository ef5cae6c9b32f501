"""What each parameter of a model is for, whatever the model: kind, role, depth, whether to decay it.

Module *types* are asked first, names only where a type says nothing: a `LayerNorm` is a norm under every
name, but a `Linear` called `q_proj` beside one called `k_proj` can only be told from its name.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import nn

from optselect.parameters.adapters import is_adapter
from optselect.parameters.conventions import matched_layers, undecayed
from optselect.parameters.depth import depths_of, from_input_to_output
from optselect.parameters.head import find_head
from optselect.parameters.kind import Kind, kind_of
from optselect.parameters.place import Place, aliases_of, places_of
from optselect.parameters.role import Role, role_of


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
    def names(self) -> tuple[str, ...]:
        """All its names, the first one first."""
        return (self.name, *self.tied_names)


def is_muon_matrix(info: ParamInfo) -> bool:
    """Tell whether torch's Muon is meant for this parameter: a real hidden matrix with a dense gradient."""
    return info.role == "hidden matrix" and not info.sparse and not info.is_complex


def describe_params(
    model: nn.Module,
    *,
    sparse: Collection[str] = (),
    order: Sequence[str] | None = None,
    head: Collection[str] | None = None,
) -> list[ParamInfo]:
    """Describe every parameter of `model` once, frozen ones too, in the order of `model.named_parameters()`.

    `sparse` names the parameters whose gradients were seen to be sparse tensors. `order` names the modules in
    the order they were executed (`optselect.parameters.execution`); None, or none: the order in which they were
    registered stands for it, with the head at the end. A model's own `group_matcher` goes before both. `head` names the
    parameters of the head, where the user says what it is.
    """
    order = order or None
    places = places_of(model)
    kinds = {name: kind_of(place) for name, place in places.items()}
    aliases = aliases_of(places)
    # An embedding whose weight is also the output layer's stays an embedding, whichever was registered first.
    kinds_once: dict[str, Kind] = {
        name: "embedding" if any(kinds[each] == "embedding" for each in (name, *others)) else kinds[name]
        for name, others in aliases.items()
    }
    in_head = frozenset(find_head(model, places, kinds, order) if head is None else head)
    matched = matched_layers(model)
    in_order = from_input_to_output([places[name] for name in aliases], order, in_head, matched)
    depths = depths_of(in_order, kinds_once, matched)
    never_decayed = undecayed(model)
    sparse = frozenset(sparse)
    return [
        _described(
            places[name],
            kinds_once[name],
            depths[name],
            tied_names=others,
            in_head=not in_head.isdisjoint((name, *others)),
            is_sparse=not sparse.isdisjoint((name, *others)),
            may_decay=never_decayed.isdisjoint((name, *others)),
        )
        for name, others in aliases.items()
    ]


def _described(
    place: Place,
    kind: Kind,
    depth: int,
    *,
    tied_names: tuple[str, ...],
    in_head: bool,
    is_sparse: bool,
    may_decay: bool,
) -> ParamInfo:
    role = role_of(place, kind, in_head=in_head)
    if is_sparse and role != "head":
        role = "embedding"
    plain = kind == "norm" or place.is_bias or len(place.shape) <= 1
    return ParamInfo(
        name=place.name,
        shape=place.shape,
        kind=kind,
        role=role,
        depth=depth,
        # Of torch's optimizers those that take sparse gradients refuse to decay them.
        decay=not (plain and not place.is_lazy_matrix) and not is_sparse and may_decay,
        numel=place.numel,
        frozen=not place.parameter.requires_grad,
        tied_names=tied_names,
        sparse=is_sparse,
        is_complex=place.parameter.is_complex(),
        adapter=is_adapter(place.name),
    )
