"""Kinds of module and loader as people write them, for the matrix of `test_matrix.py`."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
import torchmetrics
from lightning.pytorch.callbacks import (
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateMonitor,
    ModelCheckpoint,
)
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, default_collate

from tests.support.modules import BATCH, CLASSES, FEATURES, ROWS, Classifier, rows, tokens

# --- modules --------------------------------------------------------------------------------------


class ReadsTrainer(Classifier):
    """Its loss depends on where the trainer says the training is."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        trainer = self.trainer
        assert trainer.num_training_batches > 0
        assert trainer.max_epochs is not None
        ramp = min(1.0, (trainer.global_step + 1) / 10) + 0.1 * self.current_epoch + 0.01 * batch_idx
        return super().training_step(batch, batch_idx) * ramp


class ReadsOptimizer(Classifier):
    """Logs the learning rate it finds."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.log("lr_seen", self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]
        self.log_dict({"one": 1.0, "two": torch.tensor(2.0)}, on_epoch=True)
        return super().training_step(batch, batch_idx)


class BatchStartHook(Classifier):
    """Changes an attribute before each batch."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.noise = 0.1 * batch_idx

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step([batch[0] + self.noise, batch[1]], batch_idx)


class Ledger(L.Callback):
    """What a module writes down with a callback of its own."""

    def __init__(self) -> None:
        self.steps = 0
        self.losses: list[float] = []

        self.on_before_zero_grad = self.count  # type: ignore[assignment]  # as a LambdaCallback does

    def count(self, *_: Any) -> None:
        self.steps += 1


class LooksUpCallbacks(Classifier):
    """Reads and writes callbacks that it finds at the trainer."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        ledger = next(each for each in self.trainer.callbacks if isinstance(each, Ledger))  # type: ignore[attr-defined]
        ledger.losses.append(loss.item())
        assert self.trainer.early_stopping_callback is not None
        return loss * (1.0 + 0.01 * ledger.steps)


class SkipsRestOfEpoch(Classifier):
    """Ends every epoch before its sixth batch."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        return -1 if batch_idx == 5 else None


class EpochStartHook(Classifier):
    """A loss weight for each epoch."""

    def on_train_epoch_start(self) -> None:
        self.weight = 1.0 + self.current_epoch

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * self.weight


class PythonState(Classifier):
    """Counters, lists and dicts of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.counter = 0
        self.losses: list[Tensor] = []
        self.seen: dict[str, Any] = {"epochs": [0], "classes": set()}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.counter += 1
        self.seen["classes"] |= set(batch[1].tolist())
        loss = super().training_step(batch, batch_idx)
        self.losses.append(loss.detach())
        return loss * (1 + 0.01 * self.counter)

    def on_train_epoch_end(self) -> None:
        self.seen["epochs"].append(len(self.losses))
        self.losses.clear()


class PlainTensors(Classifier):
    """A moving average of its weights in a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.shadow = {name: value.clone() for name, value in self.net.named_parameters()}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        for name, value in self.net.named_parameters():
            self.shadow[name] = self.shadow[name].mul_(0.9).add_(value.detach(), alpha=0.1).detach()
        return loss + 0.1 * sum((p - self.shadow[n]).pow(2).sum() for n, p in self.net.named_parameters())


class Metrics(Classifier):
    """torchmetrics, logged as objects."""

    def __init__(self) -> None:
        super().__init__()
        self.train_accuracy = torchmetrics.MeanMetric()
        self.val_accuracy = torchmetrics.MeanMetric()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.train_accuracy((self.net(batch[0]).argmax(1) == batch[1]).float())
        self.log("train_accuracy", self.train_accuracy, on_epoch=True)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.val_accuracy.update((self.net(batch[0]).argmax(1) == batch[1]).float())
        self.log("val_accuracy", self.val_accuracy)
        super().validation_step(batch, batch_idx)


