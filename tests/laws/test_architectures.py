"""Roles, depths and the state of training of twelve architectures, each parameter by its name."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from optselect.parameters.describe import ParamInfo, describe_params
from optselect.parameters.execution import execution_recorded
from optselect.profile.model import profile_model
from tests.support.architectures import ARCHITECTURES, WIDTH, LoraLinear, Perceptron, efficientnet, lora_wrapped, minilm

# For each architecture rows of a pattern of names, the role and the depth. Where the pattern takes a number out of
# the name, the depth is that of the first such block. The first row that matches a name holds.
_BERT_LAYER = [
    (r"encoder\.layer\.(\d+)\..*LayerNorm\.\w+", "norm", 1),
    (r"encoder\.layer\.(\d+)\..*\.weight", "hidden matrix", 1),
    (r"encoder\.layer\.(\d+)\..*\.bias", "bias", 1),
]
_BERT_EMBEDDINGS = [
    (r"embeddings\.(?:word|position|token_type)_embeddings\.weight", "embedding", 0),
    (r"embeddings\.LayerNorm\.\w+", "norm", 0),
]
_BLOCK = [
    (r"norm[12]\.\w+", "norm"),
    (r"(?:attn\.(?:qkv|proj)|mlp\.[02])\.weight", "hidden matrix"),
    (r"(?:attn\.(?:qkv|proj)|mlp\.[02])\.bias", "bias"),
]
_TORCH_LAYER = [
    (r"norm[123]\.\w+", "norm"),
    (r".*weight", "hidden matrix"),
    (r".*bias", "bias"),
]

TABLE: dict[str, list[tuple[str, str, int]]] = {
    "perceptron": [
        (r"0\.weight", "hidden matrix", 0),
        (r"0\.bias", "bias", 0),
        (r"2\.weight", "hidden matrix", 1),
        (r"2\.bias", "bias", 1),
        (r"4\.(?:weight|bias)", "head", 2),
    ],
    "cnn with BatchNorm": [
        (r"features\.0\.weight", "convolution", 0),
        (r"features\.0\.bias", "bias", 0),
        (r"features\.1\.(?:weight|bias)", "norm", 0),
        (r"features\.3\.weight", "convolution", 1),
        (r"features\.3\.bias", "bias", 1),
        (r"features\.4\.(?:weight|bias)", "norm", 1),
        (r"classifier\.(?:weight|bias)", "head", 2),
    ],
    "resnet": [
        (r"conv1\.weight", "convolution", 0),
        (r"bn1\.(?:weight|bias)", "norm", 0),
        (r"layer1\.(\d)\.(?:bn\d|downsample\.1)\.(?:weight|bias)", "norm", 1),
        (r"layer1\.(\d)\.(?:conv\d|downsample\.0)\.weight", "convolution", 1),
        (r"layer2\.(\d)\.(?:bn\d|downsample\.1)\.(?:weight|bias)", "norm", 3),
        (r"layer2\.(\d)\.(?:conv\d|downsample\.0)\.weight", "convolution", 3),
        (r"fc\.(?:weight|bias)", "head", 5),
    ],
    "vit": [
        (r"cls_token", "other", 0),
        (r"pos_embed", "embedding", 0),
        (r"patch_embed\.weight", "convolution", 0),
        (r"patch_embed\.bias", "bias", 0),
        *((rf"blocks\.(\d+)\.{pattern}", role, 1) for pattern, role in _BLOCK),
        (r"norm\.(?:weight|bias)", "norm", 2),
        (r"head\.(?:weight|bias)", "head", 3),
    ],
    "bert": [
        *_BERT_EMBEDDINGS,
        *_BERT_LAYER,
        (r"pooler\.dense\.weight", "hidden matrix", 4),
        (r"pooler\.dense\.bias", "bias", 4),
        (r"classifier\.(?:weight|bias)", "head", 5),
    ],
    # The output layer is the token embedding: there is no head of its own.
    "gpt with a tied head": [
        (r"transformer\.w[tp]e\.weight", "embedding", 0),
        *((rf"transformer\.h\.(\d+)\.{pattern}", role, 1) for pattern, role in _BLOCK),
        (r"transformer\.ln_f\.(?:weight|bias)", "norm", 3),
    ],
    "lstm": [
        (r"embedding\.weight", "embedding", 0),
        (r"lstm\.weight_[ih]h_l(\d)", "hidden matrix", 1),
        (r"lstm\.bias_[ih]h_l(\d)", "bias", 1),
        (r"fc\.(?:weight|bias)", "head", 3),
    ],
    "efficientnet-lite0": [
        (r"_conv_stem\.weight", "convolution", 0),
        (r"_bn0\.(?:weight|bias)", "norm", 0),
        (r"_blocks\.(\d+)\._bn\d\.(?:weight|bias)", "norm", 1),
        (r"_blocks\.(\d+)\._(?:expand|depthwise|project)_conv\.weight", "convolution", 1),
        (r"_conv_head\.weight", "convolution", 17),
        (r"_bn1\.(?:weight|bias)", "norm", 17),
        (r"_fc\.(?:weight|bias)", "head", 18),
    ],
    "minilm": [
        *_BERT_EMBEDDINGS,
        *_BERT_LAYER,
        (r"pooler\.dense\.weight", "hidden matrix", 7),
        (r"pooler\.dense\.bias", "bias", 7),
        (r"classifier\.(?:weight|bias)", "head", 8),
    ],
    "encoder-decoder": [
        (r"source_embedding\.weight", "embedding", 0),
        *((rf"encoder\.layers\.(\d+)\.{pattern}", role, 1) for pattern, role in _TORCH_LAYER),
        # The decoder's input comes in when the encoder has run.
        (r"target_embedding\.weight", "embedding", 3),
        *((rf"decoder\.layers\.(\d+)\.{pattern}", role, 4) for pattern, role in _TORCH_LAYER),
        (r"generator\.(?:weight|bias)", "head", 6),
    ],
    "gnn": [
        (r"convs\.([01])\.lin\.weight", "hidden matrix", 0),
        (r"convs\.([01])\.bias", "bias", 0),
        (r"convs\.2\.(?:lin\.weight|bias)", "head", 2),
    ],
    "lora": [
        *_BERT_EMBEDDINGS,
        *_BERT_LAYER,
        (r"pooler\.dense\.weight", "hidden matrix", 4),
        (r"pooler\.dense\.bias", "bias", 4),
        (r"classifier\.(?:weight|bias)", "head", 5),
    ],
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def described(name: str) -> list[ParamInfo]:
    """The parameters of a fresh model that has run once."""
    model, inputs = ARCHITECTURES[name].make().train(), ARCHITECTURES[name].batch()
    with torch.no_grad(), execution_recorded(model) as execution:
        model(inputs)
    return describe_params(model, order=execution.order)


def row_of(name: str, parameter: str) -> tuple[str, int]:
    for pattern, role, depth in TABLE[name]:
        if (found := re.fullmatch(pattern, parameter)) is not None:
            return role, depth + sum(map(int, found.groups()))
    return "in no row", -1


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_parameter_has_the_role_and_the_depth_that_the_table_says(name: str) -> None:
    infos = described(name)

    found = {info.name: (info.role, info.depth) for info in infos}

    assert found == {info.name: row_of(name, info.name) for info in infos}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_row_of_the_table_is_about_a_parameter(name: str) -> None:
    names = [parameter for parameter, _ in ARCHITECTURES[name].make().named_parameters()]

    idle = [pattern for pattern, *_ in TABLE[name] if not any(re.fullmatch(pattern, each) for each in names)]

    assert idle == []


def test_a_tied_head_is_named_beside_the_embedding_that_it_is() -> None:
    infos = {info.name: info for info in described("gpt with a tied head")}

    assert infos["transformer.wte.weight"].tied_names == ("lm_head.weight",)


def test_adapters_are_told_from_what_they_adapt() -> None:
    infos = described("lora")

    assert {info.name.split(".")[-3] for info in infos if info.adapter} == {"lora_A", "lora_B"}
    assert {info.name for info in infos if not info.frozen and not info.adapter} == {
        "classifier.weight",
        "classifier.bias",
    }


# --- trained before? ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "lora"])
def test_a_fresh_model_is_not_pretrained(name: str) -> None:
    profile = profile_model(ARCHITECTURES[name].make())

    assert (profile.pretrained, profile.fresh) == ("no", ())


def test_what_carries_adapters_is_pretrained() -> None:
    profile = profile_model(lora_wrapped())

    assert (profile.pretrained, profile.initialisation_evidence) == ("wholly", "it carries adapters")


@pytest.mark.parametrize("name", [name for name in TABLE if name not in {"lora", "minilm", "efficientnet-lite0"}])
def test_a_model_that_was_trained_for_200_steps_is_not_at_initialisation(name: str) -> None:
    model, inputs = ARCHITECTURES[name].make().train(), ARCHITECTURES[name].batch()
    labels = torch.arange(len(inputs)) % 2
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(200):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), labels).backward()
        optimizer.step()

    profile = profile_model(model)

    assert (profile.at_initialisation, profile.pretrained) == (False, "wholly")


def test_efficientnet_with_its_own_head_is_wholly_pretrained() -> None:
    profile = profile_model(efficientnet(pretrained=True))

    assert (profile.pretrained, profile.fresh, profile.has_new_head) == ("wholly", (), False)


@pytest.mark.parametrize("classes", [2, 5, 100])
def test_efficientnet_with_a_new_head_is_partly_pretrained_and_the_head_is_named(classes: int) -> None:
    profile = profile_model(efficientnet(pretrained=True, classes=classes))

    assert (profile.pretrained, profile.fresh, profile.has_new_head) == ("partly", ("_fc",), True)


def test_minilm_has_a_pooler_that_was_never_trained_beside_its_new_head() -> None:
    # Its sentences are the mean over tokens, so the training that made it saw no gradient at the pooler.
    profile = profile_model(minilm(pretrained=True))

    assert (profile.pretrained, profile.fresh) == ("partly", ("pooler", "classifier"))


def _normal(head: nn.Linear) -> None:
    nn.init.normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)


def _xavier(head: nn.Linear) -> None:
    nn.init.xavier_uniform_(head.weight)
    nn.init.zeros_(head.bias)


def _zero(head: nn.Linear) -> None:
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)


@pytest.mark.parametrize("init", [_normal, _xavier, _zero, lambda _: None], ids=["normal", "xavier", "zero", "torch"])
def test_a_new_head_is_known_however_it_was_initialised(init: Callable[[nn.Linear], None]) -> None:
    model = trained_perceptron()
    head = nn.Linear(WIDTH, 4)
    init(head)
    model[4] = head

    profile = profile_model(model)

    assert (profile.pretrained, profile.fresh) == ("partly", ("4",))


def test_a_new_decoder_is_named_as_one() -> None:
    model = nn.ModuleDict({"encoder": trained_perceptron(), "decoder": Perceptron()})

    profile = profile_model(model)

    assert profile.fresh == ("decoder",)


def test_new_adapters_are_not_listed_as_new_layers() -> None:
    model = trained_perceptron()
    model[2] = LoraLinear(model[2])  # type: ignore[arg-type]  # a Linear

    profile = profile_model(model)

    assert (profile.fresh, profile.adapters) == ((), 2 * 4 * WIDTH)


def trained_perceptron() -> Perceptron:
    """A perceptron that has learned which side of a plane its inputs lie on."""
    model = Perceptron()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    inputs = torch.randn(256, 16)
    for _ in range(200):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), (inputs[:, 0] > 0).long()).backward()
        optimizer.step()
    return model
