"""Trainings of packages, in an environment of their own.

timm needs a torchvision, and one whose operators are built for another torch ends in an error wherever it is imported:
by Lightning's metrics, too, so this is looked at before anything else is imported.
"""

import importlib
import sys

import torch

try:
    importlib.import_module("torchvision")
except ImportError:
    pass
except RuntimeError:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    # What it asks for while it is imported; nothing here calls it. Kept, since what it declares goes when it does.
    OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
