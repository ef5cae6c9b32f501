"""The names under which parameters are added beside the weights of a trained model: LoRA and its like."""

from __future__ import annotations

import re

# The names under which peft 0.21 adds its parameters, and those that others have for bottleneck adapters.
_PEFT = re.compile(
    r"(.*_)?(gra|rand|tiny|uni|vb|de|g)?lora(_.*)?$"
    r"|(hada|lokr|oft|boft|ia3|p?vera|fourierft|waveft|hira|hra|ln_tuning|shira|adamss|beft|c3a|psoft|osf"
    r"|supertuning|trainable_tokens|adaption)_\w+$"
    r"|(road_theta|road_alpha|miss_block|prompt_encoder)$"
)
_ADAPTER = re.compile(rf"{_PEFT.pattern}|(.*_)?adapters?(_.*)?$")
_WRAPPED = re.compile(rf"{_ADAPTER.pattern}|(base_layer|original_module|modules_to_save)$")


def is_peft(name: str) -> bool:
    """Tell whether a parameter of this name is one that peft adds to a trained model."""
    return any(_PEFT.match(part) for part in name.split("."))


def is_adapter(name: str) -> bool:
    """Tell whether a parameter of this name was added beside a trained model's own."""
    return any(_ADAPTER.match(part) for part in name.split("."))


def is_wrapped(part: str) -> bool:
    """Tell whether a module of this name is an adapter, or the layer of its own that an adapter was put around."""
    return _WRAPPED.match(part) is not None