class Manual(Classifier):
    """Manual optimization with one optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        optimizer = self.optimizers()
        optimizer.zero_grad()  # type: ignore[union-attr]
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.manual_backward(loss)
        optimizer.step()  # type: ignore[union-attr]
        self.log("train_loss", loss)


class TwoOptimizers(Manual):
    """Two optimizers in manual optimization: a search chooses one."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            optimizer.step()

    def configure_optimizers(self) -> Any:
        halves = list(self.net[:2].parameters()), list(self.net[2:].parameters())
        return [torch.optim.SGD(half, lr=0.01) for half in halves]


class OptimizerStepOverride(Classifier):
    """Warms up in its own `optimizer_step`."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        if self.trainer.global_step < 5:
            for group in optimizer.param_groups:
                group["lr"] = 1e-3 * (self.trainer.global_step + 1)
        optimizer.step(closure=optimizer_closure)


class ClippingOverride(Classifier):
    """Clips in its own `configure_gradient_clipping`, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.clipped = 0

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        self.clipped += 1
        nn.utils.clip_grad_norm_(self.parameters(), 0.1 * (1 + self.current_epoch))


class SkipsBatches(Classifier):
    """Gives no loss for every third batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx % 3 == 0 else super().training_step(batch, batch_idx)


class TakesIterator(Classifier):
    """Takes the loader's iterator."""

    def training_step(self, dataloader_iter: Any) -> Tensor:  # type: ignore[override]
        batch, _, _ = next(dataloader_iter)
        return F.cross_entropy(self.net(batch[0]), batch[1])


class Lbfgs(Classifier):
    """Its own optimizer evaluates the loss several times a step."""

    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3)


class Plateau(Classifier):
    """Its own scheduler watches the validation loss."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}


class UsesLogger(Classifier):
    """Writes to the logger itself."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.logger is not None:
            self.logger.log_metrics({"own": float(batch_idx)}, step=self.global_step)
        return super().training_step(batch, batch_idx)


class Combined(Classifier):
    """Batches of two loaders at once."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch["a"], batch_idx) + super().training_step(batch["b"], batch_idx)


class Freezes(Classifier):
    """Freezes and thaws its first layer while it trains."""

    def on_train_epoch_start(self) -> None:
        self.net[0].requires_grad_(self.current_epoch % 2 == 1)


class ReplacesBuffers(Classifier):
    """A buffer that is a new tensor after each batch, and one that is not in the state dict."""

    mean: Tensor
    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("steps", torch.zeros(()), persistent=False)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * batch[0].mean(0)
        self.steps += 1
        return super().training_step([batch[0] - self.mean, batch[1]], batch_idx)


class Hooked(Classifier):
    """Registers a forward hook when the training starts."""

    def on_train_start(self) -> None:
        self.activations: list[float] = []
        self.handle = self.net[0].register_forward_hook(
            lambda module, args, out: self.activations.append(float(out.detach().mean()))
        )

    def on_train_end(self) -> None:
        self.handle.remove()


class DrawsEverywhere(Classifier):
    """Random numbers of Python, NumPy and torch in the training step."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        legacy = float(np.random.rand())  # noqa: NPY002  # what users write
        noise = random.random() + legacy + float(torch.rand(()))
        return super().training_step(batch, batch_idx) * (1 + 0.1 * noise)


class PopsItsBatch(Classifier):
    """Takes its batch apart, in place."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        target = batch.pop("y")
        return super().training_step([batch["x"].sub_(0.1), target], batch_idx)


class Nested(L.LightningModule):
    """A LightningModule in a LightningModule, both logging."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Classifier()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.log("outer", 1.0)
        return F.cross_entropy(self.inner.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.inner.net(batch[0]), batch[1]))


class FitStartHook(Classifier):
    """Sets up what it needs in `on_fit_start`."""

    def on_fit_start(self) -> None:
        self.scale = torch.tensor(0.5)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * self.scale


