"""What the model is: its parameters by kind, and whether they were trained before."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

from optselect.params import ParamInfo, describe_params, is_muon_matrix, is_norm
from optselect.profile.values import ModelProfile

# σ₁(W) / (std(W)(√m + √n)) tends to 1 for independent entries. OPTIMIZERS.md § 5, measured: of 13 fresh nets
# at most 2 % of the matrices lie above 1.15, of pretrained EfficientNet-lite0 and MiniLM 80 % and 95 %.
TRAINED_RATIO = 1.15
TRAINED_SHARE = 0.25
FROZEN_SHARE = 0.5
VARYING_NORMS = 0.25

# Bounds of the spectral test: at most 32 matrices, each cut to 1,024 by 1,024, 24 products with it and its
# transpose.
_MATRICES = 32
_SIDE = 1024
_ITERATIONS = 24
# The limit holds for large matrices; at 16 its fluctuation is still well inside 15 %.
_SMALLEST_SIDE = 16


@torch.no_grad()
def profile_model(model: nn.Module) -> ModelProfile:
    """Counts and shares of the parameters of `model`, which it reads only.

    Costs no pass: a few hundred milliseconds for the spectra of the largest models. Parameters of lazy
    modules that have seen no batch count as tensors without scalars. Draws no global random numbers.
    """
    infos = describe_params(model)
    parameters = dict(model.named_parameters())
    trainable = [info for info in infos if not info.frozen]
    kinds: Counter[str] = Counter()
    for info in trainable:
        kinds[info.kind] += info.numel
    total = sum(kinds.values())
    muon = sum(info.numel for info in trainable if is_muon_matrix(info))
    share = trained_share(model, infos)
    verdict = at_initialisation(model, infos, share)
    return ModelProfile(
        parameters=total,
        frozen=sum(info.numel for info in infos if info.frozen),
        tensors=len(trainable),
        kinds=dict(kinds),
        depth=1 + max((info.depth for info in infos), default=-1),
        batch_norm=any(isinstance(module, _BatchNorm) for module in model.modules()),
        dropout=max((_dropout(module) for module in model.modules()), default=0.0),
        graph=any(_GRAPH_NAME.search(type(module).__name__) for module in model.modules()),
        tied=sum(bool(info.tied_names) for info in infos),
        dtypes=tuple(sorted({str(parameters[info.name].dtype).removeprefix("torch.") for info in trainable})),
        complex=any(info.is_complex for info in trainable),
        muon_share=muon / total if total else 0.0,
        shapes=dict(Counter("x".join(map(str, info.shape)) for info in trainable)),
        at_initialisation=verdict.untrained if verdict else None,
        initialisation_evidence=verdict.because if verdict else None,
        trained_share=share,
        memory_free=memory_free(next(iter(parameters.values())).device if parameters else torch.device("cpu")),
    )


# GCNConv, SAGEConv, GraphAttention, MessagePassing; but not Gated, nor the GraphModule that torch.fx makes.
_GRAPH_NAME = re.compile(r"(GCN|GNN|GAT|GIN|SAGE)(?![a-z])|Graph(?!Module)|MessagePassing")


def _dropout(module: nn.Module) -> float:
    """The probability with which `module` drops; torch's attention and recurrent layers hold their own."""
    if isinstance(module, _DropoutNd):
        return float(module.p)
    inner = module.dropout if isinstance(module, nn.MultiheadAttention | nn.RNNBase) else 0.0
    return float(inner)


# --- trained before? ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether the weights look untrained, and what tells."""

    untrained: bool
    because: str


@torch.no_grad()
def at_initialisation(model: nn.Module, infos: Sequence[ParamInfo], share: float | None) -> Verdict | None:
    """Whether `model` looks untrained, by the first witness that speaks (OPTIMIZERS.md § 5); None: none does.

    Adapters; mostly frozen; BatchNorm statistics that have moved; norm weights that differ within a layer;
    the `share` of matrices with a trained spectrum. A resumed checkpoint looks like a pretrained model: both
    are not at initialisation, and no more is claimed.
    """
    if _has_adapters(model, infos):
        return Verdict(untrained=False, because="it carries adapters")
    scalars = sum(info.numel for info in infos)
    frozen = sum(info.numel for info in infos if info.frozen)
    if scalars and frozen >= FROZEN_SHARE * scalars:
        return Verdict(untrained=False, because=f"{frozen / scalars:.0%} of its parameters are frozen")
    batch_norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if any(_has_moved(module) for module in batch_norms):
        return Verdict(untrained=False, because="its BatchNorm layers have seen data")
    weights = list(_norm_weights(model))
    varying = sum(_varies(weight) for weight in weights)
    if weights and varying >= VARYING_NORMS * len(weights):
        return Verdict(untrained=False, because=f"{varying} of {len(weights)} norm layers have weights that differ")
    if share is not None:
        said = f"{share:.0%} of its matrices have a trained spectrum"
        return Verdict(untrained=share < TRAINED_SHARE, because=said)
    if weights:
        return Verdict(untrained=True, because="its norm layers are as they were made")
    return None


