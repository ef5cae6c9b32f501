"""Names of a compiled model are those of the model that was written."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from optselect.parameters.compilation import compilations_forgotten, is_compiled
from optselect.parameters.describe import describe_params
from optselect.parameters.names import name_in, named_modules, named_parameters, own_name


def blocks() -> Any:
    block = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    return nn.ModuleDict({"stem": nn.Linear(4, 4), "blocks": nn.Sequential(block, block), "head": nn.Linear(4, 2)})


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


def compiled_within() -> Any:
    model = blocks()
    model["blocks"] = compiled(model["blocks"])
    model["head"] = compiled(model["head"])
    return model


def compiled_twice() -> Any:
    model = blocks()
    model["blocks"] = nn.Sequential(*map(compiled, model["blocks"]))
    return compiled(model)


MODELS = {"whole": lambda: compiled(blocks()), "parts": compiled_within, "whole and parts": compiled_twice}


@pytest.mark.parametrize("kind", MODELS)
def test_names_and_roles_are_those_of_the_model_that_was_written(kind: str) -> None:
    model = MODELS[kind]()

    assert [name for name, _ in named_parameters(model)] == [name for name, _ in blocks().named_parameters()]
    assert [name for name, _ in named_modules(model)] == [name for name, _ in blocks().named_modules()]
    assert describe_params(model) == describe_params(blocks())


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("of", [blocks, *MODELS.values()])
def test_a_name_of_any_kind_of_the_model_leads_to_that_of_this_one(kind: str, of: Any) -> None:
    model = MODELS[kind]()

    found = [name_in(model, name) for name in of().state_dict()]

    assert found == list(model.state_dict())


def test_only_the_wrappers_own_name_is_taken_out() -> None:
    assert own_name("a._orig_mod.b") == "a.b"
    assert own_name("my_orig_mod.b") == "my_orig_mod.b"


def test_a_compiled_model_is_told_by_its_modules_and_by_their_methods() -> None:
    class Method(nn.Linear):
        @torch.compile(backend="eager")
        def score(self) -> Any:
            return self.weight.sum()

    in_place, on_the_instance = nn.Linear(2, 2), nn.Linear(2, 2)
    in_place.compile(backend="eager")
    on_the_instance.forward = torch.compile(on_the_instance.forward, backend="eager")  # type: ignore[method-assign]

    assert all(map(is_compiled, [compiled(nn.Linear(2, 2)), in_place, on_the_instance, Method(2, 2)]))
    assert not is_compiled(blocks())


def test_what_was_compiled_inside_is_compiled_anew_afterwards_and_nothing_else() -> None:
    graphs = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    model: Any = torch.compile(nn.Linear(3, 3), backend=backend)
    torch.compiler.reset()

    with compilations_forgotten():
        model(torch.randn(2, 3))
        model(torch.randn(2, 3))
    model(torch.randn(2, 3))
    with compilations_forgotten():
        model(torch.randn(2, 3))
    model(torch.randn(2, 3))

    assert len(graphs) == 2
