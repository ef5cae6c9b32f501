"""The public repositories of recorded trainings, and how each becomes records. Reads local clones, no network."""

from __future__ import annotations

import ast
import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from optselect.errors import ConfigurationError
from optselect.recipes.records.store import Record, rounded
from optselect.rules.large_trainings import Source

MOST_POINTS, MOST_EPOCHS, LEAST_POINTS = 60, 40, 3


# --- AlgoPerf ---------------------------------------------------------------------------------------------


def algoperf(clone: Path) -> Iterator[Record]:
    """Every trial of the two finished leaderboards that was evaluated three times or more.

    A point of its curve: step, validation metric, training loss (where it was not measured, training metric), seconds.
    """
    workloads = _json(clone / "scoring" / "workload_targets_v05.json")["workloads"]
    for path in _found(clone, "previous_leaderboards/*/logs/*/*/*/*/*/eval_measurements.csv"):
        board, _, track, submission, study, workload, trial = path.parent.parts[-7:]
        task, _, framework = workload.rpartition("_")
        known = workloads[task]
        metric = known["target_metric_name"]
        curve = [_evaluation(row, metric) for row in _csv(path)]
        hyperparameters = path.with_name("hparams.json")
        if len(curve) >= LEAST_POINTS:
            yield {
                "source": board,
                "track": track,
                "submission": submission,
                "study": study,
                "trial": trial,
                "task": task,
                "framework": framework,
                "metric": metric,
                "goal": "min" if metric in {"loss", "wer", "ppl"} else "max",
                "target": known["validation_target_value"],
                "step_hint": known["step_hint"],
                "hp": _json(hyperparameters) if hyperparameters.exists() else None,
                "curve": _thinned(curve, MOST_POINTS),
            }


def _evaluation(row: Mapping[str, str], metric: str) -> list[float | None]:
    trained = "train/loss" if "train/loss" in row else f"train/{metric}"
    columns = (f"validation/{metric}", trained, "accumulated_submission_time")
    return [int(float(row["global_step"])), *(rounded(_number(row.get(column))) for column in columns)]


def _thinned(curve: list[Any], most: int) -> list[Any]:
    """Keep `most` points, evenly, the first and the last among them."""
    last = len(curve) - 1
    return curve if last < most else [curve[round(index * last / (most - 1))] for index in range(most)]


# --- language models --------------------------------------------------------------------------------------


def marin(clone: Path) -> Iterator[Record]:
    """Every sweep's best configuration and one-dimensional changes around it. A final loss of null diverged."""
    for path in _found(clone, "experiments/optimizer_sweep/Analysis/Results/*/*/*/result.json"):
        optimizer, size, ratio = path.parent.parts[-3:]
        sweep = _json(path)
        for varied, final in sweep["result"].items():
            if final is not None:  # it was never run
                name, _, value = varied.partition("=")
                changed = {name: _literal(value)} if value else {}
                yield {
                    "source": "marin",
                    "task": f"c4 {size} {ratio}x chinchilla",
                    "size": size,
                    "chinchilla": int(ratio),
                    "optimizer": optimizer,
                    "varied": varied,
                    "hp": sweep["best_config"] | changed,
                    "final": rounded(float(final)),
                }


def steplaw(clone: Path) -> Iterator[Record]:
    """Every dense model: rate, batch in sequences of 2,048 tokens, steps, smoothed final loss."""
    for row in _csv(_one(clone, "data/dense_lr_bs_loss.csv")):
        parameters, tokens = float(row["N"]), float(row["D"])
        yield {
            "source": "steplaw",
            "task": f"dense N={parameters:.3g} D={tokens:.3g}",
            "N": parameters,
            "D": tokens,
            "optimizer": "adamw",
            "lr": float(row["lr"]),
            "batch_sequences": int(float(row["bs"])),
            "sequence": 2048,
            "steps": int(float(row["ti"])),
            "final": rounded(_number(row["smooth loss"])),
        }


