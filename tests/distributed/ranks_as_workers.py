"""What it takes to try a different arm on each process of a DDP training.

`python ranks_as_workers.py PROCESSES WIDTH SHARE STEPS`: twelve arms are tried for so many steps each on images of
digits, with a model of that width, `SHARE` rows of a batch for each process, in four ways:

lock-step   one arm after another on all processes, each with its share of every batch
whole       an arm on each process, which goes through all shares of every batch and takes their mean gradient
together    the same, all shares in one pass
own share   an arm on each process, which sees its own share of every batch alone

Each line gives the seconds of a process, by the clock and of the processor, and how the values differ from those in
lock-step. The figures are in docs/decisions; nothing here is a test.
"""

from __future__ import annotations

import copy
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

SEEDS = 5
ARMS = [
    *(("adamw", rate) for rate in (3e-4, 6e-4, 1.2e-3, 2.5e-3, 5e-3, 1e-2)),
    *(("momentum", rate) for rate in (5e-3, 1e-2, 2e-2, 4e-2, 8e-2, 0.16)),
]
Arm = tuple[str, float]
Values = list[float]
Steps = Sequence[Sequence[tuple[Tensor, Tensor]]]


@dataclass(frozen=True, kw_only=True)
class Size:
    """Processes, the width of the model, rows of a batch for each process, and steps of a trial."""

    processes: int
    width: int
    share: int
    steps: int


class Task:
    """A model to begin with, its batches by step and share, and images to judge by."""

    def __init__(self, size: Size, seed: int) -> None:
        torch.manual_seed(seed)
        width = size.width
        layers = [nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)]
        self.model = nn.Sequential(*layers)
        images, digits = load_digits(return_X_y=True)
        rows, classes = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(digits)
        order = torch.randperm(len(rows))
        held, rest = order[:400], order[400:]
        self.judged_by = rows[held], classes[held]
        drawn = rest[torch.randint(len(rest), (size.steps, size.processes, size.share))]
        self.shares = [[(rows[at], classes[at]) for at in step] for step in drawn]

    def of(self, rank: int) -> Steps:
        """Return the share of one process."""
        return [[step[rank]] for step in self.shares]

    def arms(self, rank: int) -> Sequence[Arm]:
        """Return what one process tries."""
        return ARMS[rank :: len(self.shares[0])]

    def value(self, arm: Arm, steps: Steps, wrapped: Callable[[nn.Module], nn.Module]) -> float:
        """Train a copy with `arm`, each step on the mean gradient of its passes, and judge it."""
        name, rate = arm
        model = copy.deepcopy(self.model)
        trained = wrapped(model)
        parameters = model.parameters()
        optimizer: torch.optim.Optimizer = (
            torch.optim.AdamW(parameters, lr=rate)
            if name == "adamw"
            else torch.optim.SGD(parameters, lr=rate, momentum=0.9)
        )
        for passes in steps:
            optimizer.zero_grad()
            for rows, classes in passes:
                (F.cross_entropy(trained(rows), classes) / len(passes)).backward()
            optimizer.step()
        with torch.no_grad():
            return float(F.cross_entropy(model(self.judged_by[0]), self.judged_by[1]))


def lock_step(task: Task, rank: int) -> Values:
    return [task.value(arm, task.of(rank), DistributedDataParallel) for arm in ARMS]


def whole(task: Task, rank: int) -> Values:
    return _gathered([task.value(arm, task.shares, _plain) for arm in task.arms(rank)])


def together(task: Task, rank: int) -> Values:
    steps = [[(torch.cat([rows for rows, _ in step]), torch.cat([each for _, each in step]))] for step in task.shares]
    return _gathered([task.value(arm, steps, _plain) for arm in task.arms(rank)])


def own_share(task: Task, rank: int) -> Values:
    return _gathered([task.value(arm, task.of(rank), _plain) for arm in task.arms(rank)])


def _plain(model: nn.Module) -> nn.Module:
    return model


def _gathered(mine: Values) -> Values:
    parts = [torch.zeros(len(mine), dtype=torch.float64) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, torch.tensor(mine, dtype=torch.float64))
    return [float(value) for value in torch.stack(parts, 1).flatten()]


def run(rank: int, port: int, size: Size) -> None:
    """Try the arms in each way, with several seeds."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=size.processes)
    ways = (lock_step, whole, together, own_share)
    clock, processor = ({way.__name__: 0.0 for way in ways} for _ in range(2))
    values: dict[str, list[Tensor]] = {way.__name__: [] for way in ways}
    for seed in range(SEEDS):
        task = Task(size, seed)
        for way in ways:
            distributed.barrier()
            begun = time.monotonic(), time.process_time()
            values[way.__name__].append(torch.tensor(way(task, rank), dtype=torch.float64))
            clock[way.__name__] += time.monotonic() - begun[0]
            processor[way.__name__] += time.process_time() - begun[1]
    if rank == 0:
        for name, found in values.items():
            pairs = list(zip(values["lock_step"], found, strict=True))
            off = max(float(((there - here).abs() / there).max()) for there, here in pairs)
            same = sum(int(there.argmin()) == int(here.argmin()) for there, here in pairs)
            # How much worse in lock-step than the best arm there is the one that looks best in this way.
            loss = sum(float(there[here.argmin()] / there.min() - 1) for there, here in pairs) / len(pairs)
            taken = f"{clock[name] / SEEDS:.1f} s, {processor[name] / SEEDS:.1f} s of the processor"
            said = f"{name}: {taken}, values off by {off:.1e} at most, best arm the same {same} times of {SEEDS}"
            sys.stdout.write(f"{said}, {loss:.1%} worse on average\n")
    distributed.destroy_process_group()


def main(size: Size) -> None:
    """Start so many processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(run, args=(port, size), nprocs=size.processes)


if __name__ == "__main__":
    given = dict(zip(("processes", "width", "share", "steps"), map(int, sys.argv[1:]), strict=True))
    main(Size(**given))
