"""Writes the golden record anew: `python -m tests.laws.record [curves] [races] [searches] [fixtures]`.

Only for a change of behaviour that is wanted, and then what changed is to be read in the difference.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.laws.fixture_module import StopAfter, fit, standing
from tests.laws.playing import (
    GOLDEN,
    auto_optimizer,
    built,
    built_by,
    defaults_of,
    plain,
    plan_at,
    plan_of,
    play,
    search,
    write_plan,
)
from tests.laws.specs import BASELINE, RACES, SEARCHES
from tests.laws.trainings import CURVED, SEARCHED, Training, batches, built_as, own_optimizer

STEPS = 160
POINTS = (4, 8, 16, 24, 32, 40, 60, 80, 100, 120, 140, 160)
RATES = [10 ** (-2 + place / 2) for place in range(9)]
OPTIMIZERS = {
    "digits": ("adamw", "adam", "nadam", "muon", "momentum", "rmsprop", "adagrad"),
    "table": ("adamw", "nadam", "momentum", "rmsprop", "adagrad"),
    "tuned": ("adamw", "nadam", "momentum", "muon"),
}
POLICIES = [{"layer_decay": 0.5}, {"head_lr_ratio": 10.0, "thaw": [{"step": 16}]}]


def curve(task: str, configuration: Mapping[str, Any], seed: int) -> list[tuple[float, float]]:
    """Loss and accuracy on validation data, before the training and at each of the points."""
    training = CURVED[task](0)
    torch.manual_seed(seed)
    optimizer, scheduler = built(training.model, configuration, STEPS)
    found = [judged(training)]
    for step, batch in enumerate(batches(training.train, training.batch, seed=seed, count=STEPS), 1):
        optimizer.zero_grad()
        loss = training.loss(training.model(batch[0]), batch[1])
        if math.isfinite(float(loss)):
            loss.backward()
            optimizer.step()
        if scheduler is not None:
            scheduler.step()
        if step in POINTS:
            found.append(judged(training) if math.isfinite(float(loss)) else (math.nan, math.nan))
    return found


def judged(training: Training) -> tuple[float, float]:
    """Loss and accuracy on validation data."""
    inputs, targets = training.validation.tensors
    model: nn.Module = training.model.eval()
    with torch.no_grad():
        output = model(inputs)
    model.train()
    accuracy = math.nan if targets.is_floating_point() else float((output.argmax(1) == targets).double().mean())
    return float(training.loss(output, targets)), accuracy


def record_curves() -> None:
    """A grid of real trainings."""
    found: dict[str, Any] = {}
    for task, names in OPTIMIZERS.items():
        kinds: dict[str, Any] = {"constant": None, "cosine": None}
        if task == "tuned":
            kinds |= {f"policy {place}": policy for place, policy in enumerate(POLICIES)}
        grid = {
            name: _grid(task, name, {kind: policy for kind, policy in kinds.items() if _kept(task, name, kind)})
            for name in names
        }
        for place, what in enumerate(("", " accuracy") if task == "digits" else ("",)):
            start = [rounded(curve(task, BASELINE, seed)[0][place]) for seed in (0, 1)]
            found[task + what] = {
                "steps": STEPS,
                "points": POINTS,
                "untrained": start,
                "policies": POLICIES if task == "tuned" else [],
                "curves": {
                    name: {key: _part(values, place) for key, values in own.items() if _kept(task + what, name, key)}
                    for name, own in grid.items()
                },
            }
    write("curves.json", found, deep=4)


def _kept(task: str, name: str, kind: str) -> bool:
    """Of most tasks only the baseline is ever tried at a constant rate."""
    return kind != "constant" or name == "adamw" or task in ("digits", "table")


def _grid(task: str, name: str, kinds: Mapping[str, Any]) -> dict[str, Any]:
    values = defaults_of(name)
    rates = [float(f"{values['lr'] * rate:.5g}") for rate in RATES]
    found: dict[str, Any] = {"rates": rates}
    for kind, policy in kinds.items():
        shape = "constant" if kind == "constant" else "cosine"
        schedule = {"kind": shape, "warmup_steps": 0 if shape == "constant" else 4, "final": 0.0, "decay": 0.2}
        own = {"optimizer": name, "schedule": schedule, **({"fine_tuning": policy} if policy else {})}
        found[kind] = [
            [curve(task, {**own, "hyperparameters": {**values, "lr": rate}}, seed)[1:] for rate in rates]
            for seed in (0, 1)
        ]
        print(task, name, kind)  # noqa: T201  # a script
    return found


def _part(values: Any, place: int) -> Any:
    """The losses (0) or the accuracies (1) of a grid."""
    if isinstance(values, tuple):
        return rounded(values[place])
    return [_part(each, place) for each in values] if isinstance(values, list) else values


def rounded(value: float) -> float | None:
    """To five digits; None: not finite."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def record_races() -> None:
    """Every race of the specs."""
    for family, specs in RACES.items():
        write_entries(f"races_{family}.json", specs(), play)
    packages = ("optuna", "torch", "numpy", "scipy")
    write("gaussian_versions.json", {name: importlib.metadata.version(name) for name in packages}, deep=1)


