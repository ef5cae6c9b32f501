"""What an optimizer cannot do on this model: vetoes, not opinions. They hold whatever rules are asked."""

from __future__ import annotations

import math

from optselect import catalogue
from optselect.catalogue import OptimizerSpec
from optselect.catalogue.spec import Cut
from optselect.profile.values import Profile
from optselect.rules.rule import Answer, Evidence, Rule, Vote, rule

_CHECKED = "optselect.testing runs each entry of the catalogue"


@rule(cites=_CHECKED, strength="measured")
def all_gradients_are_sparse(profile: Profile) -> Answer:
    """An optimizer for dense gradients has nothing to train when every gradient is sparse."""
    sparse = len(profile.gradient.sparse)
    if sparse == 0 or sparse + len(profile.gradient.unused) < profile.model.tensors:
        return None
    because = Evidence(quantity="gradient.sparse", value=f"{sparse} of {profile.model.tensors} tensors")
    return [_veto(name, because) for name in catalogue.names() if not catalogue.get(name).sparse]


@rule(cites=_CHECKED, strength="measured")
def no_gradient_is_sparse(profile: Profile) -> Answer:
    """SparseAdam raises on a dense gradient."""
    if profile.gradient.passes == 0 or profile.gradient.sparse:
        return None
    because = Evidence(quantity="gradient.sparse", value=f"none in {profile.gradient.passes} backward passes")
    return [_veto(name, because) for name in catalogue.names() if not catalogue.get(name).dense]


@rule(cites="github.com/pytorch/pytorch/issues/166209", strength="measured")
def no_hidden_matrix_is_there(profile: Profile) -> Answer:
    """PyTorch's Muon trains two-dimensional weights only; on a model without any it is its partner."""
    if profile.model.muon_share > 0:
        return None
    because = Evidence(quantity="model.muon_share", value=profile.model.muon_share)
    return [_veto(name, because) for name in catalogue.names() if catalogue.get(name).ndim == 2]


@rule(cites=_CHECKED, strength="measured")
def a_parameter_is_complex(profile: Profile) -> Answer:
    """Some update rules are not defined for complex numbers."""
    if not profile.model.complex:
        return None
    because = Evidence(quantity="model.complex", value=True)
    specs = map(catalogue.get, catalogue.names())
    # A partner takes the parameters that the optimizer itself cannot train.
    return [_veto(spec.name, because) for spec in specs if not spec.complex and spec.partner is None]


@rule(cites=_CHECKED, strength="measured")
def the_state_does_not_fit_the_memory(profile: Profile) -> Answer:
    """An optimizer whose state alone is larger than the free memory cannot take its first step."""
    free = profile.model.memory_free
    if free is None:
        return None
    itemsize = 2 if profile.model.half_precision else 4
    needed = {name: state_bytes(catalogue.get(name), profile, itemsize) for name in catalogue.names()}
    return [
        _veto(name, Evidence(quantity="optimizer state in bytes", value=size, threshold=free))
        for name, size in needed.items()
        if size > free
    ]


@rule(cites=_CHECKED, strength="measured")
def weights_are_cut_into_flat_pieces(profile: Profile) -> Answer:
    """FSDP's first version leaves each process a stretch of a vector: no matrix, and no norm, is there to be seen."""
    return _veto_cut(profile, "flat")


@rule(cites=_CHECKED, strength="measured")
def weights_are_distributed_tensors(profile: Profile) -> Answer:
    """Some optimizers take steps that torch cannot do on tensors of which each process holds a part."""
    return _veto_cut(profile, "tensors")


def _veto_cut(profile: Profile, cut: Cut) -> list[Vote] | None:
    if profile.model.cut != cut:
        return None
    because = Evidence(quantity="model.cut", value=cut)
    return [_veto(name, because) for name in catalogue.names() if cut not in catalogue.get(name).parts]


def state_bytes(spec: OptimizerSpec, profile: Profile, itemsize: int = 4) -> int:
    """Count the bytes of state that `spec` keeps for the model: what it cannot train by its shape is its partner's."""
    # A profile written by hand may lack the shapes: then a square matrix of as many numbers stands for them.
    side = math.isqrt(profile.model.parameters)
    shapes = profile.model.shape_counts() or [((side, side), 1)]
    partner = catalogue.get(spec.partner) if spec.partner is not None else spec
    return sum(
        count * (spec if spec.ndim is None or len(shape) == spec.ndim else partner).state_bytes(shape, itemsize)
        for shape, count in shapes
    )


def _veto(name: str, because: Evidence) -> Vote:
    return Vote(optimizer=name, because=because, weight=0.0, veto=True)


FACTS: tuple[Rule, ...] = (
    all_gradients_are_sparse,
    no_gradient_is_sparse,
    no_hidden_matrix_is_there,
    a_parameter_is_complex,
    the_state_does_not_fit_the_memory,
    weights_are_cut_into_flat_pieces,
    weights_are_distributed_tensors,
)
