"""The facts that ship: what is derived from each source, under its name and in one sentence."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from optselect.recipes.records import language, prefixes, rates, replay, store
from optselect.recipes.records.algoperf import AT_RANDOM, Way
from optselect.recipes.records.intervals import Estimate, estimate, median
from optselect.recipes.records.sources import SOURCES
from optselect.rules.large_trainings import Fact

_DIGITS = 3
Named = tuple[str, Fact]
OVERFITS = "fmnist_2c2d"
COMPARED = ("muon", "soap", "kron", "nadamw", "lion", "mars")
PICKED_AT, JUDGED_AT = (0.02, 0.1, 0.25), (0.025, 0.05, 0.1, 0.25, 0.5)
LENGTHS = (("130m", 1), ("130m", 8), ("300m", 8), ("520m", 8), ("1.2b", 8))


def facts(folder: Path) -> dict[str, Fact]:
    """Derive all facts from the records in a folder. Raises `ConfigurationError` where a source's are missing."""
    return {
        f"{source}.{name}": fact
        for source, derive in _DERIVED.items()
        for name, fact in derive(store.read(folder, source))
    }


def written(found: dict[str, Fact]) -> str:
    """Write facts as the file that ships: one fact a line."""
    lines = [f"    {json.dumps(name)}: {json.dumps(asdict(fact), ensure_ascii=False)}" for name, fact in found.items()]
    names = [f"    {json.dumps(name)}: {json.dumps(asdict(source))}" for name, source in SOURCES.items()]
    return '{\n  "sources": {\n' + ",\n".join(names) + '\n  },\n  "facts": {\n' + ",\n".join(lines) + "\n  }\n}\n"


# --- each source ------------------------------------------------------------------------------------------


def _steplaw(records: list[store.Record]) -> Iterator[Named]:
    seen = rates.sweeps(records)
    for name, found in rates.exponents(seen).items():
        yield f"rate.{name}", _fact(found, f"power of {name} in AdamW's best rate on language models", "steplaw")
    for name, found in rates.exponents(rates.near_best(seen)).items():
        says = f"the same power of {name}, at batches whose best is within {rates.NEAR} nat of the best batch's"
        yield f"rate.{name}.right_batch", _fact(found, says, "steplaw")
    for factor, found in rates.cost_of_factors(seen, (0.5, 2, 4)).items():
        yield f"cost.{factor:g}", _fact(found, f"nats above the lowest at {factor:g} times the best rate", "steplaw")
    for power, found in rates.cost_of_carrying(seen).items():
        says = f"nats above the lowest with a shorter training's best rate times (ratio of lengths)^{power:g}"
        yield f"carried.{power:g}", _fact(found, says, "steplaw")
    excess: dict[object, list[float]] = defaultdict(list)
    for sweep, loss in rates.proposed(seen):
        excess[sweep.size, sweep.tokens].append(loss)
    says = "nats above the lowest at the rate that the power law of the other sizes proposes, median"
    yield "proposed", _fact(estimate(excess.values(), median), says, "steplaw")
    yield "proposed.worst", _worst(excess.values(), "steplaw")
    both = [[loss] for loss in rates.proposed_with_batch(seen)]
    says = "nats above the best of all batches and rates at the batch and rate that laws of the other sizes propose"
    yield "proposed_with_batch", _fact(estimate(both, median), f"{says}, median", "steplaw")
    yield "proposed_with_batch.worst", _worst(both, "steplaw")


def _marin(records: list[store.Record]) -> Iterator[Named]:
    cells = language.cells(records)
    for name, found in language.exponents(cells).items():
        yield f"rate.{name}", _fact(found, f"power of {name} in the best rate, twelve optimizers together", "marin")
    decayed = [cell for cell in cells if cell.best["hp"]["weight_decay"] > 0]
    for name, found in language.exponents(decayed, "rate times decay").items():
        yield f"rate_times_decay.{name}", _fact(found, f"power of {name} in the best rate times weight decay", "marin")
    for optimizer in ("adamw", *COMPARED):
        yield from _optimizer(optimizer, [cell for cell in cells if cell.optimizer == optimizer])
    for ratio, found in language.ratio_of_parts(cells, "muon", "muon_to_adam_lr").items():
        says = f"nats above the best ratio's loss where Muon's AdamW part has {ratio:g} of its rate"
        yield f"muon.part.{ratio:g}", _fact(found, says, "marin")
    gains = language.gains(cells)
    for size, ratio in LENGTHS:
        for optimizer in COMPARED:
            if optimizer in gains.get((size, ratio), {}):
                says = f"nats of its best above AdamW's best, {size} parameters, {ratio} × Chinchilla"
                yield f"{optimizer}.gain.{size}.{ratio}x", _single(gains[size, ratio][optimizer], says, "marin", 2)
    excess: dict[object, list[float]] = defaultdict(list)
    for cell, loss in language.proposed(cells):
        excess[cell.size, cell.chinchilla].append(loss)
    says = "nats above the best recorded rate at the one nearest to what the power law of the other sizes proposes"
    yield "proposed", _fact(estimate(excess.values(), median), f"{says}, median", "marin")
    yield "proposed.worst", _worst(excess.values(), "marin")


