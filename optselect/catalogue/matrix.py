"""Optimizers that see a weight as a matrix rather than as so many numbers."""

from __future__ import annotations

from optselect.catalogue.spec import OptimizerSpec, slots
from optselect.space import SearchSpace, log_uniform, near_one

MUON = OptimizerSpec(
    name="muon",
    summary="orthogonalised momentum on hidden matrices, AdamW on the rest",
    factory="torch.optim:Muon",
    # With match_rms_adamw an update has the size of AdamW's (root mean square .17 to .18 at lr 1, measured on
    # torch 2.13), so one learning rate serves both; "original" has .03 to .11, depending on the shape.
    fixed={"adjust_lr_fn": "match_rms_adamw"},
    # Measured here: Muon won six of ten small tasks, always at .01 or .03.
    space=SearchSpace(
        {
            "lr": log_uniform(1e-4, 1e-1, centre=1e-2),
            "momentum": near_one(5e-3, 0.3, centre=0.95),
            "weight_decay": log_uniform(1e-4, 0.5, centre=1e-2),
        }
    ),
    decoupled=True,
    ndim=2,
    complex=False,
    partner="adamw",
    state=slots(1),
    cost="matrix",
    parts=("tensors",),
    cites=(
        "Jordan et al. 2024, kellerjordan.github.io/posts/muon",
        "Liu et al. 2025, arXiv:2502.16982 (matching AdamW's update size)",
    ),
)

SPECS = (MUON,)
