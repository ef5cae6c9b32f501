"""Groups to take away: of a plan and of a policy alone, for whoever makes the optimizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from torch import nn

from optselect import AutoOptimizer, FineTuning, OptimizerPlan, Thaw, catalogue, param_groups, regrouped
from optselect.building import groups
from optselect.catalogue.registry import OURS
from optselect.configuration import Configuration
from optselect.errors import ConfigurationError, PlanMismatchError
from optselect.parameters.anatomy import anatomy_of
from optselect.plan import ModelFingerprint
from optselect.recipes.digits import DigitsData, DigitsModel
from tests.support.small import net, vectors

POLICY = FineTuning(layer_decay=0.5, head_lr_ratio=3.0)
ALONE = [spec.name for spec in OURS if spec.dense and not spec.partner and spec.factory.startswith("torch.")]


def plan_for(model: nn.Module, name: str, policy: FineTuning | None = None) -> OptimizerPlan:
    values = catalogue.get(name).defaults()
    configuration = Configuration(optimizer=name, hyperparameters=values, fine_tuning=policy)
    return OptimizerPlan(
        configuration=configuration,
        param_groups=groups.param_groups(anatomy_of(model), configuration),
        model_fingerprint=ModelFingerprint.of(model),
    )


def stepped(model: nn.Module, optimizer: Any) -> list[torch.Tensor]:
    inputs, labels = vectors().tensors

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        return loss

    torch.manual_seed(0)
    for _ in range(5):
        optimizer.step(closure)
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("name", ALONE)
def test_the_optimizer_of_torch_over_the_groups_of_a_plan_trains_as_the_plans_own(name: str) -> None:
    ours, theirs = net(), net()
    plan = plan_for(ours, name)

    one = stepped(ours, plan.build(ours)[0])
    other = stepped(theirs, catalogue.get(name).load()(plan.param_groups_of(theirs)))

    assert all(torch.equal(first, second) for first, second in zip(one, other, strict=True))


def test_of_a_plan_of_two_optimizers_one_is_asked_for() -> None:
    model = net()
    plan = plan_for(model, "muon")

    named = {name: [each["name"] for each in plan.param_groups_of(model, name)] for name in ("muon", "adamw")}

    assert named == {
        name: [each.name for each in plan.param_groups if each.optimizer == name] for name in ("muon", "adamw")
    }
    with pytest.raises(ConfigurationError, match="optimizer='muon'"):
        plan.param_groups_of(model)
    with pytest.raises(ConfigurationError, match="it has some for muon, adamw"):
        plan.param_groups_of(model, "sgd")


def test_groups_of_another_model_are_refused() -> None:
    with pytest.raises(PlanMismatchError):
        plan_for(net(), "adamw").param_groups_of(nn.Linear(2, 2))


def test_what_joins_later_and_what_is_the_users_own_is_refused() -> None:
    model = net()
    own = OptimizerPlan(configuration=Configuration(optimizer="user"), model_fingerprint=ModelFingerprint.of(model))

    with pytest.raises(ConfigurationError, match="join the training later"):
        plan_for(model, "adamw", FineTuning(thaw=Thaw(step=3))).param_groups_of(model)
    with pytest.raises(ConfigurationError, match="join the training later"):
        param_groups(model, FineTuning(thaw=Thaw(step=3)), lr=0.1)
    with pytest.raises(ConfigurationError, match="configure_optimizers"):
        own.param_groups_of(model)


def test_a_policy_alone_gives_the_rates_and_decays_that_a_plan_with_it_has() -> None:
    model = net()
    plan = plan_for(model, "adamw", POLICY)
    lr, decay = (float(plan.hyperparameters[name]) for name in ("lr", "weight_decay"))

    by_hand = param_groups(model, POLICY, lr=lr, weight_decay=decay)

    def told(found: list[dict[str, Any]]) -> dict[int, tuple[float, float]]:
        return {id(each): (group["lr"], group["weight_decay"]) for group in found for each in group["params"]}

    assert told(by_hand) == told(plan.param_groups_of(model))
    assert len({rate for rate, _ in told(by_hand).values()}) > 2


def test_what_a_policy_freezes_is_in_no_group_and_stays_as_it_is() -> None:
    model = net()

    found = param_groups(model, FineTuning(freeze=r"^body"), lr=0.1)

    grouped = {id(each) for group in found for each in group["params"]}
    assert 0 < len(grouped) < len(list(model.parameters()))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_an_optimizer_that_somebody_else_made_is_regrouped_with_its_own_values() -> None:
    model = net()
    made = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.1, betas=(0.8, 0.9))

    same = regrouped(made, model, POLICY)

    wanted = param_groups(model, POLICY, lr=0.02, weight_decay=0.1)
    assert same is made
    assert [(each["lr"], each["weight_decay"], each["betas"]) for each in same.param_groups] == [
        (each["lr"], each["weight_decay"], (0.8, 0.9)) for each in wanted
    ]


def test_one_that_is_grouped_so_comes_back_as_it_is_and_one_grouped_otherwise_is_refused() -> None:
    model = net()
    once = regrouped(torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.1), model, POLICY)
    groups_then = [(group["lr"], group["weight_decay"]) for group in once.param_groups]
    stepped(model, once)

    again = regrouped(once, model, POLICY)

    assert again is once
    assert [(group["lr"], group["weight_decay"]) for group in again.param_groups] == groups_then
    # Of the same parts, at other rates.
    with pytest.raises(ConfigurationError, match="groups"):
        regrouped(once, model, FineTuning(layer_decay=0.4, head_lr_ratio=3.0))


def test_one_that_is_at_work_or_under_a_scheduler_is_refused() -> None:
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)

    with pytest.raises(ConfigurationError, match="after the optimizer is regrouped"):
        regrouped(optimizer, model, POLICY)
    stepped(model, worked := torch.optim.AdamW(model.parameters()))
    with pytest.raises(ConfigurationError, match="has made steps"):
        regrouped(worked, model, POLICY)


class PolicyCLI(LightningCLI):
    """A user's own, in five lines."""

    @staticmethod
    def configure_optimizers(
        lightning_module: L.LightningModule, optimizer: torch.optim.Optimizer, lr_scheduler: Any = None
    ) -> Any:
        return LightningCLI.configure_optimizers(
            lightning_module, regrouped(optimizer, lightning_module, FineTuning(layer_decay=0.5)), lr_scheduler
        )


