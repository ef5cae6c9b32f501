"""transformers and peft: adapters in a tiny BERT, of which they and the classifier alone are trained."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from transformers import BertConfig, BertForSequenceClassification

from tests.packages.running import Run, loss_after_fit

MONITOR = None
EPOCHS = 6
WORDS = 50


def tiny_bert() -> Any:
    """Make the packages' model, small and untrained."""
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return BertForSequenceClassification(BertConfig(vocab_size=WORDS, max_position_embeddings=16, **shape))


class Net(L.LightningModule):
    """The packages' model and its own loss."""

    def __init__(self) -> None:
        super().__init__()
        adapters = LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, target_modules=["query", "value"])
        self.net = get_peft_model(tiny_bert(), adapters)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss: Tensor = self.net(input_ids=batch[0], labels=batch[1]).loss
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.net(input_ids=batch[0], labels=batch[1]).loss)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW([each for each in self.parameters() if each.requires_grad], lr=2e-3)


def sentences(run: Run, part: str, count: int) -> TensorDataset:
    """Eight words, of which those below ten speak for the one class."""
    words = torch.as_tensor(run.draw(part).integers(1, WORDS, size=(count, 8)))
    return TensorDataset(words, (words < 10).any(1).long())


def train(run: Run) -> float:
    loaders = {
        part: DataLoader(sentences(run, part, count), batch_size=16, shuffle=part == "train")
        for part, count in (("train", 256), ("val", 128), ("test", 512))
    }
    model = Net()
    trainer = L.Trainer(**run.quiet, enable_checkpointing=False)
    return loss_after_fit(trainer, model, loaders)


def example(run: Run) -> dict[str, Any]:
    """Name what the page takes as the reader's own."""
    return {
        "bert": tiny_bert(),
        "train_loader": DataLoader(sentences(run, "train", 64), batch_size=16, shuffle=True),
        "val_loader": DataLoader(sentences(run, "val", 32), batch_size=16),
    }
