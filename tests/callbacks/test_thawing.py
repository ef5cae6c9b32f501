"""Parts that join a Lightning training later."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import BackboneFinetuning, EMAWeightAveraging, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from optselect import (
    AutoOptimizer,
    Budget,
    ConfigurationError,
    FineTuning,
    MetricNotLoggedError,
    Thaw,
    UnsupportedModuleError,
)
from optselect.callbacks.auto_optimizer import SearchFallbackWarning
from tests.support.comparison import differences, fitting
from tests.support.modules import (
    CLASSES,
    FEATURES,
    Classifier,
    SparseClassifier,
    StopAfter,
    auto,
    equal_states,
    fit,
    loaders,
    made,
    tokens,
)

# Twelve steps an epoch, four epochs: before, at and after the ends of epochs.
STEPWISE = FineTuning(
    head_lr_ratio=3.0, layer_decay=0.7, thaw=[Thaw(step=9, layers=1), Thaw(epoch=2, layers=2), Thaw(share=0.6)]
)
PLATEAUS = FineTuning(head_lr_ratio=3.0, thaw=[Thaw(patience=1, layers=1), Thaw(patience=1)])


class Deep(Classifier):
    """Three layers and a head, dropout and BatchNorm among them."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(FEATURES, 16),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Linear(16, 16),
            nn.Dropout(0.2),
            nn.ReLU(),
            nn.Linear(16, 16),
            nn.ReLU(),
            nn.Linear(16, CLASSES),
        )


class Manual(Deep):
    automatic_optimization = False


def chosen(tmp_path: Path, policy: FineTuning, optimizer: str = "adamw", **arguments: Any) -> AutoOptimizer:
    return auto(tmp_path, **{"candidates": [optimizer], "budget": 0, "fine_tuning": policy, **arguments})


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize(
    "optimizer, policy, kind",
    [
        ("adamw", STEPWISE, Deep),
        ("adamw", PLATEAUS, Deep),
        ("muon", STEPWISE, Deep),
        ("schedulefree_adamw", STEPWISE, Deep),
        ("sparse_adam", FineTuning(head_lr_ratio=3.0, thaw=Thaw(step=16)), SparseClassifier),
    ],
)
def test_a_run_resumed_around_its_thaws_is_the_uninterrupted_one(
    optimizer: str, policy: FineTuning, kind: Any, stop: int, tmp_path: Path
) -> None:
    def data() -> Any:
        return loaders(tokens) if kind is SparseClassifier else loaders()

    clipped: Any = {"epochs": 4, "gradient_clip_val": 0.5}
    whole = made(kind)
    uninterrupted = fit(whole, chosen(tmp_path / "whole", policy, optimizer), data=data(), **clipped)
    half = fit(made(kind), chosen(tmp_path / "half", policy, optimizer), StopAfter(stop), data=data(), **clipped)
    half.save_checkpoint(tmp_path / "half.ckpt")

    rest = made(kind, seed=5)
    resumed = fit(rest, auto(tmp_path / "rest"), data=data(), seed=9, ckpt_path=tmp_path / "half.ckpt", **clipped)

    assert equal_states(rest.state_dict(), whole.state_dict())
    assert equal_states(optimizer_state(resumed), optimizer_state(uninterrupted))
    assert equal_states(*([c.scheduler.state_dict() for c in t.lr_scheduler_configs] for t in (resumed, uninterrupted)))


def optimizer_state(trainer: Any) -> Any:
    """Without the key that torch itself adds to what it loads, and not to what joins later."""
    state = trainer.optimizers[0].state_dict()
    for group in state["param_groups"]:
        group.pop("differentiable", None)
    return state


