"""What the golden record plays: races on recorded curves and real searches, as plain data.

`record` writes each spec beside what came of it; the test reads it from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.laws.playing import curves, defaults_of

Spec = dict[str, Any]

BASELINE: Spec = {
    "optimizer": "adamw",
    "hyperparameters": {"lr": 1e-3, "weight_decay": 1e-2},
    "schedule": {"kind": "constant", "warmup_steps": 0, "final": 0.0, "decay": 0.2},
}
USER: Spec = {**BASELINE, "optimizer": "user", "hyperparameters": {}}

# Votes as rules cast them: a reason that is spoken, one against it, and one of a rule that is not there any more.
VOTES: Mapping[str, list[Spec]] = {
    "muon": [
        {
            "optimizer": "muon",
            "rule": "hidden matrices favour muon",
            "because": {"quantity": "model.muon_share", "value": 0.91, "threshold": 0.5},
            "weight": 3.0,
        },
        {
            "optimizer": "muon",
            "rule": "a rule of another process",
            "because": {"quantity": "data.size", "value": 1200},
            "weight": 0.5,
        },
    ],
    "nadam": [
        {
            "optimizer": "nadam",
            "rule": "several optimizers are better than one",
            "because": {"quantity": "model.parameters", "value": 1810},
            "weight": 0.75,
        }
    ],
    "adam": [
        {
            "optimizer": "adam",
            "rule": "small data sets favour adam",
            "because": {"quantity": "data.size", "value": 1200, "threshold": 99999, "sense": "at most"},
            "weight": 0.5,
        }
    ],
    "momentum": [
        {
            "optimizer": "momentum",
            "rule": "hidden matrices favour muon",
            "because": {"quantity": "model.muon_share", "value": 0.91, "threshold": 0.5},
            "weight": -1.0,
        }
    ],
}


def proposal(optimizer: str, rate: float | None = None, seat: str = "candidate", *, warmup: int = 4) -> Spec:
    """What the rules might propose."""
    values = defaults_of(optimizer)
    return {
        "optimizer": optimizer,
        "hyperparameters": values if rate is None else {**values, "lr": rate},
        "schedule": {"kind": "cosine", "warmup_steps": warmup, "final": 0.0, "decay": 0.2},
        "votes": VOTES.get(optimizer, []),
        "seat": seat,
    }


OWN: Spec = {
    "optimizer": "user",
    "hyperparameters": {},
    "schedule": BASELINE["schedule"],
    "votes": [],
    "seat": "baseline",
}

PROPOSED: Mapping[str, Sequence[Spec]] = {
    "digits": (
        proposal("muon", seat="evidence"),
        proposal("nadam"),
        proposal("adam", 5e-3, seat="classic"),
        proposal("adagrad"),
        proposal("rmsprop"),
    ),
    "table": (
        proposal("rmsprop", 3e-4, seat="evidence"),
        proposal("nadam", 8e-4),
        proposal("momentum", 3e-2, seat="classic"),
        proposal("adagrad", 1e-2),
    ),
    "tuned": (
        proposal("nadam", 1e-3, seat="evidence"),
        proposal("adamw", 1e-3),
        proposal("momentum", 1e-2, seat="classic"),
        proposal("muon", 1e-3),
    ),
}


def race(task: str, trainings: float | None, *, horizon: int = 160, **changes: Any) -> Spec:
    """A race on the curves of `task` for so many trainings (None: no limit on steps)."""
    steps = None if trainings is None else int(trainings * horizon)
    spec: Spec = {
        "curves": task,
        "horizon": horizon,
        "steps": steps,
        "seconds": None,
        "pace": 0.01,
        "trials": None,
        "validation_cost": 1.0,
        "continues": True,
        "mode": "min",
        "length_known": True,
        "keeps_best": False,
        "least_rung": 50,
        "user_passes": 1,
        "policies": [],
        "baseline": BASELINE,
        "proposals": list(PROPOSED[task.removesuffix(" accuracy")]),
        "stand_ins": {},
        "faults": [],
        "monitor": "val_loss",
        "profile": {"steps": horizon},
        "searches": True,
        "suggests": "purely",
        **changes,
    }
    if "spent" not in changes:
        limit = spec["steps"]
        profile = 8 if limit is None else min(8, max(limit // 25, 1))
        judged = spec["validation_cost"] if limit is None or limit >= horizon else 0.0
        spec["spent"] = profile + judged
    return spec


def poisoned(spec: Spec, factor: float) -> Spec:
    """With every proposed rate wrong by `factor`."""

    def wrong(each: Spec) -> Spec:
        values = each["hyperparameters"]
        return {**each, "hyperparameters": {**values, "lr": values["lr"] * factor}}

    return {**spec, "proposals": [wrong(each) for each in spec["proposals"]]}


def spoken_for(*names: str) -> list[Spec]:
    """Proposals at the catalogue's own rates."""
    return [proposal(name) for name in names]