class SetUpLate(Classifier):
    """Makes its layers in `setup`."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Identity()  # type: ignore[assignment]

    def setup(self, stage: str) -> None:
        if isinstance(self.net, nn.Identity):
            self.net = nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, CLASSES))


class ReturnsDict(Classifier):
    """A dict from the training step, used in a hook."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"loss": super().training_step(batch, batch_idx), "size": len(batch[0])}

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.samples = getattr(self, "samples", 0) + outputs["size"]


class TransferHooks(Classifier):
    """Augments at random after the transfer to the device."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [batch[0] + 0.1 * torch.randn_like(batch[0]), batch[1]] if self.training else batch


class EpochEndValue(Classifier):
    """Logs the validation loss once, at the end."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.values = [*getattr(self, "values", []), F.cross_entropy(self.net(batch[0]), batch[1])]

    def on_validation_epoch_end(self) -> None:
        self.log("val_loss", torch.stack(self.values).mean())
        self.values = []


class Parametrized(Classifier):
    """Weight normalisation by parametrization."""

    def __init__(self) -> None:
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.net[0])


class Tied(Classifier):
    """Two layers share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(FEATURES, FEATURES),
            nn.ReLU(),
            nn.Linear(FEATURES, FEATURES),
            nn.Linear(FEATURES, CLASSES),
        )
        self.net[2].weight = self.net[0].weight


class SeveralValidations(Classifier):
    """Takes the index of the validation loader."""

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        super().validation_step(batch, batch_idx)


class TrainsOnly(L.LightningModule):
    """No validation at all."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(FEATURES, CLASSES)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss, on_epoch=True)
        return loss


class Recurrent(L.LightningModule):
    """An LSTM, whose weights are flattened into one block."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(FEATURES // 4, 8, batch_first=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x.view(len(x), 4, -1))[0][:, -1])  # type: ignore[no-any-return]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))


class SparseBag(L.LightningModule):
    """Sparse gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(50, 8, mode="mean", sparse=True)
        self.head = nn.Linear(8, CLASSES)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.head(self.bag(batch[0])), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.head(self.bag(batch[0])), batch[1]))


class ByKeyword(Classifier):
    """Calls what Lightning offers by its keywords."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log(name="kept", value=loss, prog_bar=False, on_step=True, on_epoch=True, reduce_fx="max")
        self.log_dict(dictionary={"one": 1.0, "two": loss}, on_step=False, on_epoch=True, batch_size=len(batch[0]))
        return loss


class TakesDerivatives(L.LightningModule):
    """Its loss takes a derivative by the inputs, in validation too."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, CLASSES))

    def loss(self, batch: Any) -> Tensor:
        inputs = batch[0].clone().requires_grad_(True)
        scores = self.net(inputs)
        slope = torch.autograd.grad(scores.sum(), inputs, create_graph=True)[0]
        penalty: Tensor = slope.square().mean()
        return F.cross_entropy(scores, batch[1]) + 0.1 * penalty

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch)


class ValidatesByDerivatives(TakesDerivatives):
    """As forces are validated."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        with torch.enable_grad():
            self.log("val_loss", self.loss(batch).detach())


class ResizesBuffers(Classifier):
    """A buffer that grows in place, and one that is there after the first batch only."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.empty(0))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        before = self.seen.clone()
        self.seen.resize_(len(before) + 1)
        self.seen.copy_(torch.cat([before, batch[0].mean().reshape(1)]))
        if "late" not in dict(self.named_buffers()):
            self.register_buffer("late", torch.zeros(2))
        return super().training_step(batch, batch_idx) * (1 + 0.01 * len(self.seen))


class Collections(Classifier):
    """A collection of metrics deep in the module, logged as objects and judged by."""

    def __init__(self) -> None:
        super().__init__()
        parts: dict[str, Any] = {
            "accuracy": torchmetrics.classification.MulticlassAccuracy(CLASSES, average="micro"),
            "recall": torchmetrics.classification.MulticlassRecall(CLASSES),
        }
        self.metrics: Any = nn.ModuleDict(
            {name: torchmetrics.MetricCollection(parts).clone(name) for name in ("fit_", "val_")}
        )

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.metrics["fit_"].update(self.net(batch[0]), batch[1])
        self.log_dict(self.metrics["fit_"], on_step=False, on_epoch=True)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.metrics["val_"].update(self.net(batch[0]), batch[1])
        self.log_dict(self.metrics["val_"])
        super().validation_step(batch, batch_idx)