def _has_adapters(model: nn.Module, infos: Sequence[ParamInfo]) -> bool:
    declared = any(getattr(module, "peft_config", None) for module in model.modules())
    return declared or any("lora_" in info.name for info in infos)


def _has_moved(norm: _BatchNorm) -> bool:
    if norm.num_batches_tracked is not None and int(norm.num_batches_tracked) > 0:
        return True
    mean = norm.running_mean
    return mean is not None and not is_lazy(mean) and bool(mean.any())


def _norm_weights(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        weight = getattr(module, "weight", None) if is_norm(module) else None
        if isinstance(weight, nn.Parameter) and not is_lazy(weight) and weight.ndim == 1 and weight.numel() > 1:
            yield weight


def _varies(weight: Tensor) -> bool:
    return not torch.allclose(weight, weight.flatten()[0], rtol=1e-4, atol=1e-6)


def trained_share(model: nn.Module, infos: Sequence[ParamInfo]) -> float | None:
    """Share of the matrices and flattened convolutions whose largest singular value is no random one's.

    From at most 32 of them, evenly spread over the model; None when there is none of at least 16 by 16.
    """
    parameters = dict(model.named_parameters())
    names = [info.name for info in infos if info.kind not in {"norm", "other"} and _flat_side(info) >= _SMALLEST_SIDE]
    ratios = [ratio for name in evenly(names, _MATRICES) if (ratio := _spectral_ratio(parameters[name])) is not None]
    return sum(ratio > TRAINED_RATIO for ratio in ratios) / len(ratios) if ratios else None


def evenly(items: Sequence[str], most: int) -> list[str]:
    """At most `most` of `items`, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]


def _flat_side(info: ParamInfo) -> int:
    return min(info.shape[0], math.prod(info.shape[1:])) if len(info.shape) >= 2 else 0


def _spectral_ratio(weight: Tensor) -> float | None:
    """σ₁ / (std(√m + √n)) by power iteration; None for constant, non-finite or unreadable weights.

    Power iteration nears σ₁ from below, so a ratio above the threshold is one in truth.
    """
    try:
        # A block of a matrix with independent entries is one again, so the cut costs no soundness.
        flat = weight.detach().flatten(1)
        matrix = flat[:_SIDE, :_SIDE].to("cpu", torch.complex64 if flat.is_complex() else torch.float32)
        spread = float(matrix.std())
    except (RuntimeError, NotImplementedError):  # quantised and distributed tensors have layouts of their own
        return None
    if not math.isfinite(spread) or spread == 0.0:
        return None
    rows, columns = matrix.shape
    own = torch.Generator().manual_seed(0)
    vector = torch.randn(columns, generator=own, dtype=matrix.dtype)
    largest = 0.0
    for _ in range(_ITERATIONS):
        image = matrix @ (vector / torch.linalg.vector_norm(vector))
        largest = float(torch.linalg.vector_norm(image))
        vector = matrix.mH @ image
    return largest / (spread * (math.sqrt(rows) + math.sqrt(columns)))


# --- memory -------------------------------------------------------------------------------------------------


def memory_free(device: torch.device) -> int | None:
    """Bytes free on `device`; for the CPU what Linux calls available. None: not known."""
    try:
        if device.type == "cuda":
            return int(torch.cuda.mem_get_info(device)[0])
        if device.type == "cpu":
            return _host_memory_free()
    except (OSError, RuntimeError, ValueError):
        return None
    return None


def _host_memory_free() -> int:
    # MemAvailable counts the page cache, which the kernel gives back; SC_AVPHYS_PAGES does not, and is always
    # small on a machine that has read files.
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
