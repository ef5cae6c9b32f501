"""Whether an optimizer's spec tells the truth."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from optselect import catalogue
from optselect.catalogue import OptimizerSpec
from optselect.errors import OptselectError
from optselect.space import Dimension, Value
from optselect.testing.conformance import ConformanceError, said

# A vector, a matrix, and a convolution's weight, each large enough that one forgotten slot shows.
SHAPES: tuple[tuple[int, ...], ...] = ((64,), (16, 8), (8, 4, 3, 3))

# Measured state may differ from the stated by this share and these bytes: packages keep small extras.
STATE_TOLERANCE = 0.02
STATE_SLACK_BYTES = 64

# Enough for an optimizer that prepares in its first step, and for LBFGS to fill its history.
_STEPS = 4


def check_optimizer(spec: OptimizerSpec) -> None:
    """Run every fact of `spec` on small parameters. Raises `ConformanceError` for the first that is wrong.

    Checked are: the description, the build, which shapes, layouts and number types can be trained (exactly
    those), the bytes of state (within `STATE_TOLERANCE`, step counters left out), param groups, closure,
    train and eval modes, weight decay, saving and going on, and every bound of the space. Not checked, for no
    step shows it, are `schedulable` and the sources.

    Raises `MissingExtraError` when the optimizer's package is not installed.
    """
    spec.load()
    for check in _FACTS:
        check(spec)


def _check_description(spec: OptimizerSpec) -> None:
    _require(
        spec,
        bool(spec.name.isidentifier() and spec.summary),
        "needs a name that is an identifier, and a summary",
    )
    _require(
        spec,
        bool(spec.cites) and all(spec.cites),
        "cites nothing: say where its facts and its prior come from",
    )
    _require(
        spec,
        spec.decay is None or spec.decay in spec.space,
        f"says decay={spec.decay!r}, which is not in its space ({', '.join(spec.space)})",
    )
    overlap = set(spec.fixed) & set(spec.space)
    _require(spec, not overlap, f"both fixes and searches {', '.join(sorted(overlap))}")
    partial = not spec.dense or spec.ndim is not None
    _require(
        spec,
        not partial or spec.partner is not None,
        "cannot train every dense parameter, so it needs a partner",
    )
    if spec.partner is not None:
        partner = catalogue.get(spec.partner)
        whole = partner.dense and partner.ndim is None
        _require(spec, whole, f"has the partner {partner.name!r}, which cannot train every dense parameter either")
    _require(
        spec,
        (spec.cost == "closure") is spec.closure,
        f"says cost={spec.cost!r} and closure={spec.closure}; they go together",
    )


def _check_build(spec: OptimizerSpec) -> None:
    try:
        optimizer = _build(spec, [_parameter(_usual_shape(spec))])
    except Exception as error:
        raise _wrong(spec, f"cannot be built at its prior's centre: {said(error)}") from error
    _require(spec, isinstance(optimizer, torch.optim.Optimizer), "is not a torch.optim.Optimizer")


def _check_layouts(spec: OptimizerSpec) -> None:
    for shape in SHAPES:
        fact = "dense=True" if spec.ndim is None else f"dense=True, ndim={spec.ndim}"
        can = spec.can_train(shape=shape, sparse=False)
        _agree(
            spec,
            functools.partial(_train, spec, shape),
            can=can,
            fact=fact,
            what=f"dense gradients of shape {shape}",
        )
    can = spec.can_train(shape=(16, 8), sparse=True)
    _agree(spec, lambda: _train(spec, (16, 8), sparse=True), can=can, fact="sparse=True", what="sparse gradients")


def _check_complex(spec: OptimizerSpec) -> None:
    shape = _usual_shape(spec)
    _agree(
        spec,
        lambda: _train(spec, shape, sparse=not spec.dense, dtype=torch.complex64),
        can=spec.complex,
        fact="complex=True",
        what="complex parameters",
    )


def _check_state(spec: OptimizerSpec) -> None:
    for dtype, itemsize in ((torch.float32, 4), (torch.float64, 8)):
        for shape in _trainable_shapes(spec):
            optimizer, _ = _train(spec, shape, sparse=not spec.dense, dtype=dtype)
            measured = sum(_bytes(value) for value in optimizer.state.values())
            stated = spec.state_bytes(shape, itemsize)
            _require(
                spec,
                abs(measured - stated) <= STATE_TOLERANCE * stated + STATE_SLACK_BYTES,
                f"says state_bytes({shape}, {itemsize}) = {stated}, but keeps {measured} bytes",
            )


def _check_groups(spec: OptimizerSpec) -> None:
    def two_groups() -> None:
        shape = _usual_shape(spec)
        factory = spec.load()
        factory([{"params": [_parameter(shape)]}, {"params": [_parameter(shape)]}], **_arguments(spec))

    _agree(spec, two_groups, can=not spec.single_group, fact="single_group=False", what="two param groups")


def _check_group_rates(spec: OptimizerSpec) -> None:
    def two_rates() -> None:
        shape = _usual_shape(spec)
        parameters = [_parameter(shape), _parameter(shape)]
        arguments = _arguments(spec, _decay_off(spec, sparse=not spec.dense))
        groups = [{"params": [each], "lr": arguments["lr"] / (1 + index)} for index, each in enumerate(parameters)]
        optimizer = spec.load()(groups, **arguments)
        if spec.train_eval:
            optimizer.train()
        for parameter in parameters:
            _objective(parameter, sparse=not spec.dense)
        optimizer.step()

    _agree(spec, two_rates, can=spec.group_rates, fact="group_rates=False", what="a learning rate for each group")


def _check_closure(spec: OptimizerSpec) -> None:
    def step_without_closure() -> None:
        parameter = _parameter(_usual_shape(spec))
        optimizer = _build(spec, [parameter])
        with torch.sparse.check_sparse_tensor_invariants(enable=True):
            _objective(parameter, sparse=not spec.dense)
            optimizer.step()

    _agree(
        spec,
        step_without_closure,
        can=not spec.closure,
        fact="closure=False",
        what="a step without a closure",
    )


def _check_modes(spec: OptimizerSpec) -> None:
    optimizer = _build(spec, [_parameter(_usual_shape(spec))])
    has = callable(getattr(optimizer, "train", None)) and callable(getattr(optimizer, "eval", None))
    _require(
        spec,
        has is spec.train_eval,
        f"says train_eval={spec.train_eval}, but has {'' if has else 'no '}train() and eval()",
    )


def _check_decay(spec: OptimizerSpec) -> None:
    if spec.decay is None:
        return
    if spec.sparse:
        _agree(
            spec,
            lambda: _train(spec, (16, 8), sparse=True, values={str(spec.decay): 0.1}),
            can=spec.sparse_decay,
            fact="sparse_decay=True",
            what="weight decay on sparse gradients",
        )
    if not spec.decoupled or not spec.dense:
        return
    parameter = _parameter(_usual_shape(spec))
    before = parameter.detach().clone()
    values = {spec.decay: 0.1}
    optimizer = _build(spec, [parameter], values)
    parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    lr = float(optimizer.param_groups[0]["lr"])
    moved = ((parameter.detach() - before).abs() / before.abs()).max().item()
    _require(
        spec,
        moved <= 2 * lr * 0.1,
        f"says decoupled=True, but a zero gradient moves weights by {moved:.2g} of their size, "
        f"not by lr · decay = {lr * 0.1:.2g}",
    )


def _check_resuming(spec: OptimizerSpec) -> None:
    shape = _usual_shape(spec)
    sparse = not spec.dense
    optimizer, parameter = _train(spec, shape, sparse=sparse)
    stored = io.BytesIO()
    torch.save(optimizer.state_dict(), stored)
    stored.seek(0)
    resumed = Parameter(parameter.detach().clone())
    second = _build(spec, [resumed], _decay_off(spec, sparse=sparse))
    try:
        # weights_only is the default, and Lightning's: a state with objects of its own cannot be loaded.
        second.load_state_dict(torch.load(stored, weights_only=True))
    except Exception as error:
        raise _wrong(spec, f"cannot load its own saved state: {said(error)}") from error
    for each, weights in ((optimizer, parameter), (second, resumed)):
        _step(each, weights, sparse=sparse, closure=spec.closure, count=2)
    _require(spec, torch.equal(parameter, resumed), "does not go on as before after saving and loading its state")


def _check_space(spec: OptimizerSpec) -> None:
    shape = _usual_shape(spec)
    for name, dimension in spec.space.items():
        # Weight decay and sparse gradients are a question of their own.
        if name == spec.decay and not spec.dense:
            continue
        for value in _ends(dimension):
            try:
                parameter = _parameter(shape)
                optimizer = _build(spec, [parameter], {**_decay_off(spec, sparse=not spec.dense), name: value})
                _step(optimizer, parameter, sparse=not spec.dense, closure=spec.closure, count=1)
            except Exception as error:
                raise _wrong(spec, f"has {name}={value!r} in its space, but refuses it: {said(error)}") from error


_FACTS: tuple[Callable[[OptimizerSpec], None], ...] = (
    _check_description,
    _check_build,
    _check_layouts,
    _check_complex,
    _check_state,
    _check_groups,
    _check_group_rates,
    _check_closure,
    _check_modes,
    _check_decay,
    _check_resuming,
    _check_space,
)


def _wrong(spec: OptimizerSpec, sentence: str) -> ConformanceError:
    return ConformanceError(f"the optimizer {spec.name!r} {sentence}")


def _require(spec: OptimizerSpec, holds: bool, sentence: str) -> None:  # noqa: FBT001  # reads as a sentence
    if not holds:
        raise _wrong(spec, sentence)


def _agree(spec: OptimizerSpec, attempt: Callable[[], object], *, can: bool, fact: str, what: str) -> None:
    """Check that `attempt` succeeds exactly when the spec says so."""
    try:
        attempt()
    except OptselectError:
        raise
    # Packages refuse in their own ways; which one does not matter.
    except Exception as error:
        if can:
            raise _wrong(spec, f"says it can do {what} ({fact}), but: {said(error)}") from error
        return
    _require(spec, can, f"says it cannot do {what}, but can: {fact} is the fact")


def _trainable_shapes(spec: OptimizerSpec) -> Sequence[tuple[int, ...]]:
    """List those of `SHAPES` that the spec says it trains; sparse gradients are rows of a table."""
    if not spec.dense:
        return [(16, 8)]
    shapes = [shape for shape in SHAPES if spec.can_train(shape=shape, sparse=False)]
    _require(spec, bool(shapes), f"says ndim={spec.ndim}: nothing of that kind is a weight of a network")
    return shapes


def _usual_shape(spec: OptimizerSpec) -> tuple[int, ...]:
    """Choose a matrix, where the spec says it trains one."""
    return min(_trainable_shapes(spec), key=lambda shape: abs(len(shape) - 2))


def _parameter(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Parameter:
    generator = torch.Generator().manual_seed(0)
    # Away from zero: a relative change has to mean something.
    return Parameter(0.5 + torch.rand(tuple(shape), generator=generator, dtype=torch.float64).to(dtype))


def _objective(parameter: Parameter, *, sparse: bool) -> float:
    """Evaluate a convex function that no few steps solve, of two rows only when `sparse`; fill in the gradient."""
    rows = [0, 2]
    weights = parameter.detach().clone().requires_grad_(True)
    seen = weights[rows] if sparse else weights
    curvature = torch.logspace(0, 2, seen.numel(), dtype=torch.float64).reshape(seen.shape)
    distance = (seen - 2.0).abs()
    loss = (curvature.to(distance.dtype) * distance**2 + distance**4).sum() / seen.numel()
    (gradient,) = torch.autograd.grad(loss, weights)
    parameter.grad = (
        torch.sparse_coo_tensor(torch.tensor([rows]), gradient[rows], gradient.shape) if sparse else gradient
    )
    return float(loss.detach())


def _arguments(spec: OptimizerSpec, values: Mapping[str, Value] | None = None) -> dict[str, Any]:
    return spec.arguments({**spec.defaults(), **(values or {})})


def _decay_off(spec: OptimizerSpec, *, sparse: bool) -> dict[str, Value]:
    return {spec.decay: 0.0} if sparse and spec.decay is not None else {}


def _build(
    spec: OptimizerSpec,
    parameters: list[Parameter],
    values: Mapping[str, Value] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = spec.load()(parameters, **_arguments(spec, values), **(extra or {}))
    if spec.train_eval:
        _require(spec, hasattr(optimizer, "train"), "says train_eval=True, but has no train() and eval()")
        optimizer.train()  # type: ignore[attr-defined]  # checked above
    return optimizer


def _step(
    optimizer: torch.optim.Optimizer,
    parameter: Parameter,
    *,
    sparse: bool,
    closure: bool,
    count: int = _STEPS,
) -> None:
    # Adagrad and others make sparse tensors, and torch warns once unless it is told whether to check them.
    with torch.sparse.check_sparse_tensor_invariants(enable=True):
        for _ in range(count):
            if closure:
                optimizer.step(lambda: _objective(parameter, sparse=sparse))
            else:
                _objective(parameter, sparse=sparse)
                optimizer.step()


def _train(
    spec: OptimizerSpec,
    shape: Sequence[int],
    *,
    sparse: bool = False,
    dtype: torch.dtype = torch.float32,
    values: Mapping[str, Value] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> tuple[torch.optim.Optimizer, Parameter]:
    """Take a few steps from the prior's centre. Raises `FloatingPointError` when the weights stay or diverge."""
    parameter = _parameter(shape, dtype)
    before = parameter.detach().clone()
    optimizer = _build(spec, [parameter], {**_decay_off(spec, sparse=sparse), **(values or {})}, extra)
    _step(optimizer, parameter, sparse=sparse, closure=spec.closure)
    if not torch.isfinite(torch.view_as_real(parameter) if parameter.is_complex() else parameter).all():
        raise FloatingPointError("its steps give weights that are not finite")
    if torch.equal(parameter, before):
        raise FloatingPointError("its steps leave the weights where they were")
    return optimizer, parameter


def _bytes(value: object) -> int:
    """Count the bytes of the tensors in a state. Those without dimensions are counters."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size() if value.ndim else 0
    if isinstance(value, Mapping):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, list | tuple) else 0


def _ends(dimension: Dimension) -> Iterator[Value]:
    choices = getattr(dimension.distribution, "choices", None)
    if choices is not None:
        yield from choices
        return
    yield from (dimension.from_unit(0.0), dimension.centre, dimension.from_unit(1.0))
