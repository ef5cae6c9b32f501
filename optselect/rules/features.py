"""What a training is like, as numbers that recorded ones are compared by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median

from optselect.profile.values import Profile
from optselect.rules.kinds import is_pretrained

_KINDS = ("embedding", "conv", "recurrent", "attention", "linear")


def features(profile: Profile) -> dict[str, float | None]:
    """Return each feature by name; logarithms are of base 10. None: not known.

    rows, batch, steps, passes   examples, examples in a batch, optimizer steps to come, passes over the data in them
    parameters, per_row          trainable scalars, and those for each example
    depth                        layers with parameters
    conv, recurrent, …           shares of the trainable scalars
    batch_norm, dropout, trained, sparse
                                 1 where there is such a layer, weights were trained before, a gradient is sparse
    number, tokens, classes      what the label is; of classes the logarithm of how many
    density, noise, norm, loss   of inputs; gradient noise scale; norm of the gradient; untrained loss
    """
    data, model, gradient = profile.data, profile.model, profile.gradient
    passes = None
    if profile.steps and data.batch_size and data.size:
        passes = profile.steps * data.batch_size / data.size
    return {
        "rows": _log(data.size),
        "batch": _log(data.batch_size),
        "steps": _log(profile.steps),
        "passes": _log(passes),
        "parameters": _log(model.parameters),
        "per_row": _log(model.parameters / data.size if data.size else None),
        "depth": _log(model.depth),
        **{kind: model.share(kind) for kind in _KINDS},
        "batch_norm": float(model.batch_norm),
        "dropout": float(model.dropout > 0),
        "trained": float(is_pretrained(profile)),
        "sparse": float(bool(gradient.sparse)),
        "number": float(data.label_kind == "continuous"),
        "tokens": float(data.label_kind == "tokens"),
        "classes": _log(data.classes) if data.label_kind in {"binary", "multiclass"} else 0.0,
        "density": data.density,
        "noise": _log(gradient.noise_scale),
        "norm": _log(median(gradient.norms) if gradient.norms else None),
        "loss": _log(abs(gradient.initial_loss) if gradient.initial_loss else None),
    }


def _log(value: float | None) -> float | None:
    return math.log10(value) if value is not None and value > 0 and math.isfinite(value) else None


def distance_squared(
    one: Mapping[str, float | None], other: Mapping[str, float | None], spread: Mapping[str, float]
) -> float:
    """Return the mean square of what two differ by, features in their units, `spread`; unknown ones count nothing."""
    apart = [
        ((one[name] - other[name]) / spread[name]) ** 2  # type: ignore[operator]  # neither is None
        for name in spread
        if one.get(name) is not None and other.get(name) is not None
    ]
    return math.fsum(apart) / len(apart) if apart else math.inf
