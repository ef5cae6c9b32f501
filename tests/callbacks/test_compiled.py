"""A module that runs compiled is searched, trained and resumed as the same module that does not."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from optselect import Budget, OptimizerPlan, TorchWorkload, measure, select
from tests.support.comparison import differences, fitting
from tests.support.modules import Classifier, StopAfter, auto, equal_states, fit, loaders, made, rows

# torch's own: `log`, which is not compiled, ends a graph whose loss is handed on to the next.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")


class Written(Classifier):
    """Keeps the compiler out of Lightning's `log`, which torch 2.13 fails to compile, with or without us."""

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch leaves it so
    def log(self, *args: Any, **kwargs: Any) -> None:
        super().log(*args, **kwargs)


class Compiled(Written):
    """Compiles its network itself."""

    backend = "eager"

    def __init__(self) -> None:
        super().__init__()
        network: Any = torch.compile(self.net, backend=self.backend)
        self.net = network


class CompiledLayers(Written):
    """Compiles some of its layers, and its network in place."""

    def __init__(self) -> None:
        super().__init__()
        for place in (0, 4):
            layer: Any = torch.compile(self.net[place], backend="eager")
            self.net[place] = layer
        self.net.compile(backend="eager")


class Inductor(Compiled):
    backend = "inductor"


def whole(module: L.LightningModule) -> Any:
    return torch.compile(module, backend="eager")


def as_it_is(module: L.LightningModule) -> Any:
    return module


KINDS: dict[str, Any] = {
    "whole": (whole, Written),
    "its network": (as_it_is, Compiled),
    "its layers and in place": (as_it_is, CompiledLayers),
}


@pytest.fixture(autouse=True)
def _nothing_compiled() -> None:
    torch.compiler.reset()


def ragged() -> Any:
    """The last batch of an epoch is a smaller one: torch makes graphs for any size where it has seen two."""
    return DataLoader(rows(100), batch_size=16, shuffle=True), DataLoader(rows(40), batch_size=16)


def chosen(folder: Path, compiled: Any, kind: Any) -> OptimizerPlan:
    callback = auto(folder, candidates=["muon"], budget=Budget(steps=40))
    fit(compiled(made(kind)), callback, data=ragged(), default_root_dir=folder)
    return callback.chosen


def told(plan: OptimizerPlan) -> Any:
    """What the plan says of the model and of its trials, but for how long they took and whether it ran again."""
    assert plan.profile is not None
    executed = tuple(dict.fromkeys(plan.profile.model.executed))
    profile = replace(plan.profile, model=replace(plan.profile.model, executed=executed, memory_free=None))
    return plan.configuration, plan.param_groups, plan.model_fingerprint, profile, [t.value for t in plan.trials]


@pytest.fixture(scope="module")
def of_the_written(tmp_path_factory: pytest.TempPathFactory) -> OptimizerPlan:
    return chosen(tmp_path_factory.mktemp("written"), as_it_is, Written)


@pytest.mark.parametrize("kind", KINDS)
def test_the_choice_is_that_of_the_module_that_was_written(
    kind: str, of_the_written: OptimizerPlan, tmp_path: Path
) -> None:
    plan = chosen(tmp_path, *KINDS[kind])

    assert told(plan) == told(of_the_written)


@pytest.mark.parametrize("kind", ["whole", "its network"])
def test_the_training_is_the_hand_written_one(kind: str, tmp_path: Path) -> None:
    compiled, module_type = KINDS[kind]

    def scenario(module: Any, callbacks: list[L.Callback], folder: Path) -> L.Trainer:
        torch.compiler.reset()
        return fitting(data=ragged)(compiled(module), callbacks, folder)

    assert differences(scenario, tmp_path, module_type) == []


@pytest.mark.slow
# torch's own, on importing its code generator.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a compiler for C++")
def test_generated_kernels_round_as_in_the_hand_written_training(tmp_path: Path) -> None:
    """What trials have compiled is forgotten: else validation would run kernels for any size from the first epoch."""

    def scenario(module: Any, callbacks: list[L.Callback], folder: Path) -> L.Trainer:
        torch.compiler.reset()
        return fitting(data=ragged)(module, callbacks, folder)

    assert differences(scenario, tmp_path, Inductor) == []


@pytest.mark.parametrize("before, after", [("its network", "written"), ("written", "its network")])
def test_a_run_resumes_compiled_or_not_whichever_it_was(before: str, after: str, tmp_path: Path) -> None:
    kinds = {**KINDS, "written": (as_it_is, Written)}
    (compile_one, one), (compile_other, other) = kinds[before], kinds[after]
    choice: dict[str, Any] = {"candidates": ["muon"], "budget": 0}
    uninterrupted = made(other)
    fit(compile_other(uninterrupted), auto(tmp_path / "whole", **choice), epochs=4)
    stopped = fit(compile_one(made(one)), auto(tmp_path / "half", **choice), StopAfter(2), epochs=4)
    stopped.save_checkpoint(tmp_path / "half.ckpt")

    continued, callback = made(other, seed=5), auto(tmp_path / "rest")
    fit(compile_other(continued), callback, epochs=4, seed=9, ckpt_path=tmp_path / "half.ckpt")

    assert callback.study is None
    assert equal_states(continued.state_dict(), uninterrupted.state_dict())


def test_weights_of_another_module_are_refused_as_without_us(tmp_path: Path) -> None:
    fit(made(Compiled), auto(tmp_path, budget=0)).save_checkpoint(tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    content["state_dict"]["net._orig_mod.9.weight"] = torch.zeros(1)
    torch.save(content, tmp_path / "b.ckpt")

    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "net.9.weight"'):
        fit(made(Written), auto(tmp_path, budget=0), epochs=3, ckpt_path=tmp_path / "b.ckpt")


def network(*, compiled: bool) -> Any:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    return torch.compile(net, backend="eager") if compiled else net


def test_a_plain_loop_is_searched_and_its_plan_built_compiled_or_not() -> None:
    def plan_of(model: Any) -> OptimizerPlan:
        workload = TorchWorkload(model, nn.functional.cross_entropy, *loaders(), steps=60)
        return select(workload, budget=Budget(steps=60), candidates=["muon", "adamw"])

    plans = {compiled: plan_of(network(compiled=compiled)) for compiled in (False, True)}

    assert told(plans[True]) == told(plans[False])
    for compiled in (False, True):
        optimizer, _ = plans[not compiled].build(network(compiled=compiled))
        assert sum(len(group["params"]) for group in optimizer.param_groups) == 6


def test_the_code_of_a_plan_fits_compiled_or_not(of_the_written: OptimizerPlan) -> None:
    session: dict[str, Any] = {"__name__": "chosen"}
    exec(compile(of_the_written.as_code(), "chosen.py", "exec"), session)  # noqa: S102  # that it runs is what is tested

    module = made(Compiled)
    optimizer = session["configure_optimizers"](module)["optimizer"]

    trained = {id(each) for group in optimizer.param_groups for each in group["params"]}
    assert trained == {id(each) for each in module.parameters()}


def test_a_first_pass_without_room_leaves_the_order_unknown_and_is_run_compiled() -> None:
    class NeedsRoom(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network(compiled=False)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.net(inputs)
            if not torch.compiler.is_compiling():
                raise torch.OutOfMemoryError("no room for it as it is written")
            return scores

    model: Any = torch.compile(NeedsRoom(), backend="eager")

    profile = measure(TorchWorkload(model, nn.functional.cross_entropy, loaders()[0], None, steps=60), passes=4)

    assert profile.model.executed == ()
    assert profile.gradient.passes == 4