class Watch(L.Callback):
    """Which layers are trained, and how many groups there are, at the beginning of every epoch."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        layers = dict.fromkeys(name.split(".")[1] for name, each in pl_module.named_parameters() if each.requires_grad)
        self.seen.append((" ".join(layers), len(trainer.optimizers[0].param_groups)))


def test_layers_join_at_their_epochs(tmp_path: Path) -> None:
    watch = Watch()
    policy = FineTuning(thaw=[Thaw(epoch=1, layers=1), Thaw(epoch=2)])

    fit(made(Deep), chosen(tmp_path, policy), watch, epochs=3)

    assert watch.seen == [("8", 2), ("6 8", 4), ("0 1 3 6 8", 6)]


def test_an_accumulated_epoch_has_fewer_steps(tmp_path: Path) -> None:
    watch = Watch()

    fit(made(Deep), chosen(tmp_path, FineTuning(thaw=Thaw(epoch=2))), watch, epochs=3, accumulate_grad_batches=5)

    assert [layers for layers, _ in watch.seen] == ["8", "8", "0 1 3 6 8"]


def test_after_the_fit_everything_wants_gradients_again(tmp_path: Path) -> None:
    module = made(Deep)
    callback = chosen(tmp_path, FineTuning(freeze=r"net\.0", thaw=Thaw(epoch=2)))
    fit(module, callback, epochs=3)

    wanted = [parameter.requires_grad for parameter in module.parameters()]
    fit(module, callback, epochs=3)

    assert all(wanted)


def test_a_search_with_thaws_leaves_no_trace(tmp_path: Path) -> None:
    policy = FineTuning(head_lr_ratio=3.0, thaw=Thaw(epoch=1))

    different = differences(fitting(), tmp_path, Deep, fine_tuning=policy)

    assert different == []


def test_a_trial_thaws_where_the_real_training_would(tmp_path: Path) -> None:
    seen = []

    class Looks(Deep):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            seen.append(self.net[0].weight.requires_grad)

    callback = chosen(tmp_path, FineTuning(thaw=Thaw(step=5)), budget=Budget(trials=1))
    fit(made(Looks), callback, epochs=2)

    assert callback.profile is not None
    trial, real = seen[callback.profile.gradient.passes : -24], seen[-24:]
    assert trial == real[: len(trial)] == [False] * 5 + [True] * (len(trial) - 5)
    assert len(trial) > 5


def test_names_of_groups_are_shown_as_they_join(tmp_path: Path) -> None:
    monitor = LearningRateMonitor()

    fit(made(Deep), chosen(tmp_path, FineTuning(thaw=Thaw(epoch=1))), monitor, logger=CSVLogger(tmp_path))

    shown = {name.partition("/")[2] for name in monitor.lrs}
    assert shown >= {"adamw/head/decay", "adamw/backbone/decay/thaw 1"}


def test_beside_backbone_finetuning_each_owns_what_it_froze(tmp_path: Path) -> None:
    class WithBackbone(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU())
            self.middle = nn.Linear(16, 16)
            self.net = nn.Sequential(self.backbone, self.middle, nn.ReLU(), nn.Linear(16, CLASSES))

    module = made(WithBackbone)
    watch = Watch()
    theirs = BackboneFinetuning(unfreeze_backbone_at_epoch=2, backbone_initial_lr=1e-4)

    fit(module, chosen(tmp_path, FineTuning(thaw=Thaw(epoch=1))), theirs, watch, epochs=3)

    assert [count for _, count in watch.seen] == [2, 4, 5]


def test_weight_averaging_and_checkpoints_go_along(tmp_path: Path) -> None:
    company = [EMAWeightAveraging(decay=0.9), ModelCheckpoint(tmp_path, monitor="val_loss", save_last=True)]

    trainer = fit(
        made(Deep), chosen(tmp_path, FineTuning(thaw=Thaw(epoch=1))), *company, epochs=3, enable_checkpointing=True
    )

    assert (tmp_path / "last.ckpt").exists()
    assert len(trainer.optimizers[0].param_groups) == 4


@pytest.fixture
def _one_process_group() -> Iterator[None]:
    """Lightning leaves its process group and its environment behind, and later trainings would go by them."""
    before = dict(os.environ)
    yield
    torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.usefixtures("_one_process_group")
@pytest.mark.parametrize("policy", [FineTuning(thaw=Thaw(epoch=1)), FineTuning(freeze=r"net\.0")])
def test_ddp_that_does_not_look_for_unused_parameters_is_refused_before_the_search(
    policy: FineTuning, tmp_path: Path
) -> None:
    callback = chosen(tmp_path, policy, budget=None)

    with pytest.raises(ConfigurationError, match="ddp_find_unused_parameters_true"):
        fit(made(Deep), callback, strategy="ddp")

    assert callback.study is None


@pytest.mark.usefixtures("_one_process_group")
# On one process there is nothing to accumulate across devices.
@pytest.mark.filterwarnings("ignore:It is recommended to use .*sync_dist=True:UserWarning")
def test_ddp_that_looks_for_unused_parameters_thaws(tmp_path: Path) -> None:
    watch = Watch()

    fit(
        made(Deep),
        chosen(tmp_path, FineTuning(thaw=Thaw(epoch=1))),
        watch,
        strategy="ddp_find_unused_parameters_true",
    )

    assert [layers for layers, _ in watch.seen] == ["8", "0 1 3 6 8"]


def test_manual_optimization_has_no_scheduler_that_could_thaw(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="in manual optimization"):
        fit(made(Manual), chosen(tmp_path, FineTuning(thaw=Thaw(epoch=1))))


def test_a_plateau_of_what_is_not_logged_is_a_named_error(tmp_path: Path) -> None:
    callback = chosen(tmp_path, FineTuning(thaw=Thaw(patience=1)), monitor="val_los")

    with pytest.raises(MetricNotLoggedError, match=r"'val_los'.*Did you mean 'val_loss'"):
        fit(made(Deep), callback)


def test_a_policy_that_does_not_fit_is_refused_before_anything_runs(tmp_path: Path) -> None:
    callback = chosen(tmp_path, FineTuning(freeze="no_such"), budget=None)

    with pytest.raises(ConfigurationError, match="'no_such' matches none"):
        fit(made(Deep), callback)

    assert callback.study is None


def test_a_function_is_in_the_plan_as_names(tmp_path: Path) -> None:
    callback = chosen(tmp_path, FineTuning(no_decay=lambda name: name == "net.3.weight"))

    fit(made(Deep), callback)

    assert callback.plan is not None
    assert callback.plan.fine_tuning == FineTuning(no_decay=r"^net\.3\.weight$")
    undecayed = [group for group in callback.plan.param_groups if group.hyperparameters["weight_decay"] == 0]
    assert any("net.3.weight" in group.parameters for group in undecayed)


def test_a_search_with_functions_in_its_policy_is_one_of_the_names_that_they_mean(tmp_path: Path) -> None:
    functions = FineTuning(freeze=lambda name: name.startswith("net.0."), rates={lambda name: "net.3." in name: 2.0})
    callback = chosen(tmp_path, functions, budget=Budget(steps=90))

    fit(made(Deep), callback)

    assert callback.plan is not None
    tried = [trial.configuration.fine_tuning for trial in callback.plan.trials]
    assert any(policy is not None and json.dumps(policy.to_dict()) for policy in tried)
    frozen = {name for group in callback.plan.param_groups if group.frozen for name in group.parameters}
    assert frozen == {"net.0.weight", "net.0.bias"}


class Gradual(Deep):
    """Its own hook lets the first layer train from the second epoch on."""

    def on_train_epoch_start(self) -> None:
        self.net[0].requires_grad_(self.current_epoch >= 1)


@pytest.mark.parametrize("budget", [0, Budget(steps=60)])
@pytest.mark.parametrize("policy", [FineTuning(head_lr_ratio=2.0), FineTuning(head=r"net\.8", head_lr_ratio=2.0)])
def test_what_a_hook_of_the_module_freezes_for_a_time_is_in_a_group_and_trains(
    policy: FineTuning, budget: float | Budget, tmp_path: Path
) -> None:
    module, callback = made(Gradual), chosen(tmp_path, policy, budget=budget)
    before = module.net[0].weight.detach().clone()

    fit(module, callback, epochs=3)

    assert callback.plan is not None
    grouped = {name for group in callback.plan.param_groups for name in group.parameters}
    assert grouped == set(callback.plan.model_fingerprint.shapes)
    assert not torch.equal(module.net[0].weight, before)


class Scored(nn.Module):
    """The head is registered before what it stands on, under a name that does not tell."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(16, CLASSES)
        self.upper = nn.Linear(16, 16)
        self.lower = nn.Linear(FEATURES, 16)

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.scores(torch.relu(self.upper(torch.relu(self.lower(inputs)))))
        return scores


