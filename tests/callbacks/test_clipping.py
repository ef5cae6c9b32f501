"""Clipping sparse gradients, which crashes by hand, equals a loop that clips coalesced values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from tests.support.modules import BATCH, SparseClassifier, auto, fit, made, tokens


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_clipped_sparse_training_equals_a_loop_over_coalesced_values(algorithm: str, tmp_path: Path) -> None:
    limit = 0.05

    def data() -> Any:
        return DataLoader(tokens(), batch_size=BATCH), DataLoader(tokens(32), batch_size=16)

    clipped, callback = made(SparseClassifier), auto(tmp_path, candidates=["adagrad", "sparse_adam"])
    trainer = fit(clipped, callback, data=data(), gradient_clip_val=limit, gradient_clip_algorithm=algorithm)
    assert callback.plan is not None

    model = made(SparseClassifier)
    optimizer, scheduler = callback.plan.build(model)
    torch.manual_seed(1)
    for _ in range(2):
        for inputs, targets in data()[0]:
            optimizer.zero_grad()
            F.cross_entropy(model.net(model.bag(inputs)), targets).backward()
            model.bag.weight.grad = model.bag.weight.grad.coalesce()
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
            values = [grad._values() if grad.is_sparse else grad for grad in gradients]
            if algorithm == "norm":
                norms = [torch.linalg.vector_norm(value) for value in values]
                norm = torch.linalg.vector_norm(torch.stack(norms))
                for value in values:
                    value.mul_((limit / (norm + 1e-6)).clamp(max=1.0))
            else:
                for value in values:
                    value.clamp_(-limit, limit)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()

    assert all(torch.equal(p, q) for p, q in zip(clipped.parameters(), model.parameters(), strict=True))
    assert "clip_grad_by_norm" not in vars(trainer.precision_plugin)