class Teacher(Classifier):
    """Moves a queue, a counter and a teacher's weights in its training step."""

    queue: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("queue", torch.zeros(4, FEATURES))
        self.teacher = nn.Linear(FEATURES, CLASSES).requires_grad_(False)
        self.place = 0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.queue[self.place % 4] = batch[0][0]
        self.place += 1
        with torch.no_grad():
            self.teacher.weight.mul_(0.9).add_(0.1 * self.queue.mean(0))
        distance: Tensor = self.teacher(batch[0]).square().mean()
        return super().training_step(batch, batch_idx) + 0.1 * distance


class TeacherAlone(Teacher):
    """The same without a validation."""

    validation_step = L.LightningModule.validation_step  # type: ignore[assignment]  # as if there were none


def counting_on_its_class() -> type[L.LightningModule]:
    """A class that counts its calls, in a number and in a dict, as a new one for each run."""

    class OnItsClass(Classifier):
        calls = 0
        seen: ClassVar[dict[str, list[int]]] = {"labels": []}

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            kind = OnItsClass
            kind.calls += 1
            kind.seen["labels"].append(int(batch[1][0]))
            self.log("calls", float(kind.calls))
            self.log("labels", float(sum(kind.seen["labels"])))
            return super().training_step(batch, batch_idx) * (1 + 0.01 * kind.calls)

    return OnItsClass


class WritesBesideTheLogs(Classifier):
    """Makes a folder in the logger's and in the trainer's, and plots by the logger's experiment."""

    def on_validation_epoch_end(self) -> None:
        assert isinstance(self.logger, CSVLogger)
        assert self.trainer.log_dir == self.logger.log_dir
        (Path(self.logger.log_dir) / "pictures").mkdir(parents=True, exist_ok=True)
        self.logger.log_metrics({"pictures": 1.0}, step=self.global_step)
        self.logger.experiment.log_metrics({"directly": 1.0}, step=self.global_step)


class LooksAtLoaders(Classifier):
    """Reads the trainer's own loaders in its hooks."""

    def on_validation_epoch_end(self) -> None:
        loader = self.trainer.val_dataloaders
        assert isinstance(loader, DataLoader)
        self.log("rows", float(len(loader.dataset)))  # type: ignore[arg-type]  # sized
        self.log("first", next(iter(loader))[0].mean())

    def on_train_epoch_start(self) -> None:
        loader = self.trainer.train_dataloader
        assert isinstance(loader, DataLoader)
        self.weight = float(len(loader)) + float(next(iter(loader))[0].mean())


class MeanOfTwo(SeveralValidations):
    """The validation loss is the mean over two loaders."""

    def on_validation_epoch_start(self) -> None:
        self.losses: list[list[Tensor]] = [[], []]

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.losses[dataloader_idx].append(F.cross_entropy(self.net(batch[0]), batch[1]))

    def on_validation_epoch_end(self) -> None:
        self.log("val_loss", sum(torch.stack(each).mean() for each in self.losses) / 2)


class SideBySide(Classifier):
    """Validates on batches of two loaders at once, where one may have ended."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        losses = [F.cross_entropy(self.net(each[0]), each[1]) for each in batch.values() if each is not None]
        self.log("val_loss", torch.stack(losses).mean(), batch_size=1)
        self.log("parts", float(len(losses)), batch_size=1)


class ReturnsItsLoss(Classifier):
    """Logs nothing; its validation step returns the loss."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        return {"loss": F.cross_entropy(self.net(batch[0]), batch[1])}


# --- data -----------------------------------------------------------------------------------------


