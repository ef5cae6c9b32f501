"""The code of a report does without optselect, and builds the same optimizer to the last bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from optselect import AutoOptimizer, OptimizerPlan, catalogue
from optselect.building.groups import param_groups
from optselect.catalogue.registry import OURS
from optselect.configuration import Configuration
from optselect.configuration.policy import FineTuning, Thaw
from optselect.configuration.schedule import Schedule
from optselect.errors import ConfigurationError
from optselect.parameters.anatomy import anatomy_of
from optselect.plan import ModelFingerprint, ParamGroup
from optselect.report.code import as_python
from tests.support.modules import Classifier, equal_states, fit, made
from tests.support.small import net, sentences, vectors, words

STEPS = 8
SCHEDULES = {
    "constant": Schedule(),
    "warmup": Schedule(warmup_steps=3),
    "cosine": Schedule(kind="cosine", warmup_steps=2),
    "cosine to a floor": Schedule(kind="cosine", final=0.1),
    "linear": Schedule(kind="linear", warmup_steps=2, final=0.25),
    "warmup, stable, decay": Schedule(kind="wsd", warmup_steps=1, decay=0.4),
}


def plan_for(
    model: nn.Module,
    optimizer: str,
    schedule: Schedule,
    sparse: tuple[str, ...] = (),
    policy: FineTuning | None = None,
) -> OptimizerPlan:
    values = catalogue.get(optimizer).defaults()
    configuration = Configuration(optimizer=optimizer, hyperparameters=values, schedule=schedule, fine_tuning=policy)
    return OptimizerPlan(
        configuration=Configuration(optimizer=optimizer, hyperparameters=values, schedule=schedule),
        param_groups=param_groups(anatomy_of(model, sparse=sparse), configuration),
        total_steps=STEPS,
        model_fingerprint=ModelFingerprint.of(model),
        sparse=sparse,
    )


def written_out(plan: OptimizerPlan, model: nn.Module) -> tuple[Any, Any]:
    """Optimizer and scheduler out of the code, in a namespace that has nothing of ours."""
    code = as_python(plan)
    assert "optselect" not in code
    session: dict[str, Any] = {"__name__": "chosen"}
    exec(compile(code, "chosen.py", "exec"), session)  # noqa: S102  # that it runs is what is tested
    made_of_it = session["configure_optimizers"](model)
    return made_of_it["optimizer"], made_of_it.get("lr_scheduler", {}).get("scheduler")


def trained(model: nn.Module, optimizer: Any, scheduler: Any, rows: Any) -> list[Any]:
    """Rates and weights at every step, two more than the schedule is laid out for."""
    inputs, labels = rows.tensors
    torch.manual_seed(0)
    seen = []
    if hasattr(optimizer, "train"):
        optimizer.train()

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), labels)
        loss.backward()
        return loss

    for _ in range(STEPS + 2):
        optimizer.step(closure)
        if scheduler is not None:
            scheduler.step()
        seen.append([group["lr"] for group in optimizer.param_groups])
    return [*seen, *(parameter.detach().clone() for parameter in model.parameters())]


def groups_of(optimizer: Any) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in group.items() if key not in ("params", "optimizer_name", "initial_lr")}
        for group in optimizer.param_groups
    ]


CASES = [
    *((spec.name, "net", "cosine") for spec in OURS if spec.dense),
    *((spec.name, "words", "cosine") for spec in OURS if spec.sparse and not spec.single_group),
    *(("adamw", "net", name) for name in SCHEDULES),
    *(("muon", "net", name) for name in SCHEDULES),
    ("muon", "words", "linear"),
]


@pytest.mark.filterwarnings("ignore:the training goes on beyond the 8 steps")
@pytest.mark.parametrize("name, model_name, schedule", dict.fromkeys(CASES))
def test_the_python_code_trains_bit_for_bit_like_the_plan(name: str, model_name: str, schedule: str) -> None:
    kind, rows = (net, vectors()) if model_name == "net" else (words, sentences())
    sparse = ("table.weight",) if model_name == "words" else ()
    ours, theirs = kind(), kind()
    plan = plan_for(ours, name, SCHEDULES[schedule], sparse)
    built, written = plan.build(ours), written_out(plan, theirs)
    settings = groups_of(built[0]), groups_of(written[0])

    one, other = trained(ours, *built, rows), trained(theirs, *written, rows)

    assert settings[0] == settings[1]
    assert (built[1] is None) == (written[1] is None)
    assert equal_states(one, other)


def test_the_code_that_a_plan_gives_is_the_code_that_is_tested() -> None:
    plan = plan_for(net(), "muon", SCHEDULES["cosine"])

    assert plan.as_code() == as_python(plan)


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd"])
def test_rates_of_layers_and_frozen_parts_are_written_out(name: str) -> None:
    policy = FineTuning(head_lr_ratio=3.0, layer_decay=0.5, freeze=r"^body\.")
    ours, theirs = net(), net()
    plan = plan_for(ours, name, SCHEDULES["cosine"], policy=policy)

    built, written = plan.build(ours), written_out(plan, theirs)

    assert groups_of(built[0]) == groups_of(written[0])
    assert [p.requires_grad for p in theirs.parameters()] == [p.requires_grad for p in ours.parameters()]
    assert not all(p.requires_grad for p in theirs.parameters())


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_in_lightning_the_code_trains_and_resumes_like_the_plan(name: str, tmp_path: Path) -> None:
    schedule = Schedule(kind="cosine", warmup_steps=2)
    plan = replace(plan_for(made(Classifier), name, schedule), total_steps=32)
    session: dict[str, Any] = {}
    exec(compile(as_python(plan), "chosen.py", "exec"), session)  # noqa: S102  # as above

    class Chosen(Classifier):
        configure_optimizers = session["configure_optimizers"]

    ours, stopped, resumed = made(Classifier), made(Chosen), made(Chosen)
    arguments: dict[str, Any] = {"default_root_dir": tmp_path, "epochs": 2}
    fit(ours, AutoOptimizer(plan=plan, report=False), **arguments)
    fit(stopped, **arguments).save_checkpoint(tmp_path / "end.ckpt")
    later = fit(resumed, ckpt_path=tmp_path / "end.ckpt", **arguments)

    assert equal_states(dict(ours.named_parameters()), dict(stopped.named_parameters()))
    assert equal_states(later.optimizers[0].state_dict(), torch.load(tmp_path / "end.ckpt")["optimizer_states"][0])


# --- YAML -----------------------------------------------------------------------------------------


# --- nothing to write -----------------------------------------------------------------------------


def test_the_users_own_optimizer_is_its_own_code() -> None:
    plan = OptimizerPlan(configuration=Configuration(optimizer="user"), model_fingerprint=ModelFingerprint.of(net()))

    with pytest.raises(ConfigurationError, match="the module's configure_optimizers is the code"):
        as_python(plan)


def test_parts_that_join_later_take_more_than_a_torch_scheduler() -> None:
    plan = plan_for(net(), "adamw", Schedule(), policy=FineTuning(thaw=Thaw(step=3)))

    with pytest.raises(ConfigurationError, match=r"thaw 1 of the plan join the training later"):
        as_python(plan)


def test_an_optimizer_whose_package_is_gone_is_named() -> None:
    group = ParamGroup(name="signum", optimizer="signum", parameters=("weight",), hyperparameters={"lr": 0.1})
    plan = OptimizerPlan(
        configuration=Configuration(optimizer="signum"),
        param_groups=(group,),
        model_fingerprint=ModelFingerprint.of(nn.Linear(2, 2)),
    )

    with pytest.raises(ConfigurationError, match=r"'signum'.*Install the package"):
        as_python(plan)


def test_names_that_look_like_code_stay_names() -> None:
    hostile = 'a"], __import__("os").abort(), ["\n\\😀'
    group = ParamGroup(name=hostile, optimizer="sgd", parameters=(hostile,), hyperparameters={"lr": 0.1})
    plan = OptimizerPlan(
        configuration=Configuration(optimizer="sgd", hyperparameters={"lr": "0.1\nraise SystemExit"}),
        param_groups=(group,),
        model_fingerprint=ModelFingerprint(shapes={hostile: (2,)}),
    )

    session: dict[str, Any] = {}
    exec(compile(as_python(plan), "chosen.py", "exec"), session)  # noqa: S102  # as above

    assert session["GROUPS"] == {hostile: [hostile]}
