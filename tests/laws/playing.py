"""Searches of the golden record, played on today's code.

What is recorded is plain JSON that says nothing of classes, modules and fields. Only the first section, the adapter,
knows the project's names: where these change, it changes, and the record and its test stay.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

from optselect import AutoOptimizer, Budget, FineTuning, OptimizerPlan, TorchWorkload, catalogue, select
from optselect import configuration as values
from optselect.building.groups import param_groups
from optselect.building.optimizer import build_groups
from optselect.configuration import Configuration, Evaluation, Goal
from optselect.parameters.anatomy import anatomy_of
from optselect.plan import Reason
from optselect.profile import Profile
from optselect.rules import Proposal
from optselect.rules.length import rate_factor, repeats
from optselect.rules.voting import RULES_ALONE
from optselect.search import reasons
from optselect.search.arms import arms
from optselect.search.choice import choose, first_proposal
from optselect.search.next_job import next_job
from optselect.search.progress import Silent
from optselect.search.race import Race
from optselect.search.transfer import carried_over, for_the_whole_training, search_horizon
from tests.laws.trainings import SEARCHED, Training, loader, own_optimizer

GOLDEN = Path(__file__).parent / "golden"
JsonDict = dict[str, Any]

# --- the adapter: all that knows the project's names --------------------------------------------------------------


@functools.cache
def _configuration(text: str) -> Configuration:
    return Configuration.from_dict(json.loads(text))


def configuration_of(data: Mapping[str, Any]) -> Configuration:
    """The project's configuration."""
    return _configuration(json.dumps(data))


def defaults_of(optimizer: str) -> JsonDict:
    """The hyperparameters that the catalogue gives an optimizer."""
    return dict(catalogue.get(optimizer).defaults())


def profile_of(data: Mapping[str, Any]) -> Profile:
    """The project's profile, of which all but what is given is not known."""
    parts = {"data": {}, "model": {"parameters": 1_000}, "gradient": {}, "steps": None}
    return Profile.from_dict({**parts, **data})


def proposals_of(spec: Mapping[str, Any]) -> tuple[Proposal, ...]:
    """What the rules are said to have proposed."""
    return tuple(Proposal.from_dict(each) for each in spec["proposals"])


def race_of(spec: Mapping[str, Any]) -> Race:
    """The race that a search would run, of arms that it would make of the proposals."""
    base = configuration_of(spec["baseline"])
    contenders = arms(proposals_of(spec), base)
    horizon = spec["horizon"]
    # As a search does it: a long training is searched on a shorter one.
    if (searched := search_horizon(horizon, spec["steps"])) < horizon:
        ratio, profile = searched / horizon, profile_of(spec["profile"])
        contenders = tuple(
            each
            if each == base
            else carried_over(each, ratio, rate_factor(each, profile, ratio), same_rows=repeats(profile, ratio))
            for each in contenders
        )
    return Race(
        arms=contenders,
        baseline=base,
        horizon=searched,
        training=horizon if searched < horizon else None,
        specs=tuple(catalogue.get(each.optimizer) for each in contenders if each.optimizer != "user"),
        policies=tuple(FineTuning.from_dict(policy) for policy in spec["policies"]),
        goal=Goal(spec["mode"]),
        **{name: spec[name] for name in _AS_THEY_ARE},
    )


_AS_THEY_ARE = (
    "steps",
    "seconds",
    "trials",
    "spent",
    "validation_cost",
    "continues",
    "length_known",
    "keeps_best",
    "least_rung",
    "user_passes",
)


def judges_untrained(race: Race) -> bool:
    """Whether the untrained model is judged before the trials."""
    return race.judges_untrained


def trained_length(race: Race) -> int:
    """Micro-batches of the training that is searched."""
    return race.horizon


def trial_of(trial: Trial) -> values.Trial:
    """The project's record of a trial so far; of one that diverged the last value is a cap."""
    judged = dict(trial.values)
    cap = (max(judged), judged.pop(max(judged))) if trial.note else None
    return values.Trial(
        number=trial.number,
        configuration=configuration_of(trial.configuration),
        seed=trial.seed,
        values=judged,
        cap=cap,
        reached=trial.reached,
        state="failed" if trial.failed else "running",
        note=trial.note,
    )


