"""Roles, kinds and depths of the parameters of real small modules, each checked by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optselect.parameters.adapters import is_adapter, is_peft
from optselect.parameters.describe import ParamInfo, describe_params, is_muon_matrix
from optselect.parameters.kind import is_norm


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def described(model: nn.Module, **options: Any) -> dict[str, ParamInfo]:
    return {info.name: info for info in describe_params(model, **options)}


def roles(model: nn.Module, **options: Any) -> dict[str, str]:
    return {name: info.role for name, info in described(model, **options).items()}


class Attention(nn.Module):
    """As in timm: one matrix for query, key and value, named by nobody's type."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)


class Mixer(nn.Module):
    """An attention that only the names of its parts give away."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc_q = nn.Linear(width, width)
        self.fc_k = nn.Linear(width, width)
        self.fc_v = nn.Linear(width, width)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout())
        self.gate = nn.Linear(width, width)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.gamma = nn.Parameter(torch.ones(width))


class ViT(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 17, width))
        self.patch_embed = nn.Conv2d(1, width, 4, stride=4)
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed", "cls_token"}


class GPT(nn.Module):
    """A causal language model whose output layer is its token embedding."""

    def __init__(self, width: int = 16, *, head_first: bool = False) -> None:
        super().__init__()
        if head_first:
            self.lm_head = nn.Linear(width, 64, bias=False)
        self.wte = nn.Embedding(64, width)
        self.wpe = nn.Embedding(8, width)
        self.h = nn.ModuleList(Block(width) for _ in range(3))
        self.ln_f = nn.LayerNorm(width)
        if not head_first:
            self.lm_head = nn.Linear(width, 64, bias=False)
        self.lm_head.weight = self.wte.weight


class HeadFirst(nn.Module):
    """A head registered before its backbone, as Lightning modules often have it."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(16, 10)
        self.backbone = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.out(self.backbone(x))
        return result


class WithClassifier(HeadFirst):
    def get_classifier(self) -> nn.Module:
        return self.out


class LlamaRMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))