class Augmented(Dataset[Any]):
    """Random noise each time a row is read, and a counter of the readings."""

    def __init__(self) -> None:
        self.rows = rows()
        self.read = 0

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> Any:
        self.read += 1
        inputs, target = self.rows[index]
        return inputs + 0.1 * torch.randn(FEATURES), target


class Stream(IterableDataset[Any]):
    """The same rows for everyone who asks."""

    def __iter__(self) -> Iterator[Any]:
        return (rows()[index] for index in range(ROWS))


class PositionedStream(IterableDataset[Any]):
    """Keeps its position on itself: what was read does not come again before the end."""

    def __init__(self) -> None:
        self.position = 0

    def __iter__(self) -> Iterator[Any]:
        data = rows()
        while self.position < ROWS:
            self.position += 1
            yield data[self.position - 1]
        self.position = 0


class OneShotStream(IterableDataset[Any]):
    """Reads from an iterator that exists once."""

    def __init__(self) -> None:
        data = rows(4 * ROWS)
        self.source = iter([data[index] for index in range(4 * ROWS)])

    def __iter__(self) -> Iterator[Any]:
        for _, row in zip(range(ROWS), self.source, strict=False):
            yield row


class StatefulBatches(Sampler[list[int]]):
    """Another order each epoch, from a counter of its own."""

    def __init__(self) -> None:
        self.epoch = 0

    def __len__(self) -> int:
        return ROWS // BATCH

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng(self.epoch).permutation(ROWS).tolist()
        self.epoch += 1
        for start in range(0, ROWS, BATCH):
            yield order[start : start + BATCH]


class OwnLoader:
    """Any iterable of batches, with a counter."""

    def __init__(self) -> None:
        self.opened = 0

    def __iter__(self) -> Iterator[Any]:
        self.opened += 1
        generator = torch.Generator().manual_seed(self.opened)
        return iter(list(DataLoader(rows(), batch_size=BATCH, shuffle=True, generator=generator)))


