"""What the model profile counts, and how it tells a trained model from a fresh one."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from optselect.profile.initialisation import FORWARDS_WHILE_BUILT
from optselect.profile.model import profile_model
from optselect.profile.values import ModelProfile
from optselect.workload.room import memory_free


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    return nn.ModuleDict(
        {"embed": nn.Embedding(200, 32), "body": nn.TransformerEncoder(layer, 2), "head": nn.Linear(32, 200)}
    )


def lstm() -> nn.Module:
    return nn.ModuleDict({"rnn": nn.LSTM(32, 32, 2), "head": nn.Linear(32, 9)})


def trained_mlp() -> nn.Module:
    images, labels = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(150):
        batch = slice(64 * (step % 28), 64 * (step % 28) + 64)
        optimizer.zero_grad()
        F.cross_entropy(model(inputs[batch]), targets[batch]).backward()
        optimizer.step()
    return model


def test_parameters_are_counted_by_kind() -> None:
    result = profile_model(cnn())

    assert result.kinds == {"conv": 16 * 9 + 16 + 32 * 16 * 9 + 32, "norm": 32, "linear": 512 * 10 + 10}
    assert result.parameters == sum(result.kinds.values())
    assert (result.tensors, result.depth, result.batch_norm) == (8, 3, True)


def test_frozen_parameters_are_counted_apart() -> None:
    model = mlp()
    model[0].requires_grad_(False)

    result = profile_model(model)

    assert (result.frozen, result.parameters) == (64 * 65, 64 * 65 + 64 * 10 + 10)


def test_a_tied_parameter_counts_once() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(50, 8), "head": nn.Linear(8, 50, bias=False)})
    model["head"].weight = model["embed"].weight

    result = profile_model(model)

    assert (result.tied, result.parameters, result.kinds) == (1, 400, {"embedding": 400})


def test_muon_can_train_the_hidden_matrices() -> None:
    result = profile_model(mlp())

    assert result.muon_share == pytest.approx(2 * 64 * 64 / result.parameters)


def test_muon_can_train_nothing_of_a_convolutional_net() -> None:
    assert profile_model(cnn()).muon_share == 0.0


def test_the_shapes_size_an_optimizers_state() -> None:
    model = nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 64), nn.Linear(64, 32))
    model.register_parameter("temperature", nn.Parameter(torch.zeros(())))

    result = profile_model(model)

    assert dict(result.shape_counts()) == {(32, 64): 2, (64, 32): 1, (32,): 2, (64,): 1, (): 1}


def test_dtypes_and_complex_parameters_are_named() -> None:
    model = nn.Sequential(nn.Linear(4, 4, dtype=torch.complex64), nn.Linear(4, 4, dtype=torch.bfloat16))

    result = profile_model(model)

    assert (result.dtypes, result.complex) == (("bfloat16", "complex64"), True)


@pytest.mark.parametrize("make", [mlp, cnn, transformer, lstm], ids=lambda make: make.__name__)
def test_a_fresh_model_is_at_initialisation(make: object) -> None:
    result = profile_model(make())  # type: ignore[operator]  # one of the functions above

    assert result.at_initialisation is True
    assert result.trained_share == 0.0


def test_a_trained_model_is_not_at_initialisation() -> None:
    result = profile_model(trained_mlp())

    assert result.at_initialisation is False
    assert result.initialisation_evidence is not None
    assert "spectrum" in result.initialisation_evidence


@pytest.mark.parametrize("init", [nn.init.orthogonal_, nn.init.kaiming_normal_, nn.init.xavier_uniform_])
def test_no_usual_initialisation_looks_trained(init: object) -> None:
    model = nn.Sequential(*(nn.Linear(48, 32 + 16 * index) for index in range(3)))
    for layer in model:
        init(layer.weight)  # type: ignore[operator]  # one of torch's

    assert profile_model(model).at_initialisation is True


def test_batch_norm_statistics_that_moved_tell_of_training() -> None:
    model = cnn()
    for _ in range(FORWARDS_WHILE_BUILT + 1):
        model(torch.randn(4, 1, 8, 8))

    result = profile_model(model)

    assert result.at_initialisation is False
    assert result.initialisation_evidence == "its BatchNorm layers have seen data"


def test_a_forward_pass_while_a_model_is_built_is_no_training() -> None:
    model = cnn()
    for _ in range(FORWARDS_WHILE_BUILT):
        model(torch.randn(4, 1, 8, 8))

    assert profile_model(model).at_initialisation is True


def test_batch_norm_statistics_without_a_count_tell_of_training() -> None:
    model = cnn()
    model(torch.randn(4, 1, 8, 8))
    model.get_buffer("1.num_batches_tracked").zero_()

    assert profile_model(model).at_initialisation is False


@pytest.mark.parametrize(
    "hparams, told",
    [
        ({"pretrained": True}, "pretrained"),
        ({"checkpoint": "https://someone:secret@example.org/net.ckpt"}, "checkpoint"),
        ({"pretrained": False, "weights": torch.ones(3)}, None),
        ({"weights": None}, None),
    ],
)
def test_where_nothing_can_be_measured_the_hyperparameters_are_asked(hparams: dict[str, Any], told: str | None) -> None:
    model = nn.Linear(10, 1)
    model.hparams = hparams  # type: ignore[assignment]  # as Lightning keeps them

    result = profile_model(model)

    assert result.pretrained == ("wholly" if told else None)
    assert result.initialisation_evidence == (f"its hyperparameters set {told}" if told else None)


def test_norm_weights_that_differ_tell_of_training() -> None:
    model = transformer()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.weight.data += 0.01 * torch.randn(32)
            module.bias.data += 0.01 * torch.randn(32)

    result = profile_model(model)

    assert result.at_initialisation is False
    assert result.initialisation_evidence == "4 of 4 norm layers have weights that differ"


def test_norm_weights_that_were_drawn_at_random_tell_of_nothing() -> None:
    # As DCGAN and RepVGG initialise them; the biases are zero.
    model = cnn()
    nn.init.normal_(model.get_parameter("1.weight"), 1.0, 0.02)

    assert profile_model(model).at_initialisation is True


def test_norm_weights_made_zero_on_purpose_tell_of_nothing() -> None:
    model = cnn()
    nn.init.zeros_(model.get_parameter("1.weight"))

    assert profile_model(model).at_initialisation is True


def test_a_mostly_frozen_model_is_not_at_initialisation() -> None:
    model = mlp()
    model[:3].requires_grad_(False)

    assert profile_model(model).at_initialisation is False


def test_adapters_tell_of_a_trained_model() -> None:
    model = mlp()
    model.peft_config = {"default": SimpleNamespace(r=8)}  # type: ignore[assignment]  # as peft does

    assert profile_model(model).at_initialisation is False


def test_whether_a_tiny_model_was_trained_cannot_be_told() -> None:
    result = profile_model(nn.Linear(10, 1))

    assert (result.at_initialisation, result.initialisation_evidence) == (None, None)


def test_lazy_parameters_count_as_tensors_without_scalars() -> None:
    result = profile_model(nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.Linear(8, 2)))

    assert (result.parameters, result.tensors) == (18, 6)


def test_a_model_without_parameters_has_a_profile() -> None:
    result = profile_model(nn.ReLU())

    assert (result.parameters, result.depth, result.at_initialisation) == (0, 0, None)


def test_profiling_neither_changes_the_model_nor_the_random_state() -> None:
    model = transformer()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    state = torch.get_rng_state()

    profile_model(model)

    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_that_are_not_finite_do_not_stop_the_profile() -> None:
    model = mlp()
    nn.init.constant_(model.get_parameter("0.weight"), torch.nan)

    assert profile_model(model).parameters > 0


def test_the_free_memory_of_this_machine_is_known() -> None:
    free = memory_free(torch.device("cpu"))

    assert free is not None
    assert free > 2**20


def test_the_free_memory_of_an_unknown_device_is_not_known() -> None:
    assert memory_free(torch.device("meta")) is None


def test_a_model_profile_survives_json() -> None:
    result = profile_model(transformer())

    assert ModelProfile.from_dict(json.loads(json.dumps(result.to_dict()))) == result
