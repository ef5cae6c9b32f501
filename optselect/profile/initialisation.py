"""Whether a model was trained before, wholly or in part, told from its weights alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from optselect.parameters.adapters import is_peft
from optselect.parameters.describe import ParamInfo
from optselect.parameters.kind import is_norm
from optselect.parameters.names import named_modules, named_parameters
from optselect.parameters.place import modules_around

# σ₁(W) / (std(W)(√m + √n)) tends to 1 for independent entries. OPTIMIZERS.md § 5, measured: of 13 fresh nets
# at most 2 % of the matrices lie above 1.15, of pretrained EfficientNet-lite0 and MiniLM 80 % and 95 %.
TRAINED_RATIO = 1.15
TRAINED_SHARE = 0.25
FROZEN_SHARE = 0.5
VARYING_NORMS = 0.25
# A module that finds out its own shapes runs a batch or two through its BatchNorm layers while it is built.
FORWARDS_WHILE_BUILT = 8

# Bounds of the spectral test: at most 32 matrices, each cut to 1,024 by 1,024, 24 products with it and its
# transpose.
_MATRICES = 32
_SIDE = 1024
_ITERATIONS = 24
# The limit holds for large matrices; at 16 its fluctuation is still well inside 15 %.
_SMALLEST_SIDE = 16


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether the weights look untrained, and what tells.

    fresh  the modules that are as they were made in a model that is not
    """

    untrained: bool
    because: str
    fresh: tuple[str, ...] = ()


Read = Callable[[Tensor], Tensor]
"""Gives the content of a parameter; where it is cut over processes it is put together, a step that all take part in."""


def _here(parameter: Tensor) -> Tensor:
    return parameter


@torch.no_grad()
def at_initialisation(
    model: nn.Module, infos: Sequence[ParamInfo], share: float | None, read: Read = _here
) -> Verdict | None:
    """Judge whether `model` looks untrained, by the first witness that speaks (OPTIMIZERS.md § 5); None: none does.

    Adapters; mostly frozen; BatchNorm statistics that have moved; norm weights that differ within a layer;
    the `share` of matrices with a trained spectrum; what the hyperparameters say. A resumed checkpoint looks like
    a pretrained model: both are not at initialisation, and no more is claimed. Of such a model the verdict names
    the parts that are as they were made.
    """
    verdict = _vote(model, infos, share, read)
    if verdict is None or verdict.untrained:
        return verdict
    return Verdict(untrained=False, because=verdict.because, fresh=fresh_modules(model, infos, read))


def _vote(model: nn.Module, infos: Sequence[ParamInfo], share: float | None, read: Read) -> Verdict | None:
    if _has_adapters(model, infos):
        return Verdict(untrained=False, because="it carries adapters")
    scalars = sum(info.numel for info in infos)
    frozen = sum(info.numel for info in infos if info.frozen)
    if scalars and frozen >= FROZEN_SHARE * scalars:
        return Verdict(untrained=False, because=f"{frozen / scalars:.0%} of its parameters are frozen")
    if any(_has_moved(module) for module in model.modules()):
        return Verdict(untrained=False, because="its BatchNorm layers have seen data")
    norms = [module for module in model.modules() if _norm_weight(module) is not None]
    varying = sum(_was_trained(norm, read) for norm in norms)
    if norms and varying >= VARYING_NORMS * len(norms):
        return Verdict(untrained=False, because=f"{varying} of {len(norms)} norm layers have weights that differ")
    if share is not None:
        said = f"{share:.0%} of its matrices have a trained spectrum"
        return Verdict(untrained=share < TRAINED_SHARE, because=said)
    if norms:
        return Verdict(untrained=True, because="its norm layers are as they were made")
    if (told := _told_by_hyperparameters(model)) is not None:
        return Verdict(untrained=False, because=f"its hyperparameters set {told}")
    return None


def _has_adapters(model: nn.Module, infos: Sequence[ParamInfo]) -> bool:
    declared = any(getattr(module, "peft_config", None) for module in model.modules())
    return declared or any(is_peft(info.name) for info in infos)


