"""Small real modules and loaders for the callback, and how they are fitted and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from optselect import AutoOptimizer, Budget, OptimizerPlan
from optselect.callbacks.muting import SilentProfiler

FEATURES, CLASSES, ROWS, BATCH = 12, 3, 96, 8

TRAINER: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class Classifier(L.LightningModule):
    """Dropout and BatchNorm, no `configure_optimizers`."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(FEATURES, 16),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(16, 16),
            nn.ReLU(),
            nn.Linear(16, CLASSES),
        )

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))


class WithOptimizer(Classifier):
    """Brings an optimizer and a scheduler of its own."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


class SparseClassifier(L.LightningModule):
    """An embedding with sparse gradients before a dense head."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(50, 8, mode="mean", sparse=True)
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, CLASSES))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(self.bag(batch[0])), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.net(self.bag(batch[0])), batch[1]))


class StopAfter(L.Callback):
    """Ends a fit after some epochs, its configuration being that of the longer run."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


def rows(count: int = ROWS) -> TensorDataset:
    """Three classes that a linear map nearly separates."""
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(count, FEATURES, generator=generator)
    return TensorDataset(inputs, (inputs @ torch.randn(FEATURES, CLASSES, generator=generator)).argmax(1))


def tokens(count: int = ROWS) -> TensorDataset:
    """Bags of five tokens whose class is the first one's remainder."""
    generator = torch.Generator().manual_seed(8)
    bags = torch.randint(0, 50, (count, 5), generator=generator)
    return TensorDataset(bags, bags[:, 0] % CLASSES)


def loaders(data: Callable[[int], TensorDataset] = rows) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """A shuffling training loader and a validation loader."""
    return DataLoader(data(ROWS), batch_size=BATCH, shuffle=True), DataLoader(data(32), batch_size=16)


class Stateful:
    """A loader that can go back into an epoch; its order comes from a generator that lives as long as it does."""

    def __init__(self, dataset: TensorDataset) -> None:
        self.dataset = dataset
        self.generator = torch.Generator().manual_seed(3)
        self.given = 0
        self.going_on = False

    def __len__(self) -> int:
        return len(self.dataset) // BATCH

    def __iter__(self) -> Iterator[Any]:
        if not self.going_on:
            self.start, self.given = self.generator.get_state(), 0
        self.going_on = False
        self.generator.set_state(self.start)
        self.order = torch.randperm(len(self.dataset), generator=self.generator)
        # As a DataLoader does, for its workers.
        torch.empty((), dtype=torch.int64).random_()
        return self._batches()

    def _batches(self) -> Iterator[Any]:
        while self.given < len(self):
            self.given += 1
            yield self.dataset[self.order[(self.given - 1) * BATCH : self.given * BATCH]]

    def state_dict(self) -> dict[str, Any]:
        return {"start": self.start, "given": self.given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.start, self.given, self.going_on = state["start"], state["given"], True


def auto(tmp_path: Any, **arguments: Any) -> AutoOptimizer:
    """A callback whose search is small."""
    quick = {"budget": Budget(steps=60), "storage": tmp_path / "study.journal", "report": False}
    return AutoOptimizer(**{**quick, **arguments})


def fit(
    module: L.LightningModule,
    *callbacks: L.Callback,
    data: Any = None,
    epochs: int = 2,
    seed: int = 1,
    ckpt_path: Any = None,
    **kwargs: Any,
) -> Any:
    """Fit under fixed random numbers; the trainer says how it went."""
    torch.manual_seed(seed)
    trainer = L.Trainer(**{**TRAINER, "max_epochs": epochs, "callbacks": list(callbacks), **kwargs})
    train, val = data or loaders()
    trainer.fit(module, train, val, ckpt_path=ckpt_path)
    return trainer


def made(kind: type[L.LightningModule], seed: int = 0) -> Any:
    """A module with reproducible weights."""
    torch.manual_seed(seed)
    return kind()


def by_hand(module_type: type[L.LightningModule], plan: OptimizerPlan) -> type[L.LightningModule]:
    """The module as its author would have written it with the chosen optimizer."""

    class ByHand(module_type):  # type: ignore[misc,valid-type]
        def configure_optimizers(self) -> Any:
            optimizer, scheduler = plan.build(self)
            if scheduler is None:
                return {"optimizer": optimizer}
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    return module_type if plan.optimizer == "user" else ByHand


def in_trial(module: L.LightningModule) -> bool:
    """Whether a search trains `module`."""
    return isinstance(module.trainer.profiler, SilentProfiler)  # type: ignore[attr-defined]


def equal_states(one: Any, other: Any) -> bool:
    """Whether two nested states hold the same values and bits."""
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict) and one.keys() == other.keys() and all(equal_states(one[k], other[k]) for k in one)
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal_states, one, other))
    return bool(one == other)