def _optimizer(name: str, cells: Sequence[language.Cell]) -> Iterator[Named]:
    yield f"{name}.rate.steps", _fact(language.power_of_length(cells), "power of the steps in its best rate", "marin")
    says = "power of the tokens in the rate of the sweep's own baselines"
    yield f"{name}.rate.tokens", _single(language.power_of_tokens(cells), says, "marin", len(cells))
    if (found := language.power_of_vertices(cells)) is not None:
        says = "power of the steps at one size and batch, between the vertices of its sweeps of rates"
        yield f"{name}.rate.vertices", _single(found[0], says, "marin", found[1])
    for quantity, called in (("learning_rate", "rate"), ("weight_decay", "decay")):
        least, middle, most = language.spread(cells, quantity)
        says = f"its best {called}: median, least and greatest over sizes and lengths"
        yield f"{name}.{called}", _fact(Estimate(value=middle, low=least, high=most, count=len(cells)), says, "marin")
    for factor in (0.5, 2, 4):
        if (cost := language.cost_of_factor(cells, factor)) is not None:
            lost, diverged = cost
            says = f"nats above its best rate at {factor:g} times it, median; {diverged:.0%} diverged"
            yield f"{name}.cost.{factor:g}", _fact(lost, says, "marin")


def _deepobs(records: list[store.Record]) -> Iterator[Named]:
    for judged in rates.JUDGED:
        for optimizer, powers in sorted(rates.constant_rates(records, judged).items()):
            found = estimate([[power] for power in powers.values()], median)
            name, says = judged.replace(" ", "_"), f"power of the length in the best constant rate, judged by {judged}"
            yield f"{optimizer}.constant_rate.{name}", _fact(found, f"{says}, median of eight problems", "deepobs")
            overfits = f"{says}, where training overfits without decay ({OVERFITS})"
            yield f"{optimizer}.overfitting.{name}", _single(powers[OVERFITS], overfits, "deepobs", 36)


def _opda(records: list[store.Record]) -> Iterator[Named]:
    for task in sorted({each["task"] for each in records if each["curve"]}):
        for pick in prefixes.picks(prefixes.searched(records, task), PICKED_AT):
            says = f"accuracy that the leader of {prefixes.ARMS} random arms at {pick.share:.0%} of the length loses"
            yield f"{task}.pick.{pick.share:g}", _fact(pick.loses, says, "opda")
        if task.startswith("deberta"):
            for name, power in prefixes.rate_over_length(records, task).items():
                says = f"power of {name} in the best rate of fine-tuning"
                yield f"{task}.rate.{name}", _fact(power, says, "opda")


def _algoperf(records: list[store.Record]) -> Iterator[Named]:
    races = replay.Replay(records, of_submission=True)
    for share in JUDGED_AT:
        ended = races.ended(Way(prior=AT_RANDOM, stages=((5, share),)))
        for factor in (math.inf, 1.1):
            says = f"share of pools of five whose leader at {share:.4g} of the length {replay.ARRIVES[factor]}"
            yield f"prefix.{share:g}.{_of(factor)}", _fact(replay.arriving(ended, factor), says, "algoperf")
    says = (
        "how much more often the leader of five at a tenth of the length reaches the target than at a fifth or quarter"
    )
    yield "prefix.tenth_over_quarter", _fact(races.gain_of_share(0.1, (0.2, 0.25)), says, "algoperf")
    for cost, way in replay.ADVISED.items():
        read = (("race", way), ("race_by_then", replace(way, by_then=True)))
        for name, each in read if cost else read[:1]:
            ended = races.ended(each)
            for factor in (math.inf, 1.1):
                says = f"share of pools of five whose winner {replay.ARRIVES[factor]}, {each}"
                yield f"{name}.{cost:g}.{_of(factor)}", _fact(replay.arriving(ended, factor), says, "algoperf")


def _of(factor: float) -> str:
    return "reaches" if math.isinf(factor) else f"within_{factor:g}"


_DERIVED = {"steplaw": _steplaw, "marin": _marin, "deepobs": _deepobs, "opda": _opda, "algoperf": _algoperf}


def _fact(found: Estimate, says: str, source: str) -> Fact:
    return Fact(
        says=says,
        value=_rounded(found.value),
        interval=(_rounded(found.low), _rounded(found.high)),
        of=found.count,
        source=source,
    )


def _single(value: float, says: str, source: str, of: int) -> Fact:
    return Fact(says=says, value=_rounded(value), interval=None, of=of, source=source)


def _worst(losses: Iterable[Sequence[float]], source: str) -> Fact:
    every = [loss for found in losses for loss in found]
    return _single(max(every), "the same, worst", source, len(every))


def _rounded(value: float) -> float:
    """Keep three digits; what is nothing but the rounding of a least-squares solution is 0."""
    return float(f"{value:.{_DIGITS}g}") if abs(value) > 1e-9 else 0.0
