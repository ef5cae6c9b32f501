"""What tells one training from another: data, weights, code, the user's own optimizer."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from optselect.workload.code import code_digest
from optselect.workload.identity import can_be_indexed, data_identity, model_identity, optimizer_facts, plain
from tests.support.cases import case
from tests.support.small import net

CODE = '''
import torch
from torch import nn

SCALE = 2.0


def helper(x):
    """Says something."""
    return x + 1


def unrelated(x):
    return x


class Base(nn.Module):
    def forward(self, x):
        return helper(x)  # a comment


class Net(Base):
    """What it is."""

    rate = 0.1

    def training_step(self, x):
        return self(x) * 2
'''
UNTOUCHED = {
    "itself": ("", ""),
    "a comment": ("# a comment", "# another one"),
    "a docstring": ("Says something", "Says it otherwise"),
    "the docstring of the class": ('    """What it is."""\n', ""),
    "something else in the file": ("def unrelated(x):\n    return x", "def unrelated(x):\n    return x * 9"),
    "more in the file": ("SCALE = 2.0", "SCALE = 2.0\n\n\n\nclass Other:\n    pass"),
    "blank lines": ("class Net", "\n\n\nclass Net"),
}
TOUCHED = {
    "a method": ("self(x) * 2", "self(x) * 3"),
    "a base class": ("return helper(x)", "return helper(x) * 2"),
    "what a base class calls": ("return x + 1", "return x - 1"),
    "a class attribute": ("rate = 0.1", "rate = 0.2"),
    "a new method": ("rate = 0.1", "rate = 0.1\n\n    def validation_step(self, x):\n        return x"),
}


def written(folder: Path, name: str, text: str) -> ModuleType:
    file = folder / f"{name}.py"
    file.write_text(text)
    spec = importlib.util.spec_from_file_location("users_code", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys  # noqa: PLC0415  # the module is to be found where Python looks for the source of a class

    sys.modules["users_code"] = module
    spec.loader.exec_module(module)
    return module


def digest(folder: Path, name: str, text: str) -> str:
    return code_digest([written(folder, name.replace(" ", "_"), text).Net])


def test_what_does_not_run_does_not_change_the_code(tmp_path: Path) -> None:
    before = digest(tmp_path, "before", CODE)

    for name, (old, new) in UNTOUCHED.items():
        with case(name):
            assert old in CODE
            assert digest(tmp_path, name, CODE.replace(old, new)) == before


def test_what_the_class_runs_is_its_code(tmp_path: Path) -> None:
    before = digest(tmp_path, "before", CODE)

    for name, (old, new) in TOUCHED.items():
        with case(name):
            assert old in CODE
            assert digest(tmp_path, name, CODE.replace(old, new)) != before


def test_code_without_a_source_is_known_by_its_instructions() -> None:
    def made(step: str) -> Any:
        space: dict[str, Any] = {"__name__": "nowhere"}
        exec(f"class Net:\n    def step(self, x):\n        return {step}", space)  # noqa: S102  # as a notebook may
        return space["Net"]

    assert code_digest([made("x + 1")]) == code_digest([made("x + 1")])
    assert code_digest([made("x + 1")]) != code_digest([made("x + 2")])


def test_what_a_class_attribute_is_set_to_later_is_not_its_code(tmp_path: Path) -> None:
    module = written(tmp_path, "counting", CODE)
    before = code_digest([module.Net])

    module.Net.rate = 7.0

    assert code_digest([module.Net]) == before


# --- data -----------------------------------------------------------------------------------------

INPUTS = torch.randn(5_000, 6, generator=torch.Generator().manual_seed(0))
LABELS = (INPUTS.sum(1) > 0).long()


class Rows(Dataset[Any]):
    """Rows of any kind, one by one."""

    def __init__(self, row: Callable[[int], Any], count: int = 200) -> None:
        self.row, self.count = row, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.row(index)


def tensors(inputs: Any = INPUTS, labels: Any = LABELS) -> TensorDataset:
    return TensorDataset(inputs, labels)


def some_mended(share: float) -> TensorDataset:
    wrong = torch.rand(len(LABELS), generator=torch.Generator().manual_seed(3)) < share
    return tensors(labels=torch.where(wrong, 1 - LABELS, LABELS))


OTHER_DATA: dict[str, Callable[[], Any]] = {
    "labels mended": lambda: some_mended(0.02),
    "inputs scaled": lambda: tensors(INPUTS * 1.01),
    "inputs shifted a little": lambda: tensors(INPUTS + 0.01),
    "another fold of the same size": lambda: Subset(tensors(), range(1, 4_001)),
    "the middle changed": lambda: tensors(torch.cat([INPUTS[:2_000], INPUTS[2_000:3_000] * 2, INPUTS[3_000:]])),
    "one row more": lambda: tensors(torch.cat([INPUTS, INPUTS[:1]]), torch.cat([LABELS, LABELS[:1]])),
    "another type": lambda: tensors(INPUTS.long()),
    "missing values": lambda: tensors(torch.where(INPUTS > 1, torch.nan, INPUTS)),
}


def known(dataset: Any, **options: Any) -> Any:
    return data_identity("data", [DataLoader(dataset, batch_size=8, **options)])


def test_other_data_are_another_training() -> None:
    whole, fold = known(tensors()), known(Subset(tensors(), range(4_000)))

    for name, dataset in OTHER_DATA.items():
        with case(name):
            before = fold if "fold" in name else whole
            assert before.differences(known(dataset())) == ["data"]


def test_the_same_data_rounded_otherwise_are_the_same() -> None:
    assert known(tensors()).differences(known(tensors(INPUTS * (1 + 1e-7)))) == []


ROWS: dict[str, tuple[Callable[[int], Any], Callable[[int], Any]]] = {
    "dictionaries": (lambda i: {"x": torch.ones(3) * i}, lambda i: {"x": torch.ones(3) * (i + 1)}),
    "arrays": (lambda i: np.full(3, i), lambda i: np.full(3, i + 1)),
    "words": (lambda i: (f"word {i}", i), lambda i: (f"words {i}", i)),
    "numbers": (lambda i: (0.5 * i, 1), lambda i: (0.6 * i, 1)),
    "objects": (lambda i: PurePosixPath(f"/{i}"), lambda i: torch.ones(1)),
    "sparse tensors": (lambda i: torch.eye(3).to_sparse() * i, lambda i: torch.eye(3).to_sparse() * (i + 1)),
    "bytes": (lambda i: torch.full((3, 4), i, dtype=torch.uint8), lambda i: torch.full((3, 4), i + 1).byte()),
    "half precision": (lambda i: torch.ones(3).bfloat16() * i, lambda i: torch.ones(3).bfloat16() * (i + 1)),
}


def test_rows_of_every_kind_are_looked_at() -> None:
    for name, (one, other) in ROWS.items():
        with case(name):
            assert known(Rows(one)).differences(known(Rows(one))) == []
            assert known(Rows(one)).differences(known(Rows(other))) == ["data"]


class Stream(IterableDataset[Any]):
    """Inherits `__getitem__`, which raises."""

    def __iter__(self) -> Iterator[Any]:
        return iter([torch.ones(2)])


def test_a_stream_is_known_by_its_first_batch() -> None:
    loader = DataLoader(Stream())
    one, same, other = (data_identity("data", [loader], [[torch.full((2,), value)]]) for value in (1.0, 1.0, 2.0))

    assert not can_be_indexed(loader)
    assert one.differences(same) == []
    assert one.differences(other) == ["data"]


def test_rows_that_come_out_otherwise_each_time_do_not_count() -> None:
    entropy = np.random.default_rng()

    rows = [known(Rows(lambda _: entropy.random())) for _ in range(2)]

    assert rows[0].differences(rows[1]) == []


def test_how_rows_become_batches_counts() -> None:
    others = {"shuffled": {"shuffle": True}, "whole batches": {"drop_last": True}}

    for name, options in others.items():
        with case(name):
            assert known(tensors()).differences(known(tensors(), **options)) == ["data"]


def test_no_more_than_a_bounded_number_of_rows_is_read() -> None:
    read: list[int] = []

    def row(index: int) -> Any:
        read.append(index)
        return torch.ones(1)

    known(Rows(row, count=10**9))

    assert len(read) < 100


# --- models and optimizers ------------------------------------------------------------------------


def test_another_model_is_another_training() -> None:
    def changed(change: Callable[[Any], object]) -> nn.Module:
        model = net()
        change(model)
        return model

    others: dict[str, Callable[[Any], object]] = {
        "weights": lambda model: nn.init.ones_(model.head.weight),
        "dropout": lambda model: setattr(model.body[3], "p", 0.5),
        "an activation": lambda model: model.body.__setitem__(2, nn.GELU()),
        "a frozen layer": lambda model: model.head.requires_grad_(False),
        "a buffer": lambda model: model.body[1].running_mean.add_(1),
        "another momentum": lambda model: setattr(model.body[1], "momentum", 0.3),
    }

    assert model_identity(net()).differences(model_identity(net())) == []
    for name, change in others.items():
        with case(name):
            assert model_identity(net()).differences(model_identity(changed(change)))


def test_the_users_own_optimizer_is_known_by_all_its_numbers() -> None:
    def facts(kind: Any = torch.optim.Adam, schedule: Any = None, groups: Any = None, **options: Any) -> Any:
        model = nn.Linear(3, 2)
        optimizer = kind(model.parameters() if groups is None else groups(model), **{"lr": 1e-3, **options})
        return optimizer_facts([optimizer], [] if schedule is None else [schedule(optimizer)])

    others = {
        "its class": facts(torch.optim.AdamW),
        "its rate": facts(lr=2e-3),
        "its betas": facts(betas=(0.8, 0.999)),
        "its decay": facts(weight_decay=0.1),
        "its groups": facts(groups=lambda model: [{"params": [each]} for each in model.parameters()]),
        "a group's rate": facts(groups=lambda model: [{"params": list(model.parameters()), "lr": 3e-3}]),
        "a scheduler": facts(schedule=lambda own: lr_scheduler.StepLR(own, 10)),
        "its scheduler's number": facts(schedule=lambda own: lr_scheduler.StepLR(own, 20)),
        "its scheduler's function": facts(schedule=lambda own: lr_scheduler.LambdaLR(own, lambda step: 1 / (step + 1))),
        "another function": facts(schedule=lambda own: lr_scheduler.LambdaLR(own, lambda step: 1 / (step + 2))),
        "schedulers in a row": facts(
            schedule=lambda own: lr_scheduler.SequentialLR(
                own, [lr_scheduler.ConstantLR(own), lr_scheduler.ExponentialLR(own, 0.9)], [5]
            )
        ),
    }

    assert facts() == facts(foreach=True)
    assert len({repr(each) for each in (facts(), *others.values())}) == len(others) + 1


def test_hyperparameters_are_said_the_same_on_every_machine() -> None:
    here = {"data": "/home/me/data/train.csv", "cache": Path("/one/cache"), "net": nn.Linear(1, 1), "lr": 0.1}
    there = {"data": "/scratch/you/train.csv", "cache": Path("/var/cache"), "net": nn.Linear(1, 1), "lr": 0.1 + 1e-17}

    assert plain(here) == plain(there)
    assert plain(here) != plain({**here, "lr": 0.2})