# jsonargparse deprecates what some releases of Lightning call.
@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_lightning_cli_trains_its_optimizer_by_a_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It writes its config where it is run.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py"])
    arguments = ["--seed_everything=0", "--optimizer=torch.optim.AdamW", "--optimizer.lr=0.01", "--trainer.max_steps=2"]
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    cli = PolicyCLI(DigitsModel, DigitsData, run=False, args=arguments, trainer_defaults=quiet)

    cli.trainer.fit(cli.model, cli.datamodule)

    rates = sorted({round(group["lr"], 6) for group in cli.trainer.optimizers[0].param_groups})
    assert rates == [0.0025, 0.005, 0.01]


@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_what_lightning_cli_makes_by_a_policy_is_a_candidate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py"])
    arguments = [
        "--seed_everything=0",
        "--optimizer=torch.optim.AdamW",
        "--optimizer.lr=0.01",
        "--trainer.max_epochs=1",
    ]
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    auto = AutoOptimizer(budget=1.0, candidates=["user", "momentum"], report=False)
    defaults = {**quiet, "callbacks": [auto]}
    cli = PolicyCLI(DigitsModel, DigitsData, run=False, args=arguments, trainer_defaults=defaults)

    cli.trainer.fit(cli.model, cli.datamodule)

    assert {trial.configuration.optimizer for trial in auto.chosen.trials} == {"user", "momentum"}