ACCURACY: Spec = {"mode": "max", "monitor": "val_acc"}
SLOW_USER: Spec = {"user": {"as": "momentum", "rate": 2e-3, "kind": "constant"}}
GOOD_USER: Spec = {"user": {"as": "adam", "rate": 8e-3, "kind": "cosine"}}


def budgets() -> dict[str, Spec]:
    """Every budget at which a search changes its ways."""
    sizes = (0.25, 0.5, 0.8, 1, 2, 2.5, 3.5, 4, 6, 8)
    digits = {f"digits, {size:g} trainings": race("digits", size, horizon=400) for size in sizes}
    table = {f"table, {size:g} trainings": race("table", size) for size in (0.25, 1, 2.5, 4, 8)}
    return {**digits, **table}


def limits() -> dict[str, Spec]:
    """Limits on trials and on seconds, and none."""
    return {
        "no budget": race("digits", 0, searches=False, spent=5.0),
        "no budget and no proposal": race("digits", 0, searches=False, spent=5.0, proposals=[]),
        "one trial": race("digits", None, trials=1),
        "three trials": race("digits", None, trials=3),
        "nine trials": race("digits", None, trials=9, horizon=200),
        "trials and steps": race("table", 4, trials=6),
        "seconds for one training": race("digits", 1, horizon=400, seconds=4.0),
        "seconds for four trainings at a slower pace": race("digits", 4, seconds=6.4, pace=0.015),
        "seconds for a third of a training": race("table", 0.33, horizon=400, seconds=1.32, validation_cost=2.0),
        "too little for one trial": race("digits", 0.05, validation_cost=9.0),
    }


def ways() -> dict[str, Spec]:
    """What the training is like: its values, its validation, its length, and whether trials can go on."""
    accuracy = "digits accuracy"
    return {
        "accuracy, 1 training": race(accuracy, 1, horizon=400, **ACCURACY),
        "accuracy, 4 trainings": race(accuracy, 4, **ACCURACY),
        "accuracy of the best weights, 6 trainings": race(accuracy, 6, keeps_best=True, **ACCURACY),
        "best weights, 2.5 trainings": race("table", 2.5, horizon=240, keeps_best=True),
        "best weights, 4 trainings": race("table", 4, keeps_best=True, validation_cost=3.0),
        "best weights, 8 trainings": race("digits", 8, keeps_best=True),
        "starting over, 1 training": race("digits", 1, horizon=240, continues=False),
        "starting over, 3.5 trainings": race("table", 3.5, continues=False),
        "starting over, 4 trainings": race("digits", 4, continues=False),
        "starting over, 8 trainings": race("table", 8, horizon=240, continues=False),
        "a quarter is too short, 4 trainings": race("table", 4, horizon=75),
        "a quarter is too short, 6 trainings": race("digits", 6, horizon=100, validation_cost=0.0),
        "a half is hardly further than the first rung": race("digits", 6, horizon=140),
        "best weights, 6 trainings, a dear validation": race("table", 6, keeps_best=True, validation_cost=9.0),
        "best weights, 3.5 trainings": race("table", 3.5, horizon=240, keeps_best=True, validation_cost=9.0),
        "a short rung will do": race("digits", 4, horizon=75, least_rung=1),
        "a dear validation": race("digits", 4, horizon=120, validation_cost=21.3),
        "a length that is not known": race("digits", 1, horizon=1000, length_known=False, profile={}),
        "a training of three steps": race("digits", 4, horizon=3, validation_cost=1 / 3),
    }


