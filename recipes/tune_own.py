"""Your own optimizer and scheduler, kept as they are; only their learning rate and weight decay are tuned.

    optselect tune --config tune_own.yaml

The data come with scikit-learn, as those of `digits.py`.
"""

from __future__ import annotations

from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from optselect.recipes.digits import DigitsModel


class OwnModel(DigitsModel):
    """The perceptron of `digits.py` with an optimizer of its own: the candidate "user"."""

    def __init__(self, hidden: int = 128, lr: float = 1e-3) -> None:
        super().__init__(hidden)
        self.lr = lr

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        """Return SGD with momentum, without decay on biases, and a cosine over the epochs."""
        matrices = [parameter for parameter in self.parameters() if parameter.ndim > 1]
        others = [parameter for parameter in self.parameters() if parameter.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": 1e-4}, {"params": others, "weight_decay": 0.0}]
        optimizer = SGD(groups, lr=self.lr, momentum=0.9)
        return [optimizer], [CosineAnnealingLR(optimizer, T_max=self.trainer.max_epochs or 1)]
