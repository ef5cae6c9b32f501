"""What the model is: its parameters by kind, and whether they were trained before."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from optselect.parameters.anatomy import Anatomy, anatomy_of
from optselect.parameters.describe import is_muon_matrix
from optselect.parameters.names import named_parameters
from optselect.parameters.sharding import sharding_of
from optselect.profile.initialisation import at_initialisation, trained_share
from optselect.profile.values import ModelProfile, Profile
from optselect.workload.room import memory_free


@torch.no_grad()
def profile_model(model: nn.Module, left_out: Sequence[str] = ()) -> ModelProfile:
    """Count the parameters of `model`, which it reads only, and measure their shares.

    Costs no pass: a few hundred milliseconds for the spectra of the largest models. Parameters of lazy
    modules that have seen no batch count as tensors without scalars. Draws no global random numbers. What the
    training's own optimizer leaves out (`left_out`) counts as frozen.
    """
    anatomy = anatomy_of(model, left_out=left_out)
    sharding = sharding_of(model)
    share = trained_share(sharding.model, anatomy.parameters, sharding.read)
    verdict = at_initialisation(sharding.model, anatomy.parameters, share, sharding.read)
    first = next(model.parameters(), None)
    profile = ModelProfile(
        parameters=0,
        batch_norm=any(isinstance(module, _BatchNorm) for module in model.modules()),
        dropout=max((_dropout(module) for module in model.modules()), default=0.0),
        graph=any(_GRAPH_NAME.search(type(module).__name__) for module in model.modules()),
        at_initialisation=verdict.untrained if verdict else None,
        initialisation_evidence=verdict.because if verdict else None,
        fresh=verdict.fresh if verdict else (),
        trained_share=share,
        left_out=tuple(left_out),
        cut=("flat" if sharding.is_flat else "tensors") if sharding.is_cut else None,
        memory_free=memory_free(torch.device("cpu") if first is None else first.device),
    )
    return with_counts(profile, anatomy)


def measured_anatomy(profile: Profile, model: nn.Module) -> Anatomy:
    """Describe `model`, whose modules ran and whose gradients were as `profile` saw it."""
    seen = profile.model
    return anatomy_of(model, sparse=profile.gradient.sparse, order=seen.executed, left_out=seen.left_out)


def with_counts(profile: ModelProfile, anatomy: Anatomy) -> ModelProfile:
    """Fill `profile` with the counts of a model's parameters; depth and head depend on what is known to run."""
    infos, trainable = anatomy.parameters, anatomy.trainable
    parameters = dict(named_parameters(anatomy.model))
    kinds: Counter[str] = Counter()
    for info in trainable:
        kinds[info.kind] += info.numel
    total = sum(kinds.values())
    muon = sum(info.numel for info in trainable if is_muon_matrix(info))
    return replace(
        profile,
        parameters=total,
        frozen=sum(info.numel for info in infos if info.frozen),
        tensors=len(trainable),
        kinds=dict(kinds),
        depth=1 + max((info.depth for info in infos), default=-1),
        tied=sum(bool(info.tied_names) for info in infos),
        dtypes=tuple(sorted({str(parameters[info.name].dtype).removeprefix("torch.") for info in trainable})),
        complex=any(info.is_complex for info in trainable),
        muon_share=muon / total if total else 0.0,
        shapes=dict(Counter("x".join(map(str, info.shape)) for info in trainable)),
        head=tuple(info.name for info in infos if info.role == "head"),
        adapters=sum(info.numel for info in infos if info.adapter),
        executed=anatomy.order,
    )


# GCNConv, SAGEConv, GraphAttention, MessagePassing; but not Gated, nor the GraphModule that torch.fx makes.
_GRAPH_NAME = re.compile(r"(GCN|GNN|GAT|GIN|SAGE)(?![a-z])|Graph(?!Module)|MessagePassing")


def _dropout(module: nn.Module) -> float:
    """Read the probability with which `module` drops; torch's attention and recurrent layers hold their own."""
    if isinstance(module, _DropoutNd):
        return float(module.p)
    inner = module.dropout if isinstance(module, nn.MultiheadAttention | nn.RNNBase) else 0.0
    return float(inner)
