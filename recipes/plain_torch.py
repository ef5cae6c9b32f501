"""The same choice in a plain PyTorch loop, without Lightning.

    python -m optselect.recipes.plain_torch

It has no YAML: a loop of one's own is its own configuration.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from optselect import Budget, TorchWorkload, select


def main(steps: int = 400) -> None:
    """Choose an optimizer for `steps` steps, then take them."""
    torch.manual_seed(0)

    digits = load_digits()
    pixels = torch.tensor(digits.data / 16, dtype=torch.float32)
    digit = torch.tensor(digits.target)
    train, val = train_test_split(range(len(digit)), train_size=1280, stratify=digit, random_state=0)
    train_loader = DataLoader(TensorDataset(pixels[train], digit[train]), batch_size=64, shuffle=True)
    val_loader = DataLoader(TensorDataset(pixels[val], digit[val]), batch_size=len(val))
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))

    # The model comes back as it was, weight by weight; so do torch's random numbers.
    workload = TorchWorkload(model, F.cross_entropy, train_loader, val_loader, steps=steps)
    plan = select(workload, budget=Budget(steps=4 * steps))
    print(plan.explain())

    # Keep the plan with your checkpoints: `OptimizerPlan.load("plan.json")` builds the same optimizer again.
    plan.save("plan.json")
    optimizer, scheduler = plan.build(model)

    step = 0
    while step < steps:
        model.train()
        for inputs, target in train_loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), target)
            loss.backward()
            optimizer.step()
            # Once per optimizer step, not per epoch. There is none where the rate is constant.
            if scheduler is not None:
                scheduler.step()
            step += 1
            if step == steps:
                break

        model.eval()
        with torch.no_grad():
            inputs, target = next(iter(val_loader))
            scores = model(inputs)
        val_loss = F.cross_entropy(scores, target).item()
        accuracy = (scores.argmax(dim=1) == target).float().mean().item()
        print(f"step {step}: validation loss {val_loss:.4f}, accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
