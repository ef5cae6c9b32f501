"""Each entry of the catalogue on DTensors over two processes and on whole tensors: `python parts_run.py FOLDER`.

Run by torchrun. The first process writes into FOLDER/parts.json, for each entry that says it trains them, the largest
difference of a step's sum beside its size.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.nn import Parameter

from optselect import catalogue

# Five rows: the processes have parts of different sizes.
SHAPES = [(5, 6), (16, 6), (3,), (32, 32)]
STEPS = 6


def moved(name: str, cut: int | None) -> list[Tensor]:
    """How far the entry's optimizer moves weights that are cut along a dimension; None: that are whole."""
    spec = catalogue.get(name)
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))

    def given(whole: Tensor) -> Tensor:
        return whole if cut is None else distribute_tensor(whole, mesh, [Shard(min(cut, whole.ndim - 1))])

    generator = torch.Generator().manual_seed(0)
    shapes = [shape for shape in SHAPES if spec.ndim in (None, len(shape))]
    weights = [torch.randn(shape, generator=generator) for shape in shapes]
    parameters = [Parameter(given(weight.clone())) for weight in weights]
    optimizer = spec.load()(parameters, **spec.arguments(spec.defaults()))
    if spec.train_eval:
        optimizer.train()
    for _ in range(STEPS):
        for parameter, shape in zip(parameters, shapes, strict=True):
            parameter.grad = given(torch.randn(shape, generator=generator))
        optimizer.step()
    ended = [each.full_tensor() if isinstance(each, DTensor) else each for each in parameters]
    return [(after - before).detach() for after, before in zip(ended, weights, strict=True)]


def main(folder: Path) -> None:
    """Each entry, cut along both dimensions."""
    distributed.init_process_group("gloo")
    found = {}
    for name in catalogue.names():
        if "tensors" not in catalogue.get(name).parts:
            continue
        whole = moved(name, None)
        pairs = [pair for cut in (0, 1) for pair in zip(moved(name, cut), whole, strict=True)]
        found[name] = max(float((one - other).norm() / other.norm()) for one, other in pairs)
    if distributed.get_rank() == 0:
        (folder / "parts.json").write_text(json.dumps(found))
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
