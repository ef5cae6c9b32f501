"""The comparison of ways to fine-tune: equal steps, the same data, and nothing run twice."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optselect.errors import ConfigurationError
from optselect.recipes.bench import sources
from optselect.recipes.bench.lightning_tuner import tune_backbone
from optselect.recipes.bench.methods import quiet
from optselect.recipes.bench.task import Splits, Task, orders, training_loader
from tests.benchmarks import fine_tuning
from tests.benchmarks.fine_tuning import METHODS, TASKS, Arena, Known, Result, Way, run


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(64, 16), nn.ReLU())
        self.head = nn.Linear(16, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        scores: Tensor = self.head(self.backbone(pixels))
        return scores


# Under the name of a real one, whose layers it does not have: all of it is head.
SMALL = Task(
    name="minilm-tuned",
    family="fine-tuning",
    summary="",
    read=sources.digits,
    sizes=(32, 32, 32),
    model=lambda _: Small(),
    loss=F.cross_entropy,
    batch_size=8,
    steps=6,
)


@pytest.fixture
def data(tmp_path: Path) -> Splits:
    return SMALL.splits(tmp_path)


def test_the_rate_falls_from_the_head_to_the_input_by_the_fixed_decay() -> None:
    task = TASKS["efficientnet-tuned"]
    model = task.new_model(0)
    stepped: list[torch.optim.Optimizer] = []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fine_tuning, "fit", lambda t, d, recipe, m, s: stepped.append(recipe.build(m, t.steps)[0]))
        fine_tuning._layered(task, 0.01, decay=0.9).train(task, Splits(train=(), val=(), test=()), model, 0)

    peak_of = {id(p): group["initial_lr"] for group in stepped[0].param_groups for p in group["params"]}
    rates = {name: peak_of[id(parameter)] for name, parameter in model.named_parameters()}
    assert rates["head.weight"] == 0.01
    assert rates["backbone._conv_head.weight"] == pytest.approx(0.01 * 0.9)
    assert rates["backbone._blocks.15._bn2.bias"] == pytest.approx(0.01 * 0.9**2)
    assert rates["backbone._conv_stem.weight"] == pytest.approx(0.01 * 0.9**18)


def test_lightnings_callback_sees_the_batches_of_the_bare_loop_and_as_many(data: Splits, tmp_path: Path) -> None:
    seen: list[Tensor] = []

    def loss(scores: Tensor, target: Tensor) -> Tensor:
        seen.append(target)
        return F.cross_entropy(scores, target)

    loader = training_loader(SMALL, data, seed=5)
    with quiet():
        tune_backbone(Small(), loss, loader, lr=0.01, steps=SMALL.steps, epoch=1, folder=str(tmp_path))

    bare = orders(32, 8, seed=5)
    assert len(seen) == SMALL.steps
    assert all(torch.equal(target, data.train[1][next(bare)]) for target in seen)


@pytest.mark.parametrize("steps, moved", [(4, False), (5, True)])
def test_lightnings_callback_holds_the_backbone_for_an_epoch(
    steps: int, moved: bool, data: Splits, tmp_path: Path
) -> None:
    model = Small()
    before = model.backbone.state_dict()["0.weight"].clone()

    with quiet():
        loader = training_loader(SMALL, data, seed=5)
        tune_backbone(model, F.cross_entropy, loader, lr=0.01, steps=steps, epoch=1, folder=str(tmp_path))

    assert torch.equal(model.backbone.state_dict()["0.weight"], before) is not moved


def test_the_one_that_ends_best_on_validation_data_is_kept_whatever_the_test_data_say(data: Splits) -> None:
    ends = {"good": Result(val=1, test=9, accuracy=0, seconds=0), "bad": Result(val=2, test=1, accuracy=1, seconds=0)}
    arena = Arena(task=SMALL, data=data, seed=0, run=lambda way: ends[way.name])

    choice = arena.best(Way(name=name, train=lambda *_: None) for name in ends)

    assert (choice.way, choice.trainings) == ("good", 2)


@pytest.mark.parametrize(
    "best, trainings",
    [(3e-5, 3), (1e-4, 4), (1e-5, 4), (3e-4, 5), (1e-6, 5), (1e-1, 9)],
    ids=str,
)
def test_a_sweep_goes_on_until_the_best_rate_has_a_worse_one_on_each_side(
    best: float, trainings: int, data: Splits
) -> None:
    def run(way: Way) -> Result:
        away = abs(math.log(float(way.name) / best))
        return Result(val=away, test=0, accuracy=0, seconds=0)

    arena = Arena(task=SMALL, data=data, seed=0, run=run)

    choice = arena.sweep(lambda lr: Way(name=str(lr), train=lambda *_: None))

    assert (float(choice.way), choice.trainings) == (best, trainings)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_a_small_model(name: str, data: Splits, tmp_path: Path) -> None:
    known = Known(tmp_path / "trainings.jsonl")
    arena = Arena(task=SMALL, data=data, seed=0, run=functools.partial(known.run, SMALL, data, 0))

    choice = METHODS[name](arena)

    assert choice.result.test > 0
    assert choice.trainings >= 1


def test_a_second_call_runs_nothing_and_prints_the_same_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    call = functools.partial(
        run,
        out=tmp_path,
        tasks=[replace(SMALL, steps=2)],
        methods=["one rate", "layer decay"],
        seeds=[0, 1],
        cache=tmp_path,
        say=said.append,
    )
    call()
    table = said[-1]
    monkeypatch.setattr(fine_tuning, "trained", None)

    call()

    assert said[-1] == table
    assert [len(line.split("|")) for line in table.splitlines()] == [8] * 4
    rows = [json.loads(line) for line in (tmp_path / "fine-tuning.jsonl").read_text().splitlines()]
    methods = ["one rate", "layer decay"]
    assert [(row["seed"], row["method"]) for row in rows] == [(seed, name) for seed in (0, 1) for name in methods]


def test_a_table_says_how_many_seeds_it_rests_on_and_gives_one_alone_no_spread() -> None:
    ends = {("a", 0): 1.0, ("a", 1): 3.0, ("b", 0): 2.0, ("b", 9): 7.0}
    rows = [
        {"task": "t", "method": name, "seed": seed, "trainings": 2, "result": {"test": loss, "accuracy": 0.5}}
        for (name, seed), loss in ends.items()
    ]

    table = fine_tuning.table(iter(rows), ["t"], ["a", "b", "none"], [0, 1])

    assert table.splitlines()[2:] == [
        "| t | a | 2 | 2.000 ± 1.414 | 0.500 ± 0.000 | 2.0 |",
        "| t | b | 1 | 2.000 | 0.500 | 2.0 |",
    ]


def test_a_method_that_there_is_not_is_named_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no method 'one rat'\. Did you mean 'one rate'"):
        run(out=tmp_path, tasks=[SMALL], methods=["one rat"], seeds=[0], cache=tmp_path)

    assert not list(tmp_path.iterdir())