def own() -> dict[str, Spec]:
    """The user's own optimizer, alone and among others."""
    among = [*PROPOSED["digits"], OWN]
    alone: Spec = {"baseline": USER, "proposals": [OWN], "stand_ins": SLOW_USER}
    good: Spec = {"baseline": USER, "stand_ins": GOOD_USER}
    slow: Spec = {"baseline": USER, "stand_ins": SLOW_USER}
    return {
        "alone, 1 training": race("digits", 1, horizon=400, **alone),
        "alone, 4 trainings": race("digits", 4, **alone),
        "alone, 8 trainings": race("table", 8, **alone),
        "alone and good, 4 trainings": race("digits", 4, **{**alone, "stand_ins": GOOD_USER}),
        "a good one among others, 1 training": race("digits", 1, horizon=400, **good),
        "a good one among others, 4 trainings": race("digits", 4, proposals=among, **good),
        "a slow one among others, 4 trainings": race("digits", 4, **slow),
        "a slow one among others, 8 trainings": race("digits", 8, proposals=among, **slow),
        "one that takes twenty-five passes": race("digits", 8, user_passes=25, **good),
    }


def tuned() -> dict[str, Spec]:
    """A trained model, with policies for its parts."""
    policies = curves()["tuned"]["policies"]
    given = [
        {**each, "fine_tuning": policies[1]} for each in PROPOSED["tuned"] if each["optimizer"] in ("nadam", "adamw")
    ]
    sizes = (1, 2, 2.5, 4, 8)
    return {
        **{f"two policies, {size:g} trainings": race("tuned", size, policies=policies) for size in sizes},
        "one policy, 4 trainings": race("tuned", 4, horizon=240, policies=policies[:1]),
        "a policy that was given, 4 trainings": race(
            "tuned", 4, proposals=given, baseline={**BASELINE, "fine_tuning": policies[1]}
        ),
        "the user's own and two policies, 4 trainings": race(
            "tuned", 4, baseline=USER, stand_ins={"user": {"as": "adamw", "rate": 1e-3}}, policies=policies
        ),
    }


def faults() -> dict[str, Spec]:
    """Trials that diverge or fail, and rules that are wrong by a factor of a thousand."""
    muon = {"optimizer": "muon", "kind": "diverges"}
    high = {"above": 0.015, "kind": "diverges"}
    late = {"optimizer": "nadam", "from": 80, "kind": "diverges"}
    failing = {"optimizer": "adam", "kind": "fails"}
    base = {"optimizer": "adamw", "kind": "diverges"}
    other_seed = {"optimizer": "muon", "seed": 1, "kind": "diverges"}
    other_order = [
        {"seed": 1, "kind": "is worth", "by": worth, "optimizer": name}
        for name, worth in (("momentum", 1.15), ("rmsprop", 1.15), ("adagrad", 1.12), ("nadam", 1.1))
    ]
    late_loss = [{"optimizer": name, "from": 100, "kind": "is worth", "by": 1.4} for name in ("muon", "nadam")]
    behind = {"optimizer": "muon", "from": 70, "kind": "is worth", "by": 4.0}
    few = spoken_for("nadam", "momentum")
    return {
        "the seeds contradict each other": race("table", 8, horizon=140, faults=other_order),
        "what led in the middle loses at the end": race("tuned", 8, faults=late_loss),
        "what went further than the baseline is compared there": race("digits", 4, faults=[behind]),
        "suggestions beside rates that diverged": race("digits", 12, proposals=few, faults=[high]),
        "an arm diverges": race("digits", 2, horizon=240, faults=[muon]),
        "high rates diverge": race("digits", 8, faults=[high]),
        "an arm diverges later": race("digits", 4, faults=[late, muon]),
        "an arm diverges on another seed": race("digits", 8, faults=[other_seed]),
        "an arm fails": race("digits", 4, faults=[failing]),
        "arms diverge where accuracy counts": race("digits accuracy", 4, faults=[muon, failing], **ACCURACY),
        "the baseline diverges": race("digits", 4, faults=[base]),
        "all but the baseline diverge": race("digits", 2.5, faults=[{"above": 1e-3, "kind": "diverges"}]),
        "all diverge": race("digits", 4, faults=[{"kind": "diverges"}]),
        "all rates a thousand times too high, 2.5 trainings": poisoned(race("digits", 2.5), 1e3),
        "all rates a thousand times too high, 4 trainings": poisoned(race("digits", 4), 1e3),
        "all rates a thousand times too low, 4 trainings": poisoned(race("digits", 4), 1e-3),
        "all rates a thousand times too low, 8 trainings": poisoned(race("table", 8), 1e-3),
    }


