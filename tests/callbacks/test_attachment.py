"""What a fit puts on its module comes off again, and what belongs to one fit does not reach the next."""

import copy
import functools
import pickle
from typing import Any

import lightning as L
import pytest
import torch

from optselect.callbacks.attachment import Attachment
from optselect.callbacks.fit_state import Built, FitState
from tests.support.modules import Classifier, WithOptimizer, made

NAME = "configure_optimizers"


def provided(by: Any, module: Any, own: Any, name: str) -> Any:
    return by, module, own, name


def other_optimizer() -> Any:
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)


def test_the_provided_function_is_told_by_whom_where_and_in_place_of_what() -> None:
    module = made(Classifier)
    module.configure_optimizers = other_optimizer

    Attachment(module).provide(NAME, provided, "us")

    assert module.configure_optimizers() == ("us", module, other_optimizer, NAME)


@pytest.mark.parametrize("own", [None, other_optimizer])
def test_a_module_has_its_own_methods_again(own: Any) -> None:
    module = made(WithOptimizer)
    if own is not None:
        vars(module)[NAME] = own
    attachment = Attachment(module)
    attachment.provide(NAME, provided, "us")
    attachment.provide("on_save_checkpoint", provided, "us")

    attachment.take_off()

    assert vars(module).get(NAME) is own
    assert "on_save_checkpoint" not in vars(module)


@pytest.mark.parametrize(
    "kind, own, found",
    [
        (Classifier, None, type(None)),
        (WithOptimizer, None, functools.partial),
        (Classifier, other_optimizer, type(other_optimizer)),
    ],
)
def test_the_users_own_is_found_behind_it(kind: type[L.LightningModule], own: Any, found: type) -> None:
    module = made(kind)
    if own is not None:
        vars(module)[NAME] = own
    attachment = Attachment(module)
    attachment.provide(NAME, provided, "us")

    assert type(attachment.users_own(NAME)) is found
    assert module.configure_optimizers()[0] == "us"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])  # noqa: S301
def test_a_copy_of_an_attached_module_counts_as_one_never_attached(copied: Any) -> None:
    module = made(WithOptimizer)
    Attachment(module).provide(NAME, provided, "us")
    again = copied(module)
    attachment = Attachment(again)

    attachment.provide(NAME, provided, "them")
    attachment.take_off()

    assert NAME not in vars(again)


def test_a_fit_that_has_ended_knows_only_what_was_built() -> None:
    module = made(Classifier)
    attachment = Attachment(module)
    attachment.provide(NAME, provided, "us")
    frozen = next(module.parameters()).requires_grad_(False)
    fit = FitState(attachment=attachment, configured=True, later=[frozen], built=Built(schedulers=["StepLR"]))

    ended = fit.end()

    assert (ended.attachment, ended.configured, ended.later) == (None, False, ())
    assert ended.built.to_dict() == {"optimizers": None, "schedulers": ["StepLR"], "thawed": 0}
    assert frozen.requires_grad
    assert ended.end() is ended