def asked(race: Race, trials: Sequence[Trial]) -> JsonDict | None:
    """The next job in plain words, and what it would cost by the clock; None: the race is over."""
    job = next_job(race, [trial_of(each) for each in trials])
    if job is None:
        return None
    found = {
        "stage": job.stage,
        "configuration": plain(job.configuration.to_dict()),
        "seed": job.seed,
        "until": job.until,
    }
    known = next((each for each in trials if each.is_of(found)), None)
    return {**found, "cost": race.cost_of_job(job, None if known is None else trial_of(known))}


def decided(spec: Mapping[str, Any], race: Race, trials: Sequence[Trial]) -> JsonDict:
    """The choice on these trials, in plain words."""
    ended = [trial_of(each) for each in trials]
    proposals = proposals_of(spec)
    if spec["searches"]:
        choice = choose(race, ended, proposals, spec["monitor"])
    else:
        choice = first_proposal(proposals, race.baseline)
    choice = for_the_whole_training(choice, race, ended, profile_of(spec["profile"]))
    return {
        "chosen": plain(choice.configuration.to_dict()),
        "reasons": [_sentence(each) for each in choice.reasons],
        "lead": choice.lead,
        "cost_sentence": str(reasons.cost(race, ended)),
        "cost": race.cost_of(ended),
        "search_steps": round(race.spent_with(ended)),
        "baseline": plain(race.baseline.to_dict()),
    }


def _sentence(reason: Reason) -> str:
    # A rule of another process has no source here; when the record was made, empty brackets stood in its place.
    return f"{reason.text} []" if reason.kind == "vote" and not reason.cites else str(reason)


@contextmanager
def suggestions_by(stand_in: Any) -> Iterator[None]:
    """With `stand_in` in place of the Gaussian process; None: with the real one."""
    if stand_in is None:
        yield
        return

    def suggestion(judged: Sequence[tuple[Configuration, float]], *_: Any) -> Configuration | None:
        found = stand_in([each.to_dict() for each, _ in judged])
        return None if found is None else judged[0][0].at_rate(found)

    with mock.patch("optselect.search.stages.suggestion", suggestion):
        yield


def built(model: nn.Module, configuration: Mapping[str, Any], steps: int) -> tuple[Any, Any]:
    """The optimizer and the scheduler of a configuration."""
    chosen = configuration_of(configuration)
    return build_groups(param_groups(anatomy_of(model), chosen), chosen.schedule, model, steps)


def budget_of(budget: Any) -> float | Budget | None:
    """A share of the training, or limits by name."""
    return Budget(**budget) if isinstance(budget, dict) else budget


def plan_of(spec: Mapping[str, Any], training: Training) -> OptimizerPlan:
    """What a real search on a plain loop chooses."""
    policy = spec.get("fine_tuning", "auto")
    workload = TorchWorkload(
        training.model,
        training.loss,
        loader(training.train, training.batch, shuffle=True),
        loader(training.validation, 48, shuffle=False) if spec.get("validates", True) else None,
        steps=spec["steps"],
        user_optimizer=own_optimizer(spec["user"]) if "user" in spec else None,
        keeps_best=spec.get("keeps_best", False),
    )
    with torch.random.fork_rng(devices=[]):
        # Batches come in the order that the training itself would draw.
        torch.manual_seed(0)
        return select(
            workload,
            budget_of(spec["budget"]),
            candidates=spec.get("candidates"),
            # What is recorded of trainings grows, and with it what is proposed first.
            rules=RULES_ALONE,
            seed=spec.get("seed", 0),
            fine_tuning=FineTuning.from_dict(policy) if isinstance(policy, dict) else policy,
            progress=Silent(),
        )


def projected(plan: OptimizerPlan) -> JsonDict:
    """A plan in plain words, without what depends on the machine and on the day."""
    data = plain(plan.to_dict())
    if data["profile"] is not None:
        data["profile"]["model"]["memory_free"] = None
    data.pop("search_seconds", None)
    for trial in data["trials"]:
        trial.pop("pace", None)
    data["reasons"] = [reason for reason in data["reasons"] if reason["kind"] != "pace"]
    lines = OptimizerPlan.from_dict(data).explain(width=100).splitlines()
    # In the words of version 1, which was written when the record was made.
    data["reasons"] = [str(reason) for reason in plan.reasons if reason.kind != "pace"]
    data["trials"] = [_as_recorded(trial, written) for trial, written in zip(plan.trials, data["trials"], strict=True)]
    data.setdefault("fine_tuning", None)
    kept = {name: value for name, value in data.items() if name not in ("versions", "version", "profile")}
    return {"plan": kept, "explanation": lines}


