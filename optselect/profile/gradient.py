"""What a few real backward passes at the present weights tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from optselect.parameters.names import named_parameters
from optselect.profile.initialisation import evenly
from optselect.profile.values import GradientProfile

Backward = Callable[[Any], float]

_LAYERS = 200
# The running mean gradient holds at most this many scalars (200 MB): of a larger model every second, third, …
# coordinate. A stride thins tr(Σ) and ‖G‖² alike, so their ratio stands.
_MEAN_SCALARS = 50_000_000


def profile_gradient(
    model: nn.Module,
    backward: Backward,
    batches: Sequence[Any],
    *,
    batch_size: int | None = None,
    left_out: Collection[str] = (),
) -> GradientProfile:
    """Run one pass for each of `batches`: `backward(batch)` gives the loss and leaves gradients in `.grad`.

    `batch_size` in samples; None: read off the batches. Gradients of `left_out` do not count. Memory: one mean
    gradient beside the model's own.
    Every `.grad` is None afterwards. The weights are not touched, but whatever a forward pass changes
    (BatchNorm statistics, random numbers) is: the caller borrows the model.
    """
    if not batches:
        return GradientProfile()
    passes = _Passes(left_out=frozenset(left_out))
    try:
        for batch in batches:
            _clear(model)
            loss = backward(batch)
            passes.add(model, loss, batch_size or samples_in(batch))
    finally:
        _clear(model)
    return passes.profile(model)


def samples_in(batch: Any) -> int | None:
    """Read the leading size of the first tensor or array in `batch`; None: there is none."""
    shape = getattr(batch, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else None
    items = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    return next((size for item in items if (size := samples_in(item)) is not None), None)


@dataclass
class _Passes:
    """Sums over the passes; the only state of a profile."""

    left_out: frozenset[str] = frozenset()
    count: int = 0
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    sizes: list[int | None] = field(default_factory=list)
    sparse: dict[str, None] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    zeros: int = 0
    dense: int = 0
    touched: int = 0
    rows: int = 0
    relative: dict[str, list[float]] = field(default_factory=dict)
    mean: dict[str, Tensor] = field(default_factory=dict)
    thinned_squares: list[float] = field(default_factory=list)

    @torch.no_grad()
    def add(self, model: nn.Module, loss: float, size: int | None) -> None:
        self.count += 1
        parameters = {name: each for name, each in self._trained(model) if each.grad is not None}
        self.used |= parameters.keys()
        # Coalescing adds up the entries of one row, so that norms and row counts are of the gradient itself.
        gradients = {name: _coalesced(each.grad) for name, each in parameters.items() if each.grad is not None}
        self.sparse |= {name: None for name, gradient in gradients.items() if gradient.is_sparse}
        squares = {name: float(_square(_values(gradient))) for name, gradient in gradients.items()}
        norm = math.sqrt(math.fsum(squares.values())) if all(map(math.isfinite, squares.values())) else math.nan
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return
        self.losses.append(loss)
        self.norms.append(norm)
        self.sizes.append(size)
        for gradient in gradients.values():
            self._count_zeros(gradient)
        matrices = [name for name, each in parameters.items() if each.ndim >= 2]
        for name in evenly(matrices, _LAYERS):
            weight = float(torch.linalg.vector_norm(parameters[name]))
            if weight > 0:
                self.relative.setdefault(name, []).append(math.sqrt(squares[name]) / weight)
        self._add_to_mean(gradients, stride=_stride(each for _, each in self._trained(model)))

    def _trained(self, model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
        return (item for item in named_parameters(model) if item[0] not in self.left_out)

    def _count_zeros(self, gradient: Tensor) -> None:
        if gradient.is_sparse:
            self.touched += int(gradient.indices().shape[1])
            self.rows += math.prod(gradient.shape[: gradient.sparse_dim()])
        else:
            self.zeros += gradient.numel() - int(torch.count_nonzero(gradient))
            self.dense += gradient.numel()

    def _add_to_mean(self, gradients: Mapping[str, Tensor], *, stride: int) -> None:
        square = 0.0
        for name, gradient in gradients.items():
            # A sparse gradient is summed as one: a table of 10^8 rows never becomes a dense tensor.
            part = _wide(gradient if gradient.is_sparse else gradient.flatten()[::stride])
            square += float(_square(_values(part)))
            known = self.mean.get(name)
            if known is None:
                self.mean[name] = part.clone()
            elif part.is_sparse:
                self.mean[name] = (known + part).coalesce()
            else:
                known += part
        self.thinned_squares.append(square)

    def profile(self, model: nn.Module) -> GradientProfile:
        trainable = [name for name, each in self._trained(model) if each.requires_grad]
        quantiles = torch.quantile(
            torch.tensor(self.norms or [math.nan], dtype=torch.float64),
            torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64),
        )
        low, middle, high = quantiles.tolist()
        return GradientProfile(
            passes=self.count,
            nonfinite=self.count - len(self.losses),
            sparse=tuple(self.sparse),
            unused=tuple(name for name in trainable if name not in self.used),
            zero_fraction=self.zeros / self.dense if self.dense else None,
            touched_rows=self.touched / self.rows if self.rows else None,
            norms=tuple(self.norms),
            norm_quantiles=(low, middle, high) if self.norms else None,
            relative_norms={name: math.fsum(each) / len(each) for name, each in self.relative.items()},
            noise_scale=self._noise_scale(),
            initial_loss=math.fsum(self.losses) / len(self.losses) if self.losses else None,
        )

    def _noise_scale(self) -> float | None:
        """Estimate the noise scale as in McCandlish et al. 2018, appendix A.1: one batch against the mean of all."""
        sizes = [size for size in self.sizes if size]
        passes = len(self.sizes)
        if passes < 2 or len(sizes) < passes:
            return None
        small, big = sum(sizes) / passes, float(sum(sizes))
        small_square = math.fsum(self.thinned_squares) / passes
        big_square = math.fsum(float(_square(_values(each))) for each in self.mean.values()) / passes**2
        signal = (big * big_square - small * small_square) / (big - small)
        noise = (small_square - big_square) / (1 / small - 1 / big)
        return max(noise, 0.0) / signal if signal > 0 else None


def _clear(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = None


def _coalesced(gradient: Tensor) -> Tensor:
    return gradient.coalesce() if gradient.is_sparse else gradient


def _values(gradient: Tensor) -> Tensor:
    return gradient.values() if gradient.is_sparse else gradient


def _wide(values: Tensor) -> Tensor:
    # Half-precision gradients overflow when squared and round when summed.
    return values.float() if values.dtype in {torch.float16, torch.bfloat16} else values


def _square(values: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(_wide(values))
    return norm.double() ** 2


def _stride(parameters: Iterable[nn.Parameter]) -> int:
    scalars = sum(each.numel() for each in parameters if each.requires_grad and not is_lazy(each))
    return max(1, math.ceil(scalars / _MEAN_SCALARS))
