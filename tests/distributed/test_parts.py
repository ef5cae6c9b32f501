"""What the catalogue says of weights that are cut over processes, by running it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import Parameter

from optselect import catalogue
from optselect.catalogue import OptimizerSpec

# Muon multiplies matrices in bfloat16, of which a number has eight bits: added up in another order they differ so much.
BFLOAT16 = 0.02


def test_an_entry_that_trains_distributed_tensors_moves_them_as_whole_ones(tmp_path: Path) -> None:
    script = Path(__file__).parent / "parts_run.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}

    done = subprocess.run(
        [*command, str(script), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    differences = json.loads((tmp_path / "parts.json").read_text())
    assert differences.keys() == {name for name in catalogue.names() if "tensors" in catalogue.get(name).parts}
    assert {name: value for name, value in differences.items() if value > (BFLOAT16 if name == "muon" else 1e-6)} == {}


def moved(spec: OptimizerSpec, pieces: int) -> torch.Tensor:
    """How a vector of twelve numbers ends that one optimizer has in so many pieces."""
    generator = torch.Generator().manual_seed(0)
    parameters = [Parameter(each.clone()) for each in torch.randn(12, generator=generator).tensor_split(pieces)]
    optimizer = spec.load()(parameters[:1], **spec.arguments(spec.defaults()))
    others = [spec.load()([each], **spec.arguments(spec.defaults())) for each in parameters[1:]]
    for each in (optimizer, *others):
        if spec.train_eval:
            each.train()
    for _ in range(4):
        for parameter, gradient in zip(
            parameters, torch.randn(12, generator=generator).tensor_split(pieces), strict=True
        ):
            parameter.grad = gradient.clone()
        for each in (optimizer, *others):
            each.step()
    return torch.cat([each.detach() for each in parameters])


@pytest.mark.parametrize("name", [name for name in catalogue.names() if "flat" in catalogue.get(name).parts])
def test_an_entry_that_trains_flat_pieces_moves_each_number_by_itself(name: str) -> None:
    spec = catalogue.get(name)

    assert torch.equal(moved(spec, 1), moved(spec, 5))
