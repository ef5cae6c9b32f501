"""Several optimizers as one."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optselect.errors import ConfigurationError, ResumeError, UnsupportedModuleError
from optselect.optim.composite import ROUTE, CompositeOptimizer
from optselect.optim.modes import has_modes
from tests.support.small import loader, net, sentences, vectors, words

Children = dict[str, Optimizer]


def sparse_and_dense(model: nn.Module) -> Children:
    parameters = dict(model.named_parameters())
    table = parameters.pop("table.weight")
    return {
        "sparse_adam": torch.optim.SparseAdam([table], lr=0.02),
        "adamw": torch.optim.AdamW(
            [
                {"params": [p for p in parameters.values() if p.ndim == 2], "weight_decay": 0.1},
                {"params": [p for p in parameters.values() if p.ndim == 1], "weight_decay": 0.0, "lr": 0.005},
            ],
            lr=0.01,
        ),
    }


def matrices_and_rest(model: nn.Module) -> Children:
    hidden = ["body.0.weight", "hidden.weight"]
    parameters = dict(model.named_parameters())
    return {
        "muon": torch.optim.Muon([parameters[name] for name in hidden], lr=0.02),
        "adamw": torch.optim.AdamW([p for name, p in parameters.items() if name not in hidden], lr=0.01),
    }


Case = tuple[Callable[[], nn.Module], Callable[[nn.Module], Children], Callable[[], Any]]
CASES: dict[str, Case] = {
    "sparse+dense": (words, sparse_and_dense, sentences),
    "muon+adamw": (net, matrices_and_rest, vectors),
}
case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def batches(data: Any) -> list[tuple[Tensor, ...]]:
    return [tuple(batch) for batch in loader(data, shuffle=False)]


def loss_of(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    torch.manual_seed(3)  # the same dropout everywhere
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def train(model: nn.Module, optimizers: list[Optimizer], data: list[tuple[Tensor, ...]]) -> None:
    for batch in data:
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss_of(model, batch).backward()
        for optimizer in optimizers:
            optimizer.step()


def made(case: Case) -> tuple[nn.Module, CompositeOptimizer, list[tuple[Tensor, ...]]]:
    model = case[0]()
    return model, CompositeOptimizer(case[1](model)), batches(case[2]())


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@case
def test_it_equals_its_children_stepped_by_hand_bit_for_bit(case: Case) -> None:
    model, composite, data = made(case)
    by_hand = case[0]()

    train(model, [composite], data)
    train(by_hand, list(case[1](by_hand).values()), data)

    assert same_weights(model, by_hand)
    assert not same_weights(model, case[0]())


@case
def test_saved_and_loaded_midway_it_equals_the_uninterrupted_one(case: Case) -> None:
    model, composite, data = made(case)
    train(model, [composite], data[:3])
    stored = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": composite.state_dict()}, stored)
    train(model, [composite], data[3:])

    resumed, second, _ = made(case)
    stored.seek(0)
    saved = torch.load(stored, weights_only=True)
    resumed.load_state_dict(saved["model"])
    second.load_state_dict(saved["optimizer"])
    train(resumed, [second], data[3:])

    assert same_weights(resumed, model)


@case
def test_its_state_dict_has_torchs_flat_layout(case: Case) -> None:
    model, composite, data = made(case)
    train(model, [composite], data[:1])

    state = composite.state_dict()

    assert set(state) == {"state", "param_groups"}
    numbered = [index for group in state["param_groups"] for index in group["params"]]
    assert numbered == list(range(len(list(model.parameters()))))
    assert set(state["state"]) <= set(numbered)


@case
def test_saving_changes_nothing_and_the_loaded_dict_stays_as_it_was(case: Case) -> None:
    model, composite, data = made(case)
    train(model, [composite], data[:1])
    state = composite.state_dict()
    before = copy.deepcopy(state["param_groups"])

    composite.load_state_dict(state)

    assert state["param_groups"] == before
    assert composite.state_dict()["param_groups"] == before


def fresh(case: Case) -> CompositeOptimizer:
    return made(case)[1]


@pytest.mark.parametrize("broken", ["plain", "other children", "fewer parameters", "fewer groups"])
def test_a_state_of_another_optimizer_is_refused_before_any_child_is_touched(broken: str) -> None:
    model, composite, data = made(CASES["sparse+dense"])
    train(model, [composite], data[:1])
    state = composite.state_dict()
    groups = state["param_groups"]
    wrong = {
        "plain": torch.optim.AdamW(model.parameters()).state_dict(),
        "other children": fresh(CASES["muon+adamw"]).state_dict(),
        "fewer parameters": {
            **state,
            "param_groups": [*groups[:-1], {**groups[-1], "params": groups[-1]["params"][1:]}],
        },
        "fewer groups": {**state, "param_groups": groups[:-1]},
    }[broken]
    target = fresh(CASES["sparse+dense"])
    before = copy.deepcopy(target.state_dict())

    with pytest.raises(ResumeError, match="build the optimizer from the plan"):
        target.load_state_dict(wrong)

    assert target.state_dict() == before


@case
def test_every_group_says_whose_it_is_and_is_the_childs_own(case: Case) -> None:
    _, composite, _ = made(case)

    for name, child in composite.children.items():
        for group in child.param_groups:
            assert group[ROUTE] == name
            assert any(group is each for each in composite.param_groups)


def test_writing_into_a_group_reaches_the_step() -> None:
    model, composite, data = made(CASES["sparse+dense"])
    for group in composite.param_groups:
        group["lr"] = 0.0

    train(model, [composite], data[:2])

    assert same_weights(model, words())


def test_assigned_groups_go_to_the_children_that_they_name() -> None:
    _, composite, _ = made(CASES["sparse+dense"])
    groups = [{**group, "lr": 0.125} for group in composite.param_groups]

    composite.param_groups = groups

    assert all(any(group is each for each in composite.param_groups) for group in groups)
    assert [len(child.param_groups) for child in composite.children.values()] == [1, 2]


@case
def test_the_state_of_a_parameter_is_read_from_and_written_to_its_child(case: Case) -> None:
    model, composite, data = made(case)
    train(model, [composite], data[:1])

    assert len(composite.state) == sum(len(child.state) for child in composite.children.values())
    for child in composite.children.values():
        for parameter, slots in child.state.items():
            assert composite.state[parameter] is slots
            assert parameter in composite.state
            composite.state[parameter] = {**slots, "mine": 1}
            assert child.state[parameter]["mine"] == 1


def test_asking_for_a_state_that_is_not_there_makes_none() -> None:
    model, composite, _ = made(CASES["muon+adamw"])
    parameter = next(model.parameters())

    assert parameter not in composite.state
    assert composite.state.get(parameter) is None
    assert torch.zeros(1) not in composite.state
    assert len(composite.state) == 0


def test_deleting_a_state_deletes_the_childs() -> None:
    model, composite, data = made(CASES["muon+adamw"])
    train(model, [composite], data[:1])
    parameter = next(model.parameters())

    del composite.state[parameter]

    assert all(parameter not in child.state for child in composite.children.values())


def test_state_can_be_moved_while_it_is_walked_as_lightning_does() -> None:
    model, composite, data = made(CASES["sparse+dense"])
    train(model, [composite], data[:1])

    for parameter, slots in composite.state.items():
        composite.state[parameter] = {name: copy.deepcopy(value) for name, value in slots.items()}

    train(model, [composite], data[1:])
    by_hand = words()
    train(by_hand, list(sparse_and_dense(by_hand).values()), data)
    assert same_weights(model, by_hand)


@pytest.mark.parametrize("named", ["muon", "adamw", None])
def test_a_joining_group_goes_to_the_child_it_names_or_to_the_last(named: str | None) -> None:
    model, composite, data = made(CASES["muon+adamw"])
    train(model, [composite], data[:1])
    joining = nn.Parameter(torch.ones(4, 4))
    group: dict[str, Any] = {"params": [joining], "lr": 0.5}

    composite.add_param_group({**group, ROUTE: named} if named else group)

    child = composite.children[named or "adamw"]
    assert child.param_groups[-1]["params"] == [joining]
    assert child.param_groups[-1]["lr"] == 0.5
    joining.grad = torch.ones_like(joining)
    composite.step()
    assert not torch.equal(joining, torch.ones(4, 4))


def test_a_group_for_a_child_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no child optimizer 'lion'; the children are muon, adamw"):
        fresh(CASES["muon+adamw"]).add_param_group({"params": [nn.Parameter(torch.ones(1))], ROUTE: "lion"})


def test_no_parameter_may_be_trained_twice() -> None:
    shared = nn.Parameter(torch.ones(2, 2))
    with pytest.raises(ConfigurationError, match=r"first and second both have a parameter of shape \[2, 2\]"):
        CompositeOptimizer({"first": torch.optim.SGD([shared]), "second": torch.optim.Adam([shared])})

    model, composite, _ = made(CASES["muon+adamw"])
    with pytest.raises(ConfigurationError, match="another group already"):
        composite.add_param_group({"params": model.get_parameter("hidden.weight"), ROUTE: "adamw"})


def test_a_joining_group_takes_a_generator_of_parameters() -> None:
    composite = fresh(CASES["muon+adamw"])
    layer = nn.Linear(2, 2)

    composite.add_param_group({"params": layer.parameters()})

    assert len(composite.param_groups[-1]["params"]) == 2


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad_clears_the_gradients_of_every_child(set_to_none: bool) -> None:
    model, composite, data = made(CASES["sparse+dense"])
    loss_of(model, data[0]).backward()

    composite.zero_grad(set_to_none=set_to_none)

    for parameter in model.parameters():
        assert parameter.grad is None if set_to_none else float(torch.sum(parameter.grad.to_dense())) == 0.0  # type: ignore[union-attr]


def test_a_closure_is_evaluated_once_with_gradients_and_its_loss_returned() -> None:
    model, composite, data = made(CASES["muon+adamw"])
    by_hand = net()
    calls = []

    def closure() -> Tensor:
        calls.append(torch.is_grad_enabled())
        composite.zero_grad()
        loss = loss_of(model, data[0])
        loss.backward()
        return loss

    loss = composite.step(closure)

    train(by_hand, list(matrices_and_rest(by_hand).values()), data[:1])
    assert calls == [True]
    assert loss.detach() > 0
    assert same_weights(model, by_hand)


def test_an_optimizer_that_needs_a_closure_is_refused() -> None:
    model = net()
    with pytest.raises(UnsupportedModuleError, match="lbfgs re-evaluates the loss"):
        CompositeOptimizer({"lbfgs": torch.optim.LBFGS(model.parameters())})


def test_no_children_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least one child"):
        CompositeOptimizer({})


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
@case
def test_a_copy_with_its_model_goes_on_alike_and_apart(case: Case, way: str) -> None:
    model, composite, data = made(case)
    train(model, [composite], data[:2])

    if way == "deepcopy":
        twin, second = copy.deepcopy((model, composite))
    else:
        twin, second = pickle.loads(pickle.dumps((model, composite)))  # noqa: S301  # our own bytes
    train(model, [composite], data[2:])

    assert not same_weights(twin, model)
    train(twin, [second], data[2:])
    assert same_weights(twin, model)
    assert second.defaults == composite.defaults


def test_a_torch_scheduler_acts_on_every_child() -> None:
    _, composite, _ = made(CASES["sparse+dense"])
    scheduler = torch.optim.lr_scheduler.LambdaLR(composite, lambda step: 0.5**step)

    for _ in range(3):
        composite.step()
        scheduler.step()

    assert [group["lr"] for group in composite.param_groups] == [0.02 / 8, 0.01 / 8, 0.005 / 8]


def test_a_gradient_scaler_unscales_the_gradients_of_every_child() -> None:
    model, composite, data = made(CASES["muon+adamw"])
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    for batch in data:
        composite.zero_grad()
        scaler.scale(loss_of(model, batch)).backward()
        scaler.step(composite)
        scaler.update()

    by_hand = net()
    train(by_hand, list(matrices_and_rest(by_hand).values()), data)
    # 1024 is a power of two: scaling by it rounds nothing.
    assert same_weights(model, by_hand)


def test_a_gradient_scaler_skips_all_children_when_one_gradient_is_not_finite() -> None:
    model, composite, data = made(CASES["muon+adamw"])
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(loss_of(model, data[0])).backward()
    model.get_parameter("head.bias").grad.fill_(torch.inf)  # type: ignore[union-attr]

    scaler.step(composite)

    assert same_weights(model, net())


def test_step_hooks_run_once() -> None:
    model, composite, data = made(CASES["muon+adamw"])
    steps = []
    composite.register_step_pre_hook(lambda *_: steps.append("before"))
    composite.register_step_post_hook(lambda *_: steps.append("after"))

    train(model, [composite], data[:1])

    assert steps == ["before", "after"]


def test_modes_are_switched_in_the_children_that_have_them() -> None:
    class Moded(torch.optim.SGD):
        mode = ""

        def train(self) -> None:
            self.mode = "train"

        def eval(self) -> None:
            self.mode = "eval"

    moded = Moded([nn.Parameter(torch.ones(1))])
    composite = CompositeOptimizer({"moded": moded, "sgd": torch.optim.SGD([nn.Parameter(torch.ones(1))])})

    composite.eval()
    assert moded.mode == "eval"
    composite.train()
    assert moded.mode == "train"


@pytest.mark.parametrize("modes", [True, False])
def test_it_has_modes_where_a_child_has(modes: bool) -> None:
    class Moded(torch.optim.SGD):
        def train(self) -> None: ...

        def eval(self) -> None: ...

    child = (Moded if modes else torch.optim.SGD)([nn.Parameter(torch.ones(1))])

    assert has_modes(CompositeOptimizer({"only": child})) is modes