def _as_recorded(trial: values.Trial, written: Mapping[str, Any]) -> JsonDict:
    earlier = [[rung, value] for rung, value in trial.values.items() if trial.diverged or rung < max(trial.values)]
    return {
        "configuration": written["configuration"],
        "seed": trial.seed,
        "micro_batches": trial.micro_batches,
        "value": trial.value,
        "state": trial.ending,
        **({"earlier": earlier} if earlier else {}),
    }


def plan_in(data: Mapping[str, Any]) -> OptimizerPlan:
    """The plan in what its JSON says."""
    return OptimizerPlan.from_dict(data)


def plan_at(path: Path) -> OptimizerPlan:
    """The plan in a file."""
    return OptimizerPlan.load(path)


def write_plan(plan: OptimizerPlan, path: Path) -> None:
    """The plan as a file."""
    plan.save(path)


def words_of(plan: OptimizerPlan) -> JsonDict:
    """All of a plan, as it is written."""
    return plan.to_dict()


def facts_of(plan: OptimizerPlan) -> JsonDict:
    """What a plan must keep, whatever else is written beside it."""
    return {
        "optimizer": plan.optimizer,
        "hyperparameters": dict(plan.hyperparameters),
        "schedule": plain(plan.schedule.to_dict()),
        "lead": plan.lead,
        "search_steps": plan.search_steps,
        "reasons": [str(each) for each in plan.reasons],
        "param_groups": [list(group.parameters) for group in plan.param_groups],
        "trials": [[trial.configuration.optimizer, trial.seed, trial.value] for trial in plan.trials],
    }


def explained(plan: OptimizerPlan) -> str:
    """The plan for a person to read."""
    return plan.explain()


def built_by(plan: OptimizerPlan, model: nn.Module, own: Any) -> tuple[Any, Any]:
    """The optimizer and the scheduler of a plan; `own` makes the user's."""
    return plan.build(model, own=own)


def auto_optimizer(folder: Path) -> AutoOptimizer:
    """The callback that made the checkpoint, or goes on from it: a search of few trials, its study in `folder`."""
    return AutoOptimizer(
        monitor="val_loss",
        budget=Budget(steps=70),
        candidates=["adamw", "nadam"],
        rules=RULES_ALONE,
        storage=folder / "study.journal",
        report=False,
    )


def outcome_of(callback: AutoOptimizer) -> tuple[OptimizerPlan | None, bool]:
    """The plan that a fit has trained with, and whether it has searched for it."""
    return callback.plan, callback.study is not None


# --- the judge: recorded curves -----------------------------------------------------------------------------------


def plain(data: Any) -> Any:
    """As it comes back from JSON: lists for tuples."""
    return json.loads(json.dumps(data))


def read(name: str) -> Any:
    """A file of the golden record."""
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def recorded(name: str) -> JsonDict:
    """What came of each spec in a file, by the spec's name: `{"spec": …, "golden": …}`.

    What stands in a file more than once stands in its table, and everywhere else as its place there.
    """
    file = read(name)
    table: list[Any] = []
    for each in file["table"]:
        table.append(_looked_up(each, table))
    usual = _looked_up(file["usual"], table)
    found = {key: _looked_up(entry, table) for key, entry in file["entries"].items()}
    return {key: {**entry, "spec": {**usual, **entry["spec"]}} for key, entry in found.items()}


def _looked_up(data: Any, table: Sequence[Any]) -> Any:
    if isinstance(data, dict):
        return {key: _looked_up(value, table) for key, value in data.items()}
    if isinstance(data, list):
        return [_looked_up(each, table) for each in data]
    return table[int(data[1:])] if isinstance(data, str) and data.startswith("@") else data