def record_searches() -> None:
    """Every real search of the specs."""
    write_entries("searches.json", SEARCHES, search)


PLANS: Mapping[str, Any] = {
    "plan_v1": {"training": "clusters", "steps": 64, "budget": 2.5, "candidates": ["muon", "nadam"]},
    "plan_v1_user": SEARCHES["one's own optimizer alone"],
    "plan_v1_thaw": {
        "training": "trained",
        "steps": 96,
        "budget": 2.5,
        "candidates": ["momentum", "adamw"],
        "fine_tuning": {
            "head_lr_ratio": 5.0,
            "layer_decay": 0.8,
            "thaw": [{"step": 4, "layers": 1}, {"share": 0.1, "parameters": ["first"]}],
        },
    },
}


def record_fixtures() -> None:
    """Plans and a checkpoint, as this version writes them."""
    found = {}
    for name, spec in PLANS.items():
        write_plan(plan_of(spec, SEARCHED[spec["training"]](0)), GOLDEN / f"{name}.json")
        plan = plan_at(GOLDEN / f"{name}.json")
        made = built_by(plan, SEARCHED[spec["training"]](0).model, own_optimizer("slow momentum"))
        found[name] = {"training": spec["training"], "built": built_as(*made)}
    write("built_v1.json", found, deep=2)
    path = GOLDEN / "checkpoint_v1.pt"
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        callback = auto_optimizer(Path(folder))
        torch.manual_seed(13)
        trainer, module = fit(callback, StopAfter(1))
        trainer.save_checkpoint(path)
        midst = standing(trainer, module)
        end = standing(*fit(auto_optimizer(Path(folder)), ckpt_path=path))
    write("checkpoint_v1.json", {"in its midst": midst, "at its end": end}, deep=2)


def write_entries(name: str, specs: Mapping[str, Any], play: Callable[[Any], Any]) -> None:
    """Every spec, as far as it differs from the first, with what comes of it."""
    begun = time.perf_counter()
    usual = plain(next(iter(specs.values())))
    table: list[str] = []
    entries = {}
    for key, spec in specs.items():
        own = {word: value for word, value in plain(spec).items() if word not in usual or value != usual[word]}
        entries[key] = packed({"spec": own, "golden": plain(play(spec))}, table)
    usual = packed(usual, table)
    # A place in the table is a string like any other there.
    write(name, {"usual": usual, "table": list(map(json.loads, table)), "entries": entries}, deep=3)
    print(name, len(entries), f"{time.perf_counter() - begun:.1f} s")  # noqa: T201  # a script


def packed(data: Any, table: list[str]) -> Any:
    """`data` with its sentences and configurations as places in `table`: most stand there many times."""
    if isinstance(data, list):
        return [packed(each, table) for each in data]
    if isinstance(data, dict):
        data = {key: packed(value, table) for key, value in data.items()}
    if not (len(data) > 16 if isinstance(data, str) else isinstance(data, dict) and "optimizer" in data):
        return data
    text = json.dumps(data)
    if text not in table:
        table.append(text)
    return f"@{table.index(text)}"


def write(name: str, data: Any, *, deep: int) -> None:
    """As JSON, a line for every entry down to the level `deep`."""
    (GOLDEN / name).write_text("".join(_lines(data, deep, "")) + "\n", encoding="utf-8")


def _lines(data: Any, deep: int, indent: str) -> Iterator[str]:
    if not deep or not data or not isinstance(data, dict | list):
        yield json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return
    inner = indent + " "
    items = data.items() if isinstance(data, dict) else ((None, each) for each in data)
    yield "{" if isinstance(data, dict) else "["
    for place, (key, value) in enumerate(items):
        yield f"{',' if place else ''}\n{inner}"
        yield "" if key is None else f"{json.dumps(key, ensure_ascii=False)}: "
        yield from _lines(value, deep - 1, inner)
    yield f"\n{indent}{'}' if isinstance(data, dict) else ']'}"


def main(words: list[str]) -> None:
    """Record what is asked for, or all."""
    torch.set_num_threads(1)
    parts = {
        "curves": record_curves,
        "races": record_races,
        "searches": record_searches,
        "fixtures": record_fixtures,
    }
    for name, part in parts.items():
        if not words or name in words:
            part()


if __name__ == "__main__":
    main(sys.argv[1:])