class Slices:
    """An epoch's batches of an endless iterator at a time: no iterator, no length, no DataLoader."""

    def __init__(self) -> None:
        data = rows()
        self.iterable = map(default_collate, _chunks(itertools.cycle([data[index] for index in range(ROWS)])))

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(self.iterable, ROWS // BATCH)


def _chunks(items: Iterator[Any]) -> Iterator[list[Any]]:
    while True:
        yield list(itertools.islice(items, BATCH))


class EndlessStream(IterableDataset[Any]):
    """Goes on where it was left, whoever reads it."""

    def __init__(self) -> None:
        data = rows(40)
        self.rows = itertools.cycle([data[index] for index in range(40)])

    def __iter__(self) -> Iterator[Any]:
        return self.rows


class Batches(Dataset[Any]):
    """Its items are batches."""

    def __len__(self) -> int:
        return ROWS // BATCH

    def __getitem__(self, index: int) -> Any:
        return rows()[BATCH * index : BATCH * (index + 1)]


def whole(items: list[Any]) -> Any:
    """Rows collated; None for some batches, which Lightning skips."""
    return None if items[0][0][0] > 0.8 else default_collate(items)


def as_dict(items: list[Any]) -> dict[str, Tensor]:
    """Rows collated into a dict."""
    return {"x": torch.stack([x for x, _ in items]), "y": torch.stack([y for _, y in items])}


class Data(L.LightningDataModule):
    """Counts how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def train_dataloader(self) -> Any:
        self.asked += 1
        return shuffled()

    def val_dataloader(self) -> Any:
        return validation()


def plain() -> Any:
    return DataLoader(rows(), batch_size=BATCH)


def shuffled() -> Any:
    return DataLoader(rows(), batch_size=BATCH, shuffle=True)


def augmented() -> Any:
    return DataLoader(Augmented(), batch_size=BATCH, shuffle=True)


def generator() -> Any:
    return DataLoader(Augmented(), batch_size=BATCH, shuffle=True, generator=torch.Generator().manual_seed(3))


def workers() -> Any:
    return DataLoader(Augmented(), batch_size=BATCH, shuffle=True, num_workers=1, persistent_workers=True)


def combined() -> Any:
    return {"a": shuffled(), "b": DataLoader(rows(40), batch_size=BATCH)}


def shortest() -> Any:
    return CombinedLoader(combined(), "min_size")


def two_validations() -> Any:
    return {"a": plain(), "b": validation()}


def validation() -> Any:
    return DataLoader(rows(32), batch_size=16)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A module, its loaders and its trainer."""

    module: Callable[[], type[L.LightningModule]]
    train: Callable[[], Any] = shuffled
    val: Callable[[], Any] = validation
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: Callable[[], list[Any]] = list
    candidates: tuple[str, ...] = ("adamw", "momentum")
    falls_back: str = ""
    own: bool = False  # the module's own optimizer stays


def _kind(module: type[L.LightningModule], train: Callable[[], Any] = shuffled, **rest: Any) -> Kind:
    return Kind(module=lambda: module, train=train, **rest)


KINDS: dict[str, Kind] = {
    "plain": _kind(Classifier, plain),
    "shuffled": _kind(Classifier),
    "augmenting data set with a counter": _kind(Classifier, augmented),
    "generator= in the loader": _kind(Classifier, generator),
    "persistent workers": _kind(Classifier, workers),
    "stream": _kind(Classifier, lambda: DataLoader(Stream(), batch_size=BATCH)),
    "stream with a position": _kind(Classifier, lambda: DataLoader(PositionedStream(), batch_size=BATCH)),
    "one-shot stream": _kind(Classifier, lambda: DataLoader(OneShotStream(), batch_size=BATCH)),
    "batch sampler with a state": _kind(Classifier, lambda: DataLoader(rows(), batch_sampler=StatefulBatches())),
    "loader of its own class": _kind(Classifier, OwnLoader),
    "two loaders in a dict": _kind(Combined, combined),
    "CombinedLoader, shortest": _kind(Combined, shortest),
    "dict batches taken apart": _kind(PopsItsBatch, lambda: DataLoader(rows(), batch_size=BATCH, collate_fn=as_dict)),
    "data module with a counter": _kind(Classifier, Data),
    "reads the trainer": _kind(ReadsTrainer),
    "reads the optimizer": _kind(ReadsOptimizer),
    "looks callbacks up": _kind(LooksUpCallbacks, callbacks=lambda: [Ledger(), EarlyStopping("val_loss")]),
    "batch start hook": _kind(BatchStartHook),
    "skips the rest of the epoch": _kind(SkipsRestOfEpoch),
    "epoch start hook": _kind(EpochStartHook),
    "fit start hook": _kind(FitStartHook),
    "Python state": _kind(PythonState),
    "tensors in plain attributes": _kind(PlainTensors),
    "torchmetrics": _kind(Metrics),
    "manual optimization": _kind(Manual),
    "two optimizers": _kind(TwoOptimizers, falls_back="2 optimizers"),
    "optimizer_step override": _kind(OptimizerStepOverride),
    "clipping override": _kind(ClippingOverride),
    "batches without a loss": _kind(SkipsBatches),
    "loader iterator": _kind(TakesIterator, falls_back="loader's iterator"),
    "LBFGS of its own": _kind(Lbfgs, candidates=("user", "adamw")),
    "plateau scheduler of its own": _kind(Plateau, candidates=("user", "adamw")),
    "uses the logger": _kind(UsesLogger, trainer={"logger": True}),
    "checkpoints and early stopping": _kind(
        Classifier,
        callbacks=lambda: [EarlyStopping("val_loss"), ModelCheckpoint(monitor="val_loss", save_last=True)],
    ),
    "learning rate monitor": _kind(
        Classifier,
        trainer={"logger": True},
        callbacks=lambda: [LearningRateMonitor(log_momentum=True, log_weight_decay=True)],
    ),
    "changing accumulation": _kind(Classifier, callbacks=lambda: [GradientAccumulationScheduler({0: 2, 1: 3})]),
    "freezes and thaws": _kind(Freezes),
    "replaces buffers": _kind(ReplacesBuffers),
    "forward hook": _kind(Hooked),
    "draws everywhere": _kind(DrawsEverywhere),
    "nested LightningModule": _kind(Nested),
    "layers made in setup": _kind(SetUpLate),
    "returns a dict": _kind(ReturnsDict),
    "augments after transfer": _kind(TransferHooks),
    "value at epoch end": _kind(EpochEndValue),
    "weight normalisation": _kind(Parametrized),
    "tied weights": _kind(Tied),
    "several validation loaders": _kind(SeveralValidations, val=lambda: [validation(), validation()]),
    "no validation": _kind(TrainsOnly, val=lambda: None),
    "LSTM": _kind(Recurrent),
    "batches that are None": _kind(Classifier, lambda: DataLoader(rows(), batch_size=BATCH, collate_fn=whole)),
    "items that are batches": _kind(Classifier, lambda: DataLoader(Batches(), batch_size=None, shuffle=True)),
    "slices of an iterator": _kind(Classifier, Slices, trainer={"max_steps": 24}),
    "validation stream": _kind(Classifier, val=lambda: DataLoader(Stream(), batch_size=BATCH)),
    "endless validation stream": _kind(
        Classifier, val=lambda: DataLoader(EndlessStream(), batch_size=BATCH), trainer={"limit_val_batches": 3}
    ),
    "validation iterator": _kind(
        Classifier, val=lambda: iter(list(validation()) * 20), trainer={"limit_val_batches": 2}
    ),
    "validation side by side, shortest": _kind(SideBySide, val=lambda: CombinedLoader(two_validations(), "min_size")),
    "validation side by side, longest": _kind(SideBySide, val=lambda: CombinedLoader(two_validations(), "max_size")),
    "validation side by side, cycling": _kind(
        SideBySide, val=lambda: CombinedLoader(two_validations(), "max_size_cycle")
    ),
    "validation in turn": _kind(SeveralValidations, val=lambda: CombinedLoader(two_validations(), "sequential")),
    "mean of two validation loaders": _kind(MeanOfTwo, val=lambda: [validation(), plain()]),
    "looks at the loaders": _kind(LooksAtLoaders, plain),
    "calls by keyword": _kind(ByKeyword),
    "takes derivatives": _kind(TakesDerivatives, val=lambda: None),
    "validates by derivatives": _kind(ValidatesByDerivatives),
    "resizes buffers": _kind(ResizesBuffers),
    "collections of metrics": _kind(Collections, callbacks=lambda: [EarlyStopping("val_accuracy", mode="max")]),
    "queue and teacher": _kind(Teacher),
    "queue and teacher without validation": _kind(TeacherAlone, val=lambda: None),
    "counts on its class": Kind(module=counting_on_its_class),
    "writes beside the logs": _kind(WritesBesideTheLogs, trainer={"logger": True}),
    "returns its loss": _kind(ReturnsItsLoss),
    "sparse gradients": _kind(
        SparseBag,
        lambda: DataLoader(tokens(), batch_size=BATCH),
        val=lambda: DataLoader(tokens(32), batch_size=16),
        candidates=("sparse_adam", "adagrad"),
    ),
    "Muon composite": _kind(Classifier, candidates=("muon",)),
}

MODES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "accumulate 2": {"accumulate_grad_batches": 2},
    "clip by norm": {"gradient_clip_val": 0.5},
    "clip by value": {"gradient_clip_val": 0.1, "gradient_clip_algorithm": "value"},
    "max_steps": {"max_steps": 17, "max_epochs": -1},
    "limited batches": {"limit_train_batches": 7, "limit_val_batches": 1},
    "overfit batches": {"overfit_batches": 3},
    "validation in between": {"val_check_interval": 4},
    "reloaded each epoch": {"reload_dataloaders_every_n_epochs": 1},
}
