"""Weights out of a checkpoint of the same module, compiled otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optselect.parameters.names import name_in

if TYPE_CHECKING:
    import lightning.pytorch as pl


def load_by_own_names(_: Any, module: pl.LightningModule, own: Any, __: str, checkpoint: dict[str, Any]) -> None:
    """Stand in for `module.on_load_checkpoint`: give weights the names that they have in `module`.

    `torch.compile` of a part puts a name of its own into those inside, and Lightning would refuse the others.
    """
    own(checkpoint) if own is not None else type(module).on_load_checkpoint(module, checkpoint)
    weights: dict[str, Any] = checkpoint.get("state_dict", {})
    for name in list(weights):
        if (now := name_in(module, name)) != name:
            weights[now] = weights.pop(name)