# --- random search and constant rates ---------------------------------------------------------------------

_OPDA = {
    "alexnet": "data/alexnet/alexnet_tuning.results.jsonl",
    "convnext-t": "data/convnext/convnext-tiny_tuning.results.jsonl",
    "deberta-base": "data/deberta/deberta-base_tuning.results.jsonl",
    "deberta-v3-base": "data/deberta/deberta-v3-base_tuning.results.jsonl",
}


def opda(clone: Path) -> Iterator[Record]:
    """Every random configuration: a point an epoch (ImageNet), or every 1,000 steps (MultiNLI, matched)."""
    for task, file in _OPDA.items():
        for line in _one(clone, file).read_text("utf-8").splitlines():
            found = json.loads(line)
            epochs, matched = found.pop("learning_curve", []), found.pop("learning_curves", {}).get("matched", [])
            curve = [_measured(point) for point in _thinned(epochs, MOST_EPOCHS)]
            yield {
                "source": "opda",
                "task": task,
                "metric": "accuracy" if matched else "top_1",
                "goal": "max",
                "hp": _measured(found),
                "curve": curve or [{"step": step, "accuracy": rounded(accuracy)} for step, accuracy in matched],
            }


def deepobs(clone: Path) -> Iterator[Record]:
    """Every constant rate of the three optimizers, first of its seeds: a point an epoch, the untrained model first."""
    for folder in sorted({path.parent for path in _found(clone, "*/*/*/random_seed__*.json")}):
        task, setting, name = folder.parts[-3:]
        run = _json(min(folder.glob("random_seed__*.json")))
        kept = ("test_losses", "test_accuracies", "train_losses")
        yield {
            "source": "deepobs",
            "task": task,
            "setting": setting,
            "lr": float(name.rpartition("lr__")[2]),
            "schedule": "constant",
        } | {key: [rounded(value) for value in run[key]] for key in kept if key in run}


# --- to read ----------------------------------------------------------------------------------------------


def _found(clone: Path, pattern: str) -> list[Path]:
    paths = sorted(clone.glob(pattern))
    if not paths:
        raise ConfigurationError(f"{str(clone)!r} holds no {pattern}; check out the branch that `sources` names")
    return paths


def _one(clone: Path, file: str) -> Path:
    return _found(clone, file)[0]


def _json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def _csv(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines)


def _number(text: str | None) -> float | None:
    return float(text) if text else None


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def _measured(found: Record) -> Record:
    """Round what was measured or drawn; counts and flags stay."""
    return {name: rounded(value) if isinstance(value, float) else value for name, value in found.items()}


READERS: Mapping[str, Callable[[Path], Iterator[Record]]] = {
    "algoperf": algoperf,
    "marin": marin,
    "steplaw": steplaw,
    "opda": opda,
    "deepobs": deepobs,
}
SOURCES: Mapping[str, Source] = {
    "algoperf": Source(
        repository="mlcommons/submissions_algorithms",
        revision="main 12c8e4ea",
        licence="Apache-2.0",
        cites="Kasimbeg et al. 2025, arXiv:2502.15015",
    ),
    "marin": Source(
        repository="WhenWen/marin",
        revision="kaiyue/shampoo 7d4ef7aa",
        licence="Apache-2.0",
        cites="Wen et al. 2025, arXiv:2509.02046",
    ),
    "steplaw": Source(
        repository="step-law/steplaw",
        revision="main 32a8f4cc",
        licence="none stated",
        cites="Li et al. 2025, arXiv:2503.04715",
    ),
    "opda": Source(
        repository="nicholaslourie/opda",
        revision="main 9529a34b",
        licence="CC BY-SA 4.0",
        cites="Lourie et al. 2025, arXiv:2510.02721",
    ),
    "deepobs": Source(
        repository="fsschneider/DeepOBS_Baselines",
        revision="master 3da285ab",
        licence="MIT",
        cites="Schneider et al. 2019, arXiv:1903.05499",
    ),
}
