"""chemprop: a message-passing network that predicts a property of molecules."""

from __future__ import annotations

from typing import Any

import lightning as L
from chemprop import data, models, nn

from tests.packages.running import Run, loss_after_fit

MONITOR = "val_loss"
EPOCHS = 12


def molecules(run: Run, part: str, count: int) -> Any:
    """Chains of a few atoms; the property counts two kinds of them."""
    rng = run.draw(part)
    chains = ["C" + "".join(rng.choice(list("CCCNOS"), size=rng.integers(3, 12))) for _ in range(count)]
    worth = [[each.count("N") - 0.5 * each.count("O") + 0.1 * rng.normal()] for each in chains]
    points = [data.MoleculeDatapoint.from_smi(smi, y) for smi, y in zip(chains, worth, strict=True)]
    return data.MoleculeDataset(points)


def train(run: Run) -> float:
    sets = {part: molecules(run, part, count) for part, count in (("train", 160), ("val", 64), ("test", 256))}
    scaler = sets["train"].normalize_targets()
    sets["val"].normalize_targets(scaler)
    sets["test"].normalize_targets(scaler)
    loaders = {part: data.build_dataloader(each, 16, shuffle=part == "train") for part, each in sets.items()}
    model = models.MPNN(
        nn.BondMessagePassing(d_h=32, depth=2),
        nn.MeanAggregation(),
        nn.RegressionFFN(input_dim=32, hidden_dim=32),
        batch_norm=True,
        metrics=[nn.MSE()],
        warmup_epochs=1,
    )
    trainer = L.Trainer(**run.quiet, enable_checkpointing=False)
    return loss_after_fit(trainer, model, loaders)


def example(run: Run) -> dict[str, Any]:
    """Name what the page takes as the reader's own."""
    return {
        "train_loader": data.build_dataloader(molecules(run, "train", 64), 16),
        "val_loader": data.build_dataloader(molecules(run, "val", 32), 16, shuffle=False),
    }