class Conv1D(nn.Module):
    """The Linear of GPT-2 in Hugging Face's transformers, under a misleading name."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


def test_a_perceptron_has_hidden_matrices_then_a_head() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 10))

    assert roles(model) == {
        "0.weight": "hidden matrix",
        "0.bias": "bias",
        "2.weight": "hidden matrix",
        "2.bias": "bias",
        "4.weight": "head",
        "4.bias": "head",
    }


def test_a_convolutional_net_has_convolutions_norms_and_a_head() -> None:
    found = roles(cnn())

    assert found == {
        "0.weight": "convolution",
        "0.bias": "bias",
        "1.weight": "norm",
        "1.bias": "norm",
        "3.weight": "convolution",
        "3.bias": "bias",
        "4.weight": "norm",
        "4.bias": "norm",
        "7.weight": "head",
        "7.bias": "head",
    }


def test_a_norm_belongs_to_the_layer_before_it() -> None:
    infos = described(cnn())

    assert [infos[f"{layer}.weight"].depth for layer in (0, 1, 3, 4, 7)] == [0, 0, 1, 1, 2]


def test_a_vision_transformer_has_attention_linear_and_embedding_kinds() -> None:
    infos = described(ViT())

    assert {name: infos[name].kind for name in KINDS_OF_VIT} == KINDS_OF_VIT


KINDS_OF_VIT = {
    "cls_token": "other",
    "pos_embed": "embedding",
    "patch_embed.weight": "conv",
    "blocks.0.norm1.weight": "norm",
    "blocks.0.attn.qkv.weight": "attention",
    "blocks.0.attn.proj.bias": "attention",
    "blocks.1.mlp.0.weight": "linear",
    "blocks.1.gamma": "other",
    "norm.weight": "norm",
    "head.weight": "linear",
}


def test_the_layers_of_a_transformer_are_its_blocks() -> None:
    infos = described(ViT())

    depths = {name: info.depth for name, info in infos.items()}

    assert {name.split(".")[0] for name, depth in depths.items() if depth == 0} == {
        "cls_token",
        "pos_embed",
        "patch_embed",
    }
    assert {depth for name, depth in depths.items() if name.startswith("blocks.1")} == {2}
    assert (depths["norm.weight"], depths["head.weight"]) == (2, 3)


def test_what_the_model_lists_under_no_weight_decay_is_not_decayed() -> None:
    infos = described(nn.ModuleDict({"inner": ViT()}))

    assert not infos["inner.pos_embed"].decay
    assert infos["inner.patch_embed.weight"].decay


def test_norms_biases_and_vectors_are_not_decayed() -> None:
    infos = described(ViT())

    kept = {name for name, info in infos.items() if info.decay}

    assert kept == {name for name in infos if name.endswith("weight") and "norm" not in name}


@pytest.mark.parametrize("head_first", [False, True])
def test_a_tied_head_is_an_embedding_wherever_it_is_registered(head_first: bool) -> None:
    (tied,) = [info for info in describe_params(GPT(head_first=head_first)) if info.tied_names]

    assert {tied.name, *tied.tied_names} == {"wte.weight", "lm_head.weight"}
    assert (tied.kind, tied.role) == ("embedding", "embedding")


def test_a_model_with_a_tied_head_has_no_other_head() -> None:
    found = roles(GPT())

    assert "head" not in found.values()
    assert found["h.2.mlp.2.weight"] == "hidden matrix"


def test_all_embeddings_at_the_input_are_one_layer() -> None:
    infos = described(GPT())

    assert (infos["wte.weight"].depth, infos["wpe.weight"].depth, infos["h.0.attn.qkv.weight"].depth) == (
        0,
        0,
        1,
    )


def test_recurrent_matrices_are_hidden_matrices_layer_by_layer() -> None:
    model = nn.ModuleDict({"rnn": nn.LSTM(12, 16, num_layers=2), "head": nn.Linear(16, 9)})

    infos = described(model)

    assert [infos[f"rnn.weight_{which}"].role for which in ("ih_l0", "hh_l1")] == ["hidden matrix"] * 2
    assert [infos[f"rnn.bias_{which}"].role for which in ("ih_l0", "hh_l1")] == ["bias"] * 2
    assert infos["rnn.weight_hh_l1"].kind == "recurrent"
    assert [infos[f"rnn.weight_hh_l{layer}"].depth for layer in (0, 1)] == [0, 1]


def test_the_projections_of_multihead_attention_are_attention() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32)

    infos = described(nn.ModuleDict({"layer": layer, "head": nn.Linear(16, 4)}))

    attention = {name.removeprefix("layer.") for name, info in infos.items() if info.kind == "attention"}
    assert attention == {f"self_attn.{name}" for name, _ in layer.self_attn.named_parameters()}
    assert infos["layer.self_attn.in_proj_weight"].role == "hidden matrix"
    assert infos["layer.self_attn.in_proj_bias"].role == "bias"


def test_projections_are_known_by_their_names_beside_each_other() -> None:
    infos = described(nn.ModuleDict({"mixer": Mixer(8), "head": nn.Linear(8, 4)}))

    attention = {name for name, info in infos.items() if info.kind == "attention" and info.role != "bias"}
    assert attention == {f"mixer.{part}.weight" for part in ("fc_q", "fc_k", "fc_v", "to_out.0")}


def test_a_model_named_after_attention_is_not_all_attention() -> None:
    attention_net = type("AttentionNet", (HeadFirst,), {})

    infos = describe_params(attention_net())

    assert {info.kind for info in infos} == {"linear"}


def test_matrix_factorisation_is_embeddings_without_a_head() -> None:
    model = nn.ModuleDict(
        {
            "user": nn.Embedding(50, 8, sparse=True),
            "item": nn.Embedding(40, 8, sparse=True),
            "user_bias": nn.Embedding(50, 1, sparse=True),
        }
    )

    assert set(roles(model).values()) == {"embedding"}


def test_a_bag_of_features_is_an_embedding_before_a_perceptron() -> None:
    model = nn.ModuleDict(
        {
            "bag": nn.EmbeddingBag(100, 8, sparse=True),
            "mlp": nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)),
        }
    )

    found = roles(model, sparse={"bag.weight"})

    assert (found["bag.weight"], found["mlp.0.weight"], found["mlp.2.weight"]) == (
        "embedding",
        "hidden matrix",
        "head",
    )


def test_a_parameter_with_sparse_gradients_is_never_decayed_nor_given_to_muon() -> None:
    model = nn.ModuleDict({"table": Conv1D(32, 8), "head": nn.Linear(8, 2)})

    before, after = described(model), described(model, sparse={"table.weight"})

    assert before["table.weight"].decay
    assert is_muon_matrix(before["table.weight"])
    assert not after["table.weight"].decay
    assert not is_muon_matrix(after["table.weight"])
    assert after["table.weight"].sparse


def test_a_declared_classifier_is_the_head() -> None:
    found = roles(WithClassifier())

    assert {name for name, role in found.items() if role == "head"} == {"out.weight", "out.bias"}


def test_a_declared_classifier_is_found_inside_a_wrapper() -> None:
    found = roles(nn.ModuleDict({"model": WithClassifier()}))

    assert {name for name, role in found.items() if role == "head"} == {"model.out.weight", "model.out.bias"}


def test_the_last_layer_that_ran_is_the_head() -> None:
    found = roles(HeadFirst(), order=["backbone.0", "backbone.2", "backbone", "out", ""])

    assert {name for name, role in found.items() if role == "head"} == {"out.weight", "out.bias"}


def test_an_encoder_without_an_output_layer_has_no_head() -> None:
    encoder = nn.ModuleDict({"embed": nn.Embedding(9, 16), "blocks": nn.ModuleList(Block(16) for _ in range(2))})
    ran = ["embed", "blocks.0.attn.qkv", "blocks.0.mlp.2", "blocks.1.attn.qkv", "blocks.1.mlp.2"]

    for order in (None, ran):
        assert "head" not in roles(encoder, order=order).values()


def test_the_last_of_several_blocks_is_the_head_when_it_has_another_shape() -> None:
    model = nn.Sequential(*(nn.Sequential(nn.Linear(8, width), nn.ReLU()) for width in (8, 8, 3)))

    found = roles(model, order=["0.0", "1.0", "2.0"])

    assert {name for name, role in found.items() if role == "head"} == {"2.0.weight", "2.0.bias"}


def test_a_head_shared_by_several_levels_is_the_last_that_ran() -> None:
    model = nn.ModuleDict({"head": nn.Linear(8, 2), "low": nn.Linear(4, 8), "high": nn.Linear(8, 8)})

    infos = described(model, order=["low", "head", "high", "head"])

    assert {name for name, info in infos.items() if info.role == "head"} == {"head.weight", "head.bias"}


def test_a_wrapped_head_is_a_head_with_its_adapters() -> None:
    model = nn.ModuleDict({"body": nn.Linear(8, 8), "out": adapted(nn.Linear(8, 2))})

    found = roles(model, order=["body", "out", "out.base_layer", "out.lora_A.default", "out.lora_B.default"])

    assert {name for name, role in found.items() if role == "head"} == {n for n in found if n.startswith("out.")}


def test_modules_that_are_numbered_by_name_are_blocks() -> None:
    # As in RegNet (s1.b1.conv1.conv) and DenseNet; the numbered layers in a block are none.
    def block() -> nn.Module:
        conv = nn.ModuleDict({"conv": nn.Conv2d(4, 4, 1), "bn": nn.BatchNorm2d(4)})
        other = nn.ModuleDict({"conv": nn.Conv2d(4, 4, 3), "bn": nn.BatchNorm2d(4)})
        return nn.ModuleDict({"conv1": conv, "conv2": other})

    stages = {f"s{stage}": nn.ModuleDict({"b1": block(), "b2": block()}) for stage in (1, 2)}
    infos = described(nn.ModuleDict({"stem": nn.Conv2d(3, 4, 3), **stages, "fc": nn.Linear(4, 2)}))

    names = (
        "stem",
        "s1.b1.conv1.conv",
        "s1.b1.conv2.bn",
        "s1.b2.conv1.conv",
        "s2.b1.conv1.conv",
        "s2.b2.conv2.bn",
        "fc",
    )
    assert [infos[f"{name}.weight"].depth for name in names] == [0, 1, 1, 2, 3, 4, 5]


def test_one_numbered_module_is_no_block() -> None:
    body = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    infos = described(nn.ModuleDict({"net1": body, "fc": nn.Linear(8, 2)}))

    assert [info.depth for name, info in infos.items() if name.endswith("weight")] == [0, 1, 2]


def test_without_an_order_the_head_comes_last() -> None:
    infos = described(nn.ModuleDict({"classifier": nn.Linear(8, 2), "body": nn.Linear(8, 8), "top": nn.Linear(8, 8)}))

    assert [infos[f"{name}.weight"].depth for name in ("body", "top", "classifier")] == [0, 1, 2]


def test_a_models_own_layers_go_before_execution() -> None:
    class Matched(ViT):
        def group_matcher(self, *, coarse: bool = False) -> dict[str, Any]:
            return {"stem": r"^cls_token|pos_embed|patch_embed|^blocks\.0", "rest": [(r"^blocks\.(\d+)", None)]}

    model = nn.ModuleDict({"before": nn.Linear(8, 8), "model": Matched(), "after": nn.Linear(10, 10)})

    infos = described(model, order=["before", "model.patch_embed", "model.blocks.0.norm1", "model.head", "after"])

    names = ("before", "model.patch_embed", "model.blocks.0.norm1", "model.blocks.1.norm1", "model.norm", "after")
    assert [infos[f"{name}.weight"].depth for name in names] == [0, 1, 1, 2, 3, 4]


def test_what_a_matcher_sends_to_the_layer_before_stays_there() -> None:
    class Matched(ViT):
        def group_matcher(self, *, coarse: bool = False) -> dict[str, Any]:
            blocks = [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]
            return {"stem": r"^cls_token|pos_embed|patch_embed", "blocks": blocks}

    infos = described(Matched())

    names = ("patch_embed", "blocks.0.norm1", "blocks.1.norm1", "norm", "head")
    assert [infos[f"{name}.weight"].depth for name in names] == [0, 1, 2, 2, 3]


def test_a_matcher_may_be_a_function_of_the_name() -> None:
    class Matched(HeadFirst):
        def group_matcher(self, *, coarse: bool = False) -> Any:
            return lambda name: 1 if name.startswith("out") else 0

    infos = described(Matched())

    assert [infos[f"{name}.weight"].depth for name in ("backbone.0", "backbone.2", "out")] == [0, 0, 1]


def test_another_method_of_a_matchers_name_is_no_matcher() -> None:
    class Other(HeadFirst):
        def group_matcher(self, *, coarse: bool = False) -> list[str]:
            return ["nothing", "of", "the", "kind"]

    assert [info.depth for info in describe_params(Other())] == [info.depth for info in describe_params(HeadFirst())]


def test_adapters_are_in_the_layer_that_they_adapt() -> None:
    model = nn.Sequential(adapted(nn.Linear(8, 8)), nn.ReLU(), adapted(nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 2))

    infos = described(model)

    assert {info.depth for name, info in infos.items() if name.startswith("2.")} == {1}


# As peft 0.21 names them, and adapters of other packages.
@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.h.0.attn.c_attn.lora_A.default.weight",
        "base_model.model.embed.lora_embedding_B.default",
        "base_model.model.fc.lora_magnitude_vector.default.weight",
        "base_model.model.fc.lora_E.default",
        "base_model.model.fc.lokr_w1.default",
        "base_model.model.fc.hada_w2_b.default",
        "base_model.model.fc.ia3_l.default",
        "base_model.model.fc.oft_R.default.weight",
        "base_model.model.fc.boft_s.default",
        "base_model.model.fc.vera_lambda_d.default",
        "base_model.model.fc.fourierft_spectrum.default",
        "base_model.model.fc.hra_u.default",
        "base_model.model.fc.vblora_logits_A.default",
        "base_model.model.fc.randlora_gamma.default",
        "base_model.model.fc.poly_lora_A.default",
        "base_model.model.fc.road_theta.default",
        "base_model.model.fc.miss_block.default",
        "base_model.model.embed.trainable_tokens_delta.default",
        "base_model.model.layers.3.self_attn.adaption_prompt",
        "prompt_encoder.default.embedding.weight",
    ],
)
def test_pefts_names_are_adapters(name: str) -> None:
    assert is_peft(name)


@pytest.mark.parametrize("name", ["encoder.layers.0.adapter.down.weight", "attention.output.adapters.task.up.weight"])
def test_bottleneck_adapters_are_adapters_that_peft_does_not_name(name: str) -> None:
    assert (is_peft(name), is_adapter(name)) == (False, True)


@pytest.mark.parametrize(
    "name", ["flora.weight", "encoder.often.weight", "miss_rate.weight", "road_encoder.weight", "vera.weight"]
)
def test_words_that_only_begin_like_an_adapter_are_none(name: str) -> None:
    assert not is_adapter(name)


def adapted(base: nn.Linear) -> nn.Module:
    """As peft wraps a Linear."""
    down, up = nn.Linear(base.in_features, 4, bias=False), nn.Linear(4, base.out_features, bias=False)
    lora = {"lora_A": nn.ModuleDict({"default": down}), "lora_B": nn.ModuleDict({"default": up})}
    return nn.ModuleDict({"base_layer": base, **lora})


def test_depth_follows_execution_where_it_is_known() -> None:
    infos = described(HeadFirst(), order=["backbone.0", "backbone.2", "backbone", "out", ""])

    assert [infos[f"{name}.weight"].depth for name in ("backbone.0", "backbone.2", "out")] == [0, 1, 2]


def test_without_an_order_a_module_named_head_is_the_head() -> None:
    model = nn.ModuleDict({"head": nn.Linear(8, 4), "body": nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))})

    found = roles(model)

    assert {name for name, role in found.items() if role == "head"} == {"head.weight", "head.bias"}


def test_a_convolutional_output_is_a_head_when_there_is_no_linear() -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))

    assert roles(model)["2.weight"] == "head"


def test_frozen_layers_keep_their_depth() -> None:
    model = ViT()
    before = {name: info.depth for name, info in described(model).items()}

    model.blocks.requires_grad_(False)
    infos = described(model)

    assert {name: info.depth for name, info in infos.items()} == before
    assert {name for name, info in infos.items() if info.frozen} == {n for n in infos if n.startswith("blocks")}


def test_a_residual_net_counts_its_numbered_blocks() -> None:
    def stage() -> nn.Module:
        return nn.Sequential(*(nn.ModuleDict({"conv1": nn.Conv2d(4, 4, 3), "bn1": nn.BatchNorm2d(4)}) for _ in "ab"))

    model = nn.ModuleDict({"conv1": nn.Conv2d(3, 4, 3), "layer1": stage(), "layer2": stage(), "fc": nn.Linear(4, 2)})

    infos = described(model)

    names = ["conv1", "layer1.0.conv1", "layer1.1.bn1", "layer2.0.conv1", "layer2.1.conv1", "fc"]
    assert [infos[f"{name}.weight"].depth for name in names] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "shape, expected",
    [
        ((4, 4), "hidden matrix"),
        ((3, 4), "other"),
        ((4, 512), "hidden matrix"),
        ((4, 513), "other"),
        ((8,), "other"),
        ((2, 8, 8), "other"),
    ],
)
def test_a_hidden_matrix_has_sides_of_four_and_an_aspect_of_128_at_most(shape: tuple[int, ...], expected: str) -> None:
    model = nn.ParameterDict({"mixing": nn.Parameter(torch.zeros(shape))})

    assert roles(model) == {"mixing": expected}


def test_a_linear_by_another_name_is_linear() -> None:
    infos = described(nn.ModuleDict({"c_fc": Conv1D(8, 32), "head": nn.Linear(32, 2)}))

    assert (infos["c_fc.weight"].kind, infos["c_fc.weight"].role) == ("linear", "hidden matrix")


@pytest.mark.parametrize(
    "module",
    [
        nn.BatchNorm1d(4),
        nn.LayerNorm(4),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4, affine=True),
        nn.RMSNorm(4),
        LlamaRMSNorm(4),
        nn.LazyBatchNorm2d(),
    ],
    ids=lambda module: type(module).__name__,
)
def test_norms_are_known_by_type_or_by_the_end_of_their_name(module: nn.Module) -> None:
    assert is_norm(module)


def test_a_patch_embedding_made_of_linears_is_an_embedding() -> None:
    model = nn.ModuleDict(
        {"to_patch_embedding": nn.Sequential(nn.Flatten(), nn.Linear(16, 8)), "head": nn.Linear(8, 2)}
    )

    assert roles(model)["to_patch_embedding.1.weight"] == "embedding"


def test_adapters_of_a_projection_are_attention_matrices() -> None:
    attention = Attention(16)
    attention.qkv = nn.ModuleDict(  # type: ignore[assignment]  # as peft wraps it
        {
            "base_layer": nn.Linear(16, 48),
            "lora_A": nn.ModuleDict({"default": nn.Linear(16, 4, bias=False)}),
            "lora_B": nn.ModuleDict({"default": nn.Linear(4, 48, bias=False)}),
        }
    )

    infos = described(nn.ModuleDict({"attn": attention, "head": nn.Linear(16, 2)}))

    info = infos["attn.qkv.lora_A.default.weight"]
    assert (info.kind, info.role) == ("attention", "hidden matrix")


def test_a_parametrized_weight_belongs_to_the_module_it_parametrizes() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 8, 3)), nn.Linear(8, 2))

    infos = described(model)

    assert {info.kind for name, info in infos.items() if name.startswith("0.")} == {"conv"}


def test_lazy_parameters_are_described_without_a_shape() -> None:
    model = nn.Sequential(nn.LazyLinear(16), nn.LazyBatchNorm1d(), nn.LazyLinear(4))

    infos = described(model)

    assert {info.numel for info in infos.values()} == {0}
    assert [infos[name].decay for name in ("0.weight", "0.bias", "1.weight")] == [True, False, False]
    assert infos["2.weight"].role == "head"


def test_complex_parameters_are_not_for_muon() -> None:
    model = nn.Sequential(nn.Linear(8, 8, dtype=torch.complex64), nn.Linear(8, 2, dtype=torch.complex64))

    info = described(model)["0.weight"]

    assert info.is_complex
    assert not is_muon_matrix(info)


def test_a_model_without_parameters_has_none_to_describe() -> None:
    assert describe_params(nn.ReLU()) == []


def test_every_parameter_is_described_once_in_torchs_order() -> None:
    model = GPT()

    assert [info.name for info in describe_params(model)] == [name for name, _ in model.named_parameters()]