class HeadFirst(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.net = Scored()  # type: ignore[assignment]  # a module like the other


def peaks(trainer: L.Trainer) -> dict[str, float]:
    """The peak rate of every matrix over that of the layer below the head."""
    found = {
        name: group["initial_lr"]
        for group in trainer.optimizers[0].param_groups
        for name, parameter in trainer.lightning_module.named_parameters()
        if name.endswith("weight") and any(parameter is each for each in group["params"])
    }
    return {name: lr / found["net.upper.weight"] for name, lr in found.items()}


def test_rates_go_by_the_order_in_which_layers_run_and_a_resumed_run_has_the_same(tmp_path: Path) -> None:
    policy = FineTuning(head_lr_ratio=10.0, layer_decay=0.5)
    begun = fit(made(HeadFirst), chosen(tmp_path / "one", policy), StopAfter(1), epochs=2)
    begun.save_checkpoint(tmp_path / "one.ckpt")

    resumed = fit(made(HeadFirst), auto(tmp_path / "two"), epochs=2, ckpt_path=tmp_path / "one.ckpt")

    expected = {"net.scores.weight": 20.0, "net.upper.weight": 1.0, "net.lower.weight": 0.5}
    assert peaks(begun) == pytest.approx(expected)
    assert peaks(resumed) == pytest.approx(expected)


def test_groups_that_are_treated_alike_are_one_line_of_the_monitor(tmp_path: Path) -> None:
    monitor = LearningRateMonitor()

    fit(made(Deep), chosen(tmp_path, FineTuning(head_lr_ratio=10.0)), monitor, logger=CSVLogger(tmp_path), epochs=1)

    shown = {name.partition("/")[2] for name in monitor.lrs}
    assert shown == {f"adamw/{part}/{decay}" for part in ("head", "backbone") for decay in ("decay", "no_decay")}


@pytest.mark.parametrize("policy", ["auto", FineTuning(head_lr_ratio=3.0)])
def test_a_module_of_which_all_is_frozen_is_refused_by_name(policy: Any, tmp_path: Path) -> None:
    module = made(Deep).requires_grad_(False)

    with (
        pytest.warns(SearchFallbackWarning, match="no trainable parameter"),
        pytest.raises(UnsupportedModuleError, match="no trainable parameter; set requires_grad=True"),
    ):
        fit(module, chosen(tmp_path, policy))