def _has_moved(module: nn.Module) -> bool:
    if not isinstance(module, _BatchNorm):
        return False
    batches = 0 if module.num_batches_tracked is None else int(module.num_batches_tracked)
    if batches:
        return batches > FORWARDS_WHILE_BUILT
    # Weights that were converted, or saved by a torch before 0.4.1, come without the count.
    mean = module.running_mean
    return mean is not None and not is_lazy(mean) and bool(mean.any())


def _norm_weight(module: nn.Module) -> Tensor | None:
    weight = getattr(module, "weight", None) if is_norm(module) else None
    usable = isinstance(weight, nn.Parameter) and not is_lazy(weight) and weight.ndim == 1 and weight.numel() > 1
    return weight if usable else None


def _was_trained(norm: nn.Module, read: Read) -> bool:
    """Tell whether its weights differ, and its biases: initialisations that draw weights (DCGAN) leave those at 0."""
    weight, bias = _norm_weight(norm), getattr(norm, "bias", None)
    return weight is not None and _varies(read(weight)) and (not isinstance(bias, Tensor) or _varies(read(bias)))


def _varies(weight: Tensor) -> bool:
    return not torch.allclose(weight, weight.flatten()[0], rtol=1e-4, atol=1e-6)


# Hyperparameters by which LightningModules are told what to begin with.
_SAID = (
    "pretrained",
    "weights",
    "checkpoint",
    "pretrained_model",
    "model_name_or_path",
    "pretrained_model_name_or_path",
)


def _told_by_hyperparameters(model: nn.Module) -> str | None:
    for module in model.modules():
        hparams: Any = getattr(module, "hparams", None)
        given = hparams if isinstance(hparams, Mapping) else {}
        for name in _SAID:
            # Not what it is: a path or an address may be nobody else's business. Numbers are weights of classes.
            value = given.get(name)
            if value is True or (isinstance(value, str) and value):
                return name
    return None


# --- the spectrum -------------------------------------------------------------------------------------------


def trained_share(model: nn.Module, infos: Sequence[ParamInfo], read: Read = _here) -> float | None:
    """Return the share of matrices and flattened convolutions whose largest singular value is no random one's.

    From at most 32 of them, evenly spread over the model; None when there is none of at least 16 by 16.
    """
    parameters = dict(named_parameters(model))
    names = [info.name for info in infos if info.kind not in {"norm", "other"} and _flat_side(info) >= _SMALLEST_SIDE]
    spread = (_spectral_ratio(read(parameters[name])) for name in evenly(names, _MATRICES))
    ratios = [ratio for ratio in spread if ratio is not None]
    return sum(ratio > TRAINED_RATIO for ratio in ratios) / len(ratios) if ratios else None


def evenly(items: Sequence[str], most: int) -> list[str]:
    """Pick at most `most` of `items`, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]


def _flat_side(info: ParamInfo) -> int:
    return min(info.shape[0], math.prod(info.shape[1:])) if len(info.shape) >= 2 else 0


def _spectral_ratio(weight: Tensor) -> float | None:
    """Compute σ₁ / (std(√m + √n)) by power iteration; None for constant, non-finite or unreadable weights.

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


# --- what is new in a trained model -------------------------------------------------------------------------

# Fewer numbers have no shape of a distribution to speak of. A normal one is a weak witness: a trained weight of a few
# hundred entries may pass for it. So it takes a bias at its constant beside it, or many entries. A uniform one ends at
# a bound that the first steps of a training cross.
_FEWEST, _FEWEST_ALONE = 48, 4096
_MOST = 2**22
# The fourth standardised moment of n independent samples deviates by √(24/n) from 3 when they are normal, and by
# 1.1/√n from 1.8 when they are uniform.
_DEVIATIONS = 4.0
_NORMAL, _UNIFORM = (3.0, math.sqrt(24)), (1.8, 1.1)


