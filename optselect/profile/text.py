"""The profile in a few plain lines."""

from __future__ import annotations

from optselect.profile.values import DataProfile, GradientProfile, ModelProfile, Profile


def describe(profile: Profile) -> list[str]:
    """Write about five lines for a terminal: data, targets, model, gradients, training."""
    return [f"{title + ':':<11}{', '.join(parts)}" for title, parts in described(profile)]


def described(profile: Profile) -> list[tuple[str, list[str]]]:
    """Write the same, but keep the title and the parts of each line apart."""
    return [
        ("data", _data(profile.data)),
        ("targets", _targets(profile.data)),
        ("model", _model(profile.model)),
        ("gradients", _gradients(profile.gradient)),
        ("training", _training(profile)),
    ]


def _data(data: DataProfile) -> list[str]:
    parts = ["a stream" if data.size is None else f"{data.size:,} samples"]
    if data.batch_size is not None:
        parts.append(f"batches of {data.batch_size}")
    if data.features is not None:
        parts.append(f"{data.features:,} features ({', '.join(data.dtypes)})")
    if data.sequence_length is not None:
        parts.append(f"sequences of {data.sequence_length}")
    if data.edges is not None:
        parts.append(f"graphs with {data.edges:,} edges in a batch")
    if data.density is not None and data.density < 0.995:
        parts.append(f"{data.density:.2g} of them not zero")
    if data.value_range is not None:
        parts.append(f"from {data.value_range[0]:.3g} to {data.value_range[1]:.3g}")
    if data.scale_ratio is not None and data.scale_ratio >= 10:
        parts.append(f"scales differ {data.scale_ratio:.0f}-fold")
    if data.duplicates:
        parts.append(f"{data.duplicates:.0%} duplicates")
    return [*parts, f"{data.rows_read:,} read"]


def _targets(data: DataProfile) -> list[str]:
    if data.label_kind == "unknown":
        return ["not known"]
    parts: list[str] = [data.label_kind]
    if data.classes is not None and data.label_kind != "binary":
        parts.append(f"{data.classes:,} {'different' if data.label_kind == 'tokens' else 'classes'} seen")
    if data.top_class_share is not None:
        parts.append(f"the most frequent {data.top_class_share:.0%}")
    if data.rare_class_share:
        parts.append(f"{data.rare_class_share:.0%} rare")
    if data.tail_exponent is not None:
        parts.append(f"tail exponent {data.tail_exponent:.2f}")
    return parts


def _model(model: ModelProfile) -> list[str]:
    shares = sorted(((model.share(kind), kind) for kind in model.kinds), reverse=True)
    kinds = ", ".join(f"{kind} {share:.0%}" for share, kind in shares if share >= 0.01)
    parts = [
        f"{model.parameters:,} parameters" + (f" ({kinds})" if kinds else ""),
        f"{model.depth} layer{'s' * (model.depth != 1)}",
    ]
    if model.half_precision:
        parts.append(f"kept in {' and '.join(model.dtypes)}")
    if model.frozen:
        parts.append(f"{model.frozen:,} frozen")
    if model.at_initialisation is not None:
        state = "at initialisation" if model.at_initialisation else "not at initialisation"
        parts.append(f"{state}: {model.initialisation_evidence}")
    if model.pretrained == "partly":
        parts.append(f"new: {', '.join(model.fresh[:3])}{', …' * (len(model.fresh) > 3)}")
    return [*parts, f"Muon can train {model.muon_share:.0%}"]


def _gradients(gradient: GradientProfile) -> list[str]:
    if not gradient.passes:
        return ["not measured"]
    parts = []
    if gradient.sparse:
        touched = f" ({gradient.touched_rows:.2g} of the rows touched)" if gradient.touched_rows is not None else ""
        parts.append(f"sparse for {', '.join(gradient.sparse[:3])}{', …' * (len(gradient.sparse) > 3)}{touched}")
    else:
        parts.append("dense")
    if gradient.norm_quantiles is not None:
        low, middle, high = gradient.norm_quantiles
        parts.append(f"norm {middle:.3g} ({low:.3g} to {high:.3g})")
    if gradient.initial_loss is not None:
        parts.append(f"loss {gradient.initial_loss:.4g}")
    if gradient.noise_scale is not None:
        parts.append(f"noise scale {gradient.noise_scale:.2g} samples")
    if gradient.nonfinite:
        parts.append(f"{gradient.nonfinite} passes not finite")
    if gradient.unused:
        parts.append(f"{len(gradient.unused)} parameters without any")
    return [*parts, f"{gradient.passes} passes"]


def _training(profile: Profile) -> list[str]:
    parts = ["length not known" if profile.steps is None else f"{profile.steps:,} steps"]
    if profile.data.batches is not None:
        parts.append(f"{profile.data.batches:,} batches an epoch")
    if profile.model.memory_free is not None:
        parts.append(f"{profile.model.memory_free / 2**30:.1f} GiB of memory free")
    return parts
