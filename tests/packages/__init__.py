"""Trainings of packages, in an environment of their own.

timm needs a torchvision, and one whose operators are built for another torch ends in an error wherever it is imported:
by Lightning's metrics, too, so what it asks for is declared before anything else is imported. Nothing here calls it.
"""

import importlib.util

import torch

if importlib.util.find_spec("torchvision") is not None:
    # Kept, since what it declares goes when it does.
    OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