@functools.cache
def curves() -> JsonDict:
    """The recorded curves by task."""
    found: JsonDict = read("curves.json")
    return found


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Says what a configuration is worth, as the recorded curves have it.

    Between recorded rates it is a straight line over the logarithm, between recorded points one over the share of the
    training; beyond the ends the ends hold. A seed that was not recorded is one that was, give or take two percent.
    """

    spec: Mapping[str, Any]
    horizon: int

    @property
    def task(self) -> Mapping[str, Any]:
        """The recorded curves of the spec's task."""
        found: Mapping[str, Any] = curves()[self.spec["curves"]]
        return found

    def untrained(self) -> float:
        """The value before the first step."""
        return float(self.task["untrained"][0])

    def value(self, configuration: Mapping[str, Any], seed: int, until: int) -> float | None:
        """The value at micro-batch `until`; None: it diverged before."""
        if any(fault["kind"] == "diverges" for fault in self.faults(configuration, seed, until)):
            return None
        name, rate = configuration["optimizer"], _rate(configuration)
        kind = "constant" if configuration["schedule"]["kind"] == "constant" else "cosine"
        if name in self.spec["stand_ins"]:
            stand_in = self.spec["stand_ins"][name]
            name, rate, kind = stand_in["as"], stand_in["rate"] * (rate or 1.0), stand_in.get("kind", kind)
        if "fine_tuning" in configuration:
            kind = f"policy {self.task['policies'].index(configuration['fine_tuning'])}"
        known = self.task["curves"][name]
        kind = kind if kind in known else "cosine"
        found = self._between_rates(known["rates"], known[kind][seed % 2], rate or 1.0, until / self.horizon, seed)
        if found is None:
            return None
        if seed > 1:
            noise = hashlib.sha256(f"{name} {rate:.4g} {kind} {seed}".encode()).digest()[0] / 255
            found *= 0.98 + 0.04 * noise
        for fault in self.faults(configuration, seed, until):
            found *= fault["by"] if fault["kind"] == "is worth" else 1.0
        # Rounded, so that the last bits of a logarithm decide nothing.
        return float(f"{found:.6g}")

    def fails(self, configuration: Mapping[str, Any], seed: int, until: int) -> bool:
        """Whether the model raises on the way there."""
        return any(fault["kind"] == "fails" for fault in self.faults(configuration, seed, until))

    def faults(self, configuration: Mapping[str, Any], seed: int, until: int) -> list[Mapping[str, Any]]:
        """What the spec says goes wrong."""
        return [
            fault
            for fault in self.spec["faults"]
            if fault.get("optimizer", configuration["optimizer"]) == configuration["optimizer"]
            and fault.get("seed", seed) == seed
            and (_rate(configuration) or 0.0) > fault.get("above", -1.0)
            and until >= fault.get("from", 0)
        ]

    def _between_rates(
        self, rates: Sequence[float], recorded: Sequence[Sequence[float | None]], rate: float, share: float, seed: int
    ) -> float | None:
        places = [math.log10(each) for each in rates]
        return _line(places, [self._at(points, share, seed) for points in recorded], math.log10(rate))

    def _at(self, points: Sequence[float | None], share: float, seed: int) -> float | None:
        places = [0.0, *(point / self.task["steps"] for point in self.task["points"])]
        return _line(places, [self.task["untrained"][seed % 2], *points], share)


def _rate(configuration: Mapping[str, Any]) -> float | None:
    values = configuration["hyperparameters"]
    if configuration["optimizer"] == "user":
        return float(values.get("lr_scale", 1.0))
    return None if "lr" not in values else float(values["lr"])


def _line(places: Sequence[float], values: Sequence[float | None], place: float) -> float | None:
    """The value at `place` on the line through the points; None where one of its neighbours is."""
    if place <= places[0] + 1e-12:
        return values[0]
    for (left, low), (right, high) in zip(
        zip(places, values, strict=True), zip(places[1:], values[1:], strict=False), strict=False
    ):
        if place <= right + 1e-12:
            weight = min((place - left) / (right - left), 1.0)
            if weight > 1 - 1e-9:
                return high
            return None if low is None or high is None else low + weight * (high - low)
    return values[-1]


# --- the game -----------------------------------------------------------------------------------------------------

# A diverged trial is noticed after at most this many micro-batches.
_NOTICED = 20


@dataclass(kw_only=True)
class Trial:
    """One trial so far."""

    number: int
    configuration: JsonDict
    seed: int
    values: dict[int, float] = field(default_factory=dict)
    reached: int = 0
    failed: bool = False
    note: str = ""

    def is_of(self, job: Mapping[str, Any]) -> bool:
        """Whether the job goes on with it."""
        return (self.seed, self.configuration) == (job["seed"], job["configuration"])


def pure_suggestion(judged: Sequence[Mapping[str, Any]]) -> float | None:
    """A rate for the leader, made of nothing but how many were judged: what stands in for the Gaussian process."""
    if not judged:
        return None
    share = hashlib.sha256(str(len(judged)).encode()).digest()[0] / 255
    return float(f"{10 ** -(1 + 2 * share):.6g}")


