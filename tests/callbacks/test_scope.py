"""What the user's own optimizer trains is what a plan may train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from optselect import OptimizerPlan
from optselect.callbacks.decision import SearchFallbackWarning
from tests.support.modules import Classifier, StopAfter, auto, equal_states, fit, loaders, made, rows

BODY = ("net.0.weight", "net.0.bias", "net.1.weight", "net.1.bias", "net.4.weight", "net.4.bias")
HEAD = ("net.6.weight", "net.6.bias")


class Probe(Classifier):
    """Trains its head alone."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.net[6].parameters(), lr=1e-4)


class FreezesWhileItConfigures(Classifier):
    """Its backbone is frozen where the optimizer is made."""

    def configure_optimizers(self) -> Any:
        self.net[:6].requires_grad_(requires_grad=False)
        return torch.optim.SGD((each for each in self.parameters() if each.requires_grad), lr=1e-4)


class AtARateOfZero(Classifier):
    """Its backbone has a group that never moves."""

    def configure_optimizers(self) -> Any:
        groups: list[dict[str, Any]] = [
            {"params": self.net[:6].parameters(), "lr": 0.0},
            {"params": self.net[6].parameters()},
        ]
        return torch.optim.SGD(groups, lr=1e-4)


class WithItsSchedule(Classifier):
    """Lightning's longer form."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.net[6].parameters(), lr=1e-6)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


class FrozenInPart(Probe):
    """One layer is frozen for good, another left out."""

    def __init__(self) -> None:
        super().__init__()
        self.net[0].requires_grad_(requires_grad=False)


PARTIAL = [Probe, FreezesWhileItConfigures, AtARateOfZero, WithItsSchedule, FrozenInPart]


def fitted(kind: type[L.LightningModule], path: Path, **settings: Any) -> tuple[Any, OptimizerPlan]:
    module, callback = made(kind), auto(path, candidates=["adam"], **{"budget": 0, **settings})
    # Judged on the rows that it trains on: what learns faster is better beyond doubt.
    fit(module, callback, data=(loaders()[0], DataLoader(rows(), batch_size=32)), epochs=8)
    assert callback.plan is not None
    return module, callback.plan


@pytest.mark.parametrize("kind", PARTIAL)
def test_what_the_own_optimizer_leaves_out_stays_as_it_was(kind: type[L.LightningModule], tmp_path: Path) -> None:
    before = dict(made(kind).named_parameters())

    module, plan = fitted(kind, tmp_path)

    after = dict(module.named_parameters())
    assert plan.optimizer == "adam"
    assert {name for name in after if not torch.equal(after[name], before[name])} == set(HEAD)


@pytest.mark.parametrize("kind", PARTIAL)
def test_trials_leave_out_what_the_own_optimizer_does(kind: type[L.LightningModule], tmp_path: Path) -> None:
    before = dict(made(kind).named_parameters())

    module, plan = fitted(kind, tmp_path, budget=1.5, fine_tuning=False)

    after = dict(module.named_parameters())
    assert plan.trials
    assert plan.optimizer == "adam"
    assert {name for name in after if not torch.equal(after[name], before[name])} == set(HEAD)


@pytest.mark.parametrize("kind", PARTIAL)
def test_no_parameter_is_frozen_or_unfrozen_by_a_plan(kind: type[L.LightningModule], tmp_path: Path) -> None:
    before = {name: each.requires_grad for name, each in made(kind).named_parameters()}

    module, _ = fitted(kind, tmp_path)

    assert {name: each.requires_grad for name, each in module.named_parameters()} == before


@pytest.mark.parametrize("kind", PARTIAL)
def test_what_is_left_out_counts_as_frozen_and_the_plan_says_so(kind: type[L.LightningModule], tmp_path: Path) -> None:
    module, plan = fitted(kind, tmp_path)

    shapes = {name: each.numel() for name, each in module.named_parameters()}
    frozen = {name for name, each in module.named_parameters() if not each.requires_grad}
    assert plan.profile is not None
    assert plan.profile.model.frozen == sum(shapes[name] for name in BODY)
    assert plan.profile.model.parameters == sum(shapes[name] for name in HEAD)
    assert not set(plan.profile.gradient.relative_norms) & set(BODY)
    assert plan.model_fingerprint.left_out == set(BODY) - frozen
    assert [name for group in plan.param_groups for name in group.parameters] == list(HEAD)
    assert next(reason.value for reason in plan.reasons_of("own")) == len(set(BODY) - frozen)
    assert f"leaves {len(set(BODY) - frozen)} of" in plan.explain()
    assert "left out" in plan.explain()


def test_a_plan_that_leaves_parameters_out_is_the_same_from_json(tmp_path: Path) -> None:
    _, plan = fitted(Probe, tmp_path)

    again = OptimizerPlan.from_dict(plan.to_dict())

    assert again == plan


def test_a_resumed_run_leaves_out_what_was_left_out(tmp_path: Path) -> None:
    def callback(name: str) -> Any:
        return auto(tmp_path / name, candidates=["adam"], budget=0)

    whole = made(Probe)
    fit(whole, callback("whole"), epochs=4)
    stopped = fit(made(Probe), callback("half"), StopAfter(2), epochs=4)
    stopped.save_checkpoint(tmp_path / "half.ckpt")

    resumed, later = made(Probe, seed=5), callback("later")
    fit(resumed, later, epochs=4, ckpt_path=tmp_path / "half.ckpt")

    assert later.study is None
    assert equal_states(resumed.state_dict(), whole.state_dict())


class Grouped(Classifier):
    """A rate for the backbone, another for the head."""

    def configure_optimizers(self) -> Any:
        groups: list[dict[str, Any]] = [
            {"params": self.net[:6].parameters(), "lr": 1e-5},
            {"params": self.net[6].parameters()},
        ]
        return torch.optim.SGD(groups, lr=1e-4)


def test_the_groups_of_the_own_optimizer_are_explained(tmp_path: Path) -> None:
    _, plan = fitted(Grouped, tmp_path)

    (said,) = map(str, plan.reasons_of("own"))

    assert "SGD" in said
    assert "2 groups" in said
    assert "lr=1e-05" in said
    assert "net.6.weight, net.6.bias" in said


def test_of_an_optimizer_that_trains_all_alike_nothing_is_said(tmp_path: Path) -> None:
    class Whole(Classifier):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1e-4)

    _, plan = fitted(Whole, tmp_path)

    assert plan.reasons_of("own") == ()
    assert "left_out" not in plan.to_dict()["model_fingerprint"]


class Strangers(Classifier):
    """Its own optimizer trains a layer in a plain list, which is none of its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(3, 3)]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([*self.parameters(), *self.layers[0].parameters()], lr=1e-4)


class UnfreezesWhileItConfigures(Classifier):
    """Its head is frozen until its own optimizer is made."""

    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(requires_grad=False)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.net[6].requires_grad_(requires_grad=True).parameters(), lr=1e-4)


@pytest.mark.parametrize("kind", [Strangers, UnfreezesWhileItConfigures])
def test_what_no_other_optimizer_could_be_given_trains_with_its_own(
    kind: type[L.LightningModule], tmp_path: Path
) -> None:
    module, callback = made(kind), auto(tmp_path, candidates=["adam"], budget=1.0)

    with pytest.warns(SearchFallbackWarning, match=r"no parameters of the model|unfreezes net\.6"):
        trainer = fit(module, callback, epochs=1)

    assert callback.plan is None
    assert isinstance(trainer.optimizers[0], torch.optim.SGD)
