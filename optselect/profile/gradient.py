"""What a few real backward passes at the present weights tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from optselect.parameters.sharding import Sharding, local, settle, sharding_of
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
    (BatchNorm statistics, random numbers) is: the caller borrows the model. Of a model that is cut over processes each
    measures its parts, and all know the sums.
    """
    if not batches:
        return GradientProfile()
    passes = _Passes(sharding=sharding_of(model), left_out=frozenset(left_out))
    try:
        for batch in batches:
            _clear(model)
            loss = backward(batch)
            settle(model)
            passes.add(loss, batch_size or samples_in(batch))
    finally:
        _clear(model)
    return passes.profile()


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

    sharding: Sharding
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
    def add(self, loss: float, size: int | None) -> None:
        self.count += 1
        # Coalescing adds up the entries of one row, so that norms and row counts are of the gradient itself.
        gradients = {name: _coalesced(local(each.grad)) for name, each in self._trained() if each.grad is not None}
        thinned = self._thinned(gradients)
        # No process leaves before all have added up: a loss may be finite on one of them alone.
        seen = self._added_up(gradients, thinned)
        loss = self.sharding.mean(loss)
        self.used |= seen.keys()
        self.sparse |= {name: None for name, gradient in gradients.items() if gradient.is_sparse}
        squares = {name: each.square for name, each in seen.items()}
        norm = math.sqrt(math.fsum(squares.values())) if all(map(math.isfinite, squares.values())) else math.nan
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return
        self.losses.append(loss)
        self.norms.append(norm)
        self.sizes.append(size)
        self.zeros += sum(each.zeros for each in seen.values())
        self.dense += sum(each.dense for each in seen.values())
        self.thinned_squares.append(sum(each.thinned_square for each in seen.values()))
        for gradient in gradients.values():
            if gradient.is_sparse:
                self.touched += int(gradient.indices().shape[1])
                self.rows += math.prod(gradient.shape[: gradient.sparse_dim()])
        matrices = evenly([name for name in seen if self.sharding.ndim(name) >= 2], _LAYERS)
        weights = self.sharding.total({name: _square(local(self.sharding.parameters[name])) for name in matrices})
        for name, weight in weights.items():
            if weight > 0:
                self.relative.setdefault(name, []).append(math.sqrt(squares[name]) / math.sqrt(float(weight)))
        self._add_to_mean(thinned)

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return (item for item in self.sharding.parameters.items() if item[0] not in self.left_out)

    def _thinned(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        stride = _stride(local(each) for _, each in self._trained() if each.requires_grad and not is_lazy(each))
        # A sparse gradient is summed as one: a table of 10^8 rows never becomes a dense tensor.
        return {
            name: _wide(gradient if gradient.is_sparse else gradient.flatten()[::stride])
            for name, gradient in gradients.items()
        }

    def _added_up(self, gradients: Mapping[str, Tensor], thinned: Mapping[str, Tensor]) -> dict[str, _Seen]:
        """Add up what all processes see of each gradient; those that none of them has are left out."""
        names = [name for name, _ in self._trained() if self.sharding.is_cut or name in gradients]
        parts = {name: _measured(gradients.get(name), thinned.get(name)) for name in names}
        totals = {name: each.tolist() for name, each in self.sharding.total(parts).items()}
        return {
            name: _Seen(square=square, thinned_square=thinned_square, zeros=round(zeros), dense=round(dense))
            for name, (there, square, thinned_square, zeros, dense) in totals.items()
            if there
        }

    def _add_to_mean(self, thinned: Mapping[str, Tensor]) -> None:
        for name, part in thinned.items():
            known = self.mean.get(name)
            if known is None:
                self.mean[name] = part.clone()
            elif part.is_sparse:
                self.mean[name] = (known + part).coalesce()
            else:
                known += part

    def profile(self) -> GradientProfile:
        trainable = [name for name, each in self._trained() if each.requires_grad]
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
        big_square = math.fsum(map(float, self._mean_squares().values())) / passes**2
        signal = (big * big_square - small * small_square) / (big - small)
        noise = (small_square - big_square) / (1 / small - 1 / big)
        return max(noise, 0.0) / signal if signal > 0 else None

    def _mean_squares(self) -> dict[str, Tensor]:
        nothing = torch.zeros((), dtype=torch.float64)
        names = [name for name, _ in self._trained() if self.sharding.is_cut] or list(self.mean)
        own = {name: _square(_values(each)) for name, each in self.mean.items()}
        return self.sharding.total({name: own.get(name, nothing).cpu() for name in names})


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What one pass showed of the gradient of one parameter: its square, that of its thinned entries, and zeros."""

    square: float
    thinned_square: float
    zeros: int
    dense: int


def _measured(gradient: Tensor | None, thinned: Tensor | None) -> Tensor:
    """Return whether it is there, its square and that of its thinned entries, zeros among so many dense entries."""
    if gradient is None or thinned is None:
        return torch.zeros(5, dtype=torch.float64)
    zeros = dense = 0
    if not gradient.is_sparse:
        zeros, dense = gradient.numel() - int(torch.count_nonzero(gradient)), gradient.numel()
    squares = [float(_square(_values(gradient))), float(_square(_values(thinned)))]
    return torch.tensor([1.0, *squares, zeros, dense], dtype=torch.float64)


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


def _stride(trained: Iterable[Tensor]) -> int:
    scalars = sum(each.numel() for each in trained)
    return max(1, math.ceil(scalars / _MEAN_SCALARS))