def fresh_modules(model: nn.Module, infos: Sequence[ParamInfo], read: Read = _here) -> tuple[str, ...]:
    """Name the outermost modules that are as they were made, in the model's order; none when all are.

    A matrix or convolution is taken for new when its entries are distributed as the usual initialisations draw
    them (normal; uniform up to torch's, Xavier's or Kaiming's bound; all equal), its bias likewise, and its
    spectrum is a random one's; training leaves longer tails. Embeddings, of which a training may have touched few
    rows, and adapters, whose names say what they are, do not count.
    """
    known = {info.name: info for info in infos}
    found: dict[str, bool] = {}
    for prefix, module in named_modules(model):
        own = {name: each for name, each in module.named_parameters(prefix, recurse=False) if name in known}
        if any(known[name].kind == "embedding" or known[name].adapter or not known[name].numel for name in own):
            continue
        if (verdict := _as_made(module, list(own.values()), read)) is not None:
            found[prefix] = verdict
    if all(found.values()):
        return ()
    all_fresh: dict[str, bool] = {}
    for name, verdict in found.items():
        for outer in (name, *modules_around(name)):
            all_fresh[outer] = all_fresh.get(outer, True) and verdict
    # In the model's order, in which a module stands before those in it.
    outermost: dict[str, None] = {}
    for name, _ in named_modules(model):
        if all_fresh.get(name, False) and outermost.keys().isdisjoint(modules_around(name)):
            outermost[name] = None
    return tuple(outermost)


def _as_made(module: nn.Module, own: Sequence[Tensor], read: Read) -> bool | None:
    """Tell whether the parameters that `module` itself holds are as they were made; None: that cannot be told."""
    if _norm_weight(module) is not None:
        # One that does not vary may be a trained model's all the same.
        return False if _has_moved(module) or _was_trained(module, read) else None
    own = [read(each) for each in own]
    matrices = [(each, _bounds(each, module)) for each in own if each.ndim >= 2]
    vectors = [each for each in own if each.ndim == 1]
    entries = sum(each.numel() for each, _ in matrices)
    if entries < _FEWEST:
        return None
    if all(_is_uniform(each, bounds) for each, bounds in matrices):
        reach = max(bound for _, bounds in matrices for bound in bounds)
        return all(_is_constant(each) or float(each.abs().max()) <= reach for each in vectors)
    if not all(_is_constant(each) or _is_normal(each) for each, _ in matrices):
        return False
    return True if entries >= _FEWEST_ALONE or (vectors and all(map(_is_constant, vectors))) else None


def _bounds(weight: Tensor, module: nn.Module) -> tuple[float, ...]:
    """Tell how far the usual uniform initialisations reach."""
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return (1 / math.sqrt(module.hidden_size),)
    field = math.prod(weight.shape[2:])
    inputs, outputs = weight.shape[1] * field, weight.shape[0] * field
    # torch's own; Xavier's; Kaiming's without and with the gain of ReLU.
    squares = (1 / inputs, 6 / (inputs + outputs), 3 / inputs, 6 / inputs)
    return tuple(math.sqrt(square) for square in squares)


def _is_uniform(weight: Tensor, bounds: Sequence[float]) -> bool:
    values = _readable(weight)
    if values is None or not _has_moment(values, *_UNIFORM):
        return False
    # A uniform sample comes within a few n-ths of its bound, and never beyond it but by rounding.
    largest, rounding = float(values.abs().max()), float(torch.finfo(weight.dtype).eps)
    near = any(bound * (1 - 20 / len(values)) <= largest <= bound * (1 + rounding) for bound in bounds)
    return near and _has_random_spectrum(weight)


def _is_normal(weight: Tensor) -> bool:
    values = _readable(weight)
    return values is not None and _has_moment(values, *_NORMAL) and _has_random_spectrum(weight)


def _readable(weight: Tensor) -> Tensor | None:
    """Read enough of the numbers; None for complex, quantised and distributed weights and those that are not finite."""
    if not weight.is_floating_point():
        return None
    try:
        values = weight.detach().flatten()[:_MOST].to("cpu", torch.float64)
    except (RuntimeError, NotImplementedError):
        return None
    return values if bool(values.isfinite().all()) else None


def _has_moment(values: Tensor, kurtosis: float, width: float) -> bool:
    centred = values - values.mean()
    variance = float((centred**2).mean())
    deviation = float((centred**4).mean()) / variance**2 - kurtosis if variance else math.inf
    return abs(deviation) <= _DEVIATIONS * width / math.sqrt(len(values))


def _has_random_spectrum(weight: Tensor) -> bool:
    if min(weight.shape[0], weight[0].numel()) < _SMALLEST_SIDE:
        return True
    ratio = _spectral_ratio(weight)
    return ratio is not None and ratio <= TRAINED_RATIO


def _is_constant(values: Tensor) -> bool:
    return bool((values == values.flatten()[0]).all())
