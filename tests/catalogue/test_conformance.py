"""Every fact of every entry is true, and an untrue one is named."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from optselect import catalogue
from optselect.catalogue import OptimizerSpec, slots
from optselect.space import SearchSpace, choice, log_uniform
from optselect.testing import ConformanceError, check_optimizer


@pytest.mark.parametrize("name", catalogue.names())
def test_every_fact_holds(name: str) -> None:
    spec = catalogue.get(name)
    if not spec.available:
        pytest.skip(f"{name}: pip install 'optselect[{spec.extra}]'")

    check_optimizer(spec)


ADAMW, SGD, MUON = catalogue.get("adamw"), catalogue.get("sgd"), catalogue.get("muon")
LBFGS, SPARSE_ADAM = catalogue.get("lbfgs"), catalogue.get("sparse_adam")


def with_(spec: OptimizerSpec, **facts: Any) -> OptimizerSpec:
    return replace(spec, **facts)


@pytest.mark.parametrize(
    "spec, sentence",
    [
        (with_(ADAMW, sparse=True), r"says it can do sparse gradients \(sparse=True\), but: RuntimeError"),
        (with_(SGD, sparse=False), "says it cannot do sparse gradients, but can: sparse=True is the fact"),
        (with_(SGD, sparse_decay=True), r"weight decay on sparse gradients \(sparse_decay=True\)"),
        (with_(SPARSE_ADAM, dense=True), r"says it can do dense gradients of shape \(64,\)"),
        (with_(ADAMW, dense=False, sparse=True, partner="adamw"), "dense gradients|sparse gradients"),
        (with_(MUON, ndim=None), r"dense gradients of shape \(64,\) \(dense=True\), but: ValueError"),
        (with_(ADAMW, ndim=2, partner="sgd"), r"cannot do dense gradients of shape \(64,\), but can"),
        (with_(MUON, partner=None), "so it needs a partner"),
        (with_(MUON, partner="sparse_adam"), "cannot train every dense parameter either"),
        (with_(ADAMW, complex=False), "says it cannot do complex parameters, but can"),
        (with_(MUON, complex=True), r"says it can do complex parameters \(complex=True\), but"),
        (with_(ADAMW, state=slots(1)), r"says state_bytes\(\(64,\), 4\) = 256, but keeps 512 bytes"),
        (with_(LBFGS, single_group=False), r"two param groups \(single_group=False\), but: ValueError"),
        (with_(ADAMW, single_group=True), "cannot do two param groups, but can"),
        (with_(LBFGS, group_rates=True), r"a learning rate for each group \(group_rates=False\), but: ValueError"),
        (with_(ADAMW, group_rates=False), "cannot do a learning rate for each group, but can"),
        (with_(LBFGS, closure=False, cost="elementwise"), "closure=False|TypeError"),
        (with_(ADAMW, closure=True, cost="closure"), "cannot do a step without a closure, but can"),
        (with_(LBFGS, cost="elementwise"), "they go together"),
        (with_(ADAMW, train_eval=True), "says train_eval=True, but has no train"),
        (
            with_(catalogue.get("adam"), decoupled=True),
            "says decoupled=True, but a zero gradient moves weights",
        ),
        (with_(ADAMW, decay="decay"), "says decay='decay', which is not in its space"),
        (with_(SGD, fixed={"lr": 0.1}), "both fixes and searches lr"),
        (with_(ADAMW, fixed={"no_such": 1}), "cannot be built at its prior's centre: TypeError"),
        (with_(ADAMW, cites=()), "cites nothing"),
        (with_(ADAMW, summary=""), "a summary"),
        (with_(ADAMW, name="two words"), "a name that is an identifier"),
        (
            with_(
                SGD,
                decay=None,
                space=SearchSpace({"lr": log_uniform(0.1, 1.0), "nesterov": choice(False, True)}),
            ),
            "has nesterov=True in its space, but refuses it",
        ),
    ],
)
def test_a_wrong_fact_fails_with_a_sentence_that_names_it(spec: OptimizerSpec, sentence: str) -> None:
    with pytest.raises(ConformanceError, match=f"the optimizer '{spec.name}' .*({sentence})"):
        check_optimizer(spec)


class Forgetful(torch.optim.SGD):
    """Starts afresh whenever it is resumed."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


class Opaque(torch.optim.SGD):
    """Keeps an object of its own in its state."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "self": Keepsake()}


class Keepsake:
    """Nothing that a checkpoint should hold."""


@pytest.mark.parametrize(
    "factory, sentence",
    [
        ("Forgetful", "does not go on as before after saving and loading its state"),
        ("Opaque", "cannot load its own saved state: UnpicklingError"),
    ],
)
def test_an_optimizer_that_cannot_resume_fails(factory: str, sentence: str) -> None:
    spec = with_(catalogue.get("momentum"), factory=f"{__name__}:{factory}")

    with pytest.raises(ConformanceError, match=sentence):
        check_optimizer(spec)