def play(spec: Mapping[str, Any]) -> JsonDict:
    """A whole race, its jobs in order and the choice at its end."""
    race = race_of(spec)
    judge = Judge(spec=spec, horizon=trained_length(race))
    if judges_untrained(race):
        race = replace(race, untrained=Evaluation(value=judge.untrained()))
    trials: list[Trial] = []
    jobs: list[list[Any]] = []
    left = math.inf if spec["seconds"] is None else spec["seconds"] / spec["pace"]
    with suggestions_by(None if spec["suggests"] == "really" else pure_suggestion):
        while spec["searches"] and (job := asked(race, trials)) is not None and job["cost"] <= left:
            left -= job["cost"]
            trial = _run(job, trials, judge, race)
            value = None if trial.note else trial.values[job["until"]]
            state = "failed" if trial.failed else "running"
            said = [job[name] for name in ("stage", "configuration", "seed", "until")]
            jobs.append([*said, value, state, trial.note])
            if len(jobs) > 500:
                raise AssertionError("the race never ends")
        return {"jobs": jobs, **decided(spec, race, trials)}


def _run(job: Mapping[str, Any], trials: list[Trial], judge: Judge, race: Race) -> Trial:
    """Take the job's trial to its end, as a search would note it."""
    configuration, seed, until = job["configuration"], job["seed"], job["until"]
    trial = next((each for each in trials if each.is_of(job)), None)
    if trial is None:
        trial = Trial(number=len(trials), configuration=configuration, seed=seed)
        trials.append(trial)
    fails = judge.fails(configuration, seed, until)
    value = None if fails else judge.value(configuration, seed, until)
    if value is None:
        done = trial.reached if judge.spec["continues"] else 0
        trial.reached = min(done + _NOTICED, until)
        note = (
            "RuntimeError('the model does not bear it')" if fails else f"diverged after {trial.reached} micro-batches"
        )
        trial.failed, trial.note = fails, note
        trial.values[until] = _cap(trials, judge, race)
    else:
        trial.reached = until
        trial.values[until] = value
    return trial


def _cap(trials: Iterable[Trial], judge: Judge, race: Race) -> float:
    """What a diverged trial counts as: no better than the worst so far, the untrained model included."""
    known = [value for trial in trials for value in trial.values.values()]
    known += [judge.untrained()] if judges_untrained(race) else []
    worst, nothing = (max, 1e30) if judge.spec["mode"] == "min" else (min, -1e30)
    return worst(known) if known else nothing


def search(spec: Mapping[str, Any]) -> JsonDict:
    """A real search, in plain words."""
    return projected(plan_of(spec, SEARCHED[spec["training"]](0)))


# --- the comparison -----------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?%?")


def differences(then: Any, now: Any, tolerance: float, path: str = "") -> list[str]:
    """Where the two differ, in words: numbers by more than a share, also inside of sentences, all else at all."""
    if isinstance(then, bool) or isinstance(now, bool) or then is None or now is None:
        return [] if then is now else [f"{path}: {then!r} then, {now!r} now"]
    if isinstance(then, int | float) and isinstance(now, int | float):
        near = math.isclose(then, now, rel_tol=tolerance, abs_tol=tolerance * 1e-3)
        return [] if near else [f"{path}: {then!r} then, {now!r} now"]
    if isinstance(then, dict) and isinstance(now, dict) and then.keys() == now.keys():
        return [each for key in then for each in differences(then[key], now[key], tolerance, f"{path}.{key}")]
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        pairs = enumerate(zip(then, now, strict=True))
        return [each for place, (a, b) in pairs for each in differences(a, b, tolerance, f"{path}[{place}]")]
    if isinstance(then, str) and isinstance(now, str) and _same_words(then, now, tolerance):
        return []
    return [f"{path}: {then!r} then, {now!r} now"]


def _same_words(then: str, now: str, tolerance: float) -> bool:
    """Whether two sentences differ in nothing but the last digit of numbers."""
    if then == now:
        return True
    if _NUMBER.sub("#", then).split() != _NUMBER.sub("#", now).split():
        return False
    pairs = zip(_NUMBER.findall(then), _NUMBER.findall(now), strict=True)
    return all(_same_number(one, other, tolerance) for one, other in pairs)


def _same_number(then: str, now: str, tolerance: float) -> bool:
    one, other = (float(each.rstrip("%").replace(",", "")) for each in (then, now))
    digits, _, exponent = then.rstrip("%").partition("e")
    # Whole numbers count something, but for shares.
    rounded = "." in digits or "%" in then
    last = 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2])) if rounded else 0.0
    return math.isclose(one, other, rel_tol=tolerance, abs_tol=1.01 * last)