def long() -> dict[str, Spec]:
    """Trainings longer than the one that is searched."""
    profile = {"steps": 20_000, "data": {"batches": 38, "batch_size": 32}}
    changes: Spec = {"horizon": 20_000, "validation_cost": 8.0, "profile": profile}
    return {
        "a long training, a tenth of it": race("digits", 0.1, **changes),
        "a long training, less than is searched": race("digits", 0.02, **changes),
        "a long training whose baseline stays": race(
            "digits", 0.1, **{**changes, "faults": [{"above": 1e-3, "kind": "diverges"}]}
        ),
        "a long training of the user's own": race(
            "digits", 0.1, **{**changes, "baseline": USER, "proposals": [OWN], "stand_ins": SLOW_USER}
        ),
        "a long training with the user's own among others": race(
            "digits", 0.1, **{**changes, "baseline": USER, "stand_ins": GOOD_USER}
        ),
        "optimizers without a rate or with a closure": race(
            "digits",
            8,
            proposals=spoken_for("prodigy", "lbfgs", "nadam"),
            stand_ins={
                "prodigy": {"as": "adamw", "rate": 5e-3, "kind": "cosine"},
                "lbfgs": {"as": "adagrad", "rate": 0.1, "kind": "constant"},
            },
        ),
    }


def gaussian() -> dict[str, Spec]:
    """With the real Gaussian process, and few suggestions of it."""
    return {
        "suggestions for digits": race("digits", 9, suggests="really", proposals=spoken_for("nadam", "momentum")),
        "suggestions for the table": race("table", 9, suggests="really", proposals=spoken_for("rmsprop", "adagrad")),
    }


RACES = {
    "budgets": budgets,
    "limits": limits,
    "ways": ways,
    "own": own,
    "tuned": tuned,
    "faults": faults,
    "long": long,
    "gaussian": gaussian,
}

ADAMS = ["adamw", "nadam", "momentum"]

SEARCHES: Mapping[str, Spec] = {
    "the rules alone": {"training": "clusters", "steps": 80, "budget": 0},
    "a quarter of a training": {"training": "clusters", "steps": 160, "budget": 0.25, "candidates": ADAMS},
    "one training": {"training": "clusters", "steps": 80, "budget": 1, "candidates": ADAMS},
    "four trainings of the best weights": {
        "training": "clusters",
        "steps": 48,
        "budget": 4,
        "candidates": ADAMS,
        "keeps_best": True,
    },
    "three and a half trainings": {"training": "clusters", "steps": 200, "budget": 3.5, "candidates": ADAMS},
    "three trials": {"training": "clusters", "steps": 48, "budget": {"trials": 3}, "candidates": ADAMS},
    "a slow optimizer of one's own": {
        "training": "clusters",
        "steps": 64,
        "budget": 2,
        "candidates": ["user", "nadam"],
        "user": "slow momentum",
    },
    "one's own optimizer alone": {
        "training": "clusters",
        "steps": 64,
        "budget": 2.5,
        "candidates": ["user"],
        "user": "slow momentum",
    },
    "a good optimizer of one's own": {
        "training": "clusters",
        "steps": 64,
        "budget": 1,
        "candidates": ["user", "sgd"],
        "user": "good adam",
    },
    "sparse gradients": {
        "training": "bags",
        "steps": 60,
        "budget": 2,
        "candidates": ["sparse_adam", "adagrad"],
    },
    "a policy that thaws": {
        "training": "trained",
        "steps": 48,
        "budget": 2.5,
        "candidates": ["adamw", "nadam"],
        "fine_tuning": {"head_lr_ratio": 5.0, "thaw": [{"step": 6}]},
    },
    "a trained model and the rules' policies": {
        "training": "continued",
        "steps": 64,
        "budget": 6,
        "candidates": ["adamw", "nadam"],
        "fine_tuning": True,
    },
    "rates that diverge, without validation data": {
        "training": "steep",
        "steps": 64,
        "budget": 2,
        "candidates": ["sgd", "momentum", "adamw"],
        "validates": False,
    },
    "a rate that diverges slowly": {"training": "slippery", "steps": 64, "budget": 2, "candidates": ["sgd", "adamw"]},
    "a model that bears no proposed rate": {
        "training": "fragile",
        "steps": 64,
        "budget": 3,
        "candidates": ["momentum", "adamw", "sgd"],
    },
    "a model that does not bear every rate": {
        "training": "brittle",
        "steps": 64,
        "budget": 2,
        "candidates": ["momentum", "adamw", "sgd"],
    },
}
