"""What the training data are, from a bounded sample."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optselect.profile.items import Numbers, Sample, edges_in
from optselect.profile.labels import read_labels
from optselect.profile.sample import dataset_size, read_samples
from optselect.profile.values import DataProfile
from optselect.workload.protocol import DataSource

# A feature that is not zero in a tenth of the rows at least has a scale worth comparing.
_PRESENT = 0.1
_BLOCK_NUMBERS = 1_000_000


def profile_data(source: DataSource, *, batches: Sequence[Any] = ()) -> DataProfile:
    """Measure the numbers of `source`; whatever cannot be read stays None, and nothing raises.

    `batches` already drawn are used for a stream instead of reading it again, and are where a graph is seen.
    Costs at most 2,000 rows, 2e7 numbers and 30 s, of however large a data set. Draws no global random
    numbers, but a data set that augments may: the caller isolates them.
    """
    samples = read_samples(source, batches)
    labels = read_labels(samples)
    inputs = [each for sample in samples for each in sample.inputs]
    measured = [each for each in inputs if each.is_measured]
    edges = _edges(batches)
    return DataProfile(
        size=dataset_size(source.dataset) if source.dataset is not None else None,
        batch_size=source.batch_size,
        batches=source.batches,
        rows_read=len(samples),
        features=_features(samples),
        dtypes=tuple(sorted({each.dtype for each in inputs})),
        density=_density(measured) if edges is None else None,
        value_range=_value_range(measured),
        scale_ratio=_scale_ratio(samples),
        duplicates=_duplicates(samples),
        sequence_length=_sequence_length(inputs) if edges is None else None,
        edges=edges,
        label_kind=labels.kind,
        classes=len(labels.counts) or None,
        class_counts=labels.class_counts,
        top_class_share=labels.top_share,
        rare_class_share=labels.rare_share,
        tail_exponent=labels.tail_exponent,
    )


def _features(samples: Sequence[Sample]) -> int | None:
    sizes = [sum(each.size for each in sample.inputs) for sample in samples if sample.inputs]
    return int(statistics.median(sizes)) if sizes else None


def _density(measured: Sequence[Numbers]) -> float | None:
    size = sum(each.size for each in measured)
    return sum(int(np.count_nonzero(each.values)) for each in measured) / size if size else None


def _value_range(measured: Sequence[Numbers]) -> tuple[float, float] | None:
    lows, highs = [], []
    for each in measured:
        values = each.values[np.isfinite(each.values)]
        if values.size:
            lows.append(float(values.min()))
            highs.append(float(values.max()))
        if each.values.size < each.size:  # the zeros that a sparse array does not store
            lows.append(0.0)
            highs.append(0.0)
    return (min(lows), max(highs)) if lows else None


def _duplicates(samples: Sequence[Sample]) -> float | None:
    seen = set()
    for sample in samples:
        digest = hashlib.blake2b(digest_size=16)
        for each in (*sample.inputs, sample.target):
            if isinstance(each, Numbers):
                digest.update(repr((each.shape, each.dtype)).encode())
                digest.update(each.values.tobytes())
                digest.update(b"" if each.positions is None else each.positions.tobytes())
            else:
                digest.update(repr(each).encode())
        seen.add(digest.digest())
    return 1 - len(seen) / len(samples) if len(samples) > 1 else None


def _sequence_length(inputs: Sequence[Numbers]) -> int | None:
    lengths = [length for each in inputs if (length := _time_steps(each)) is not None]
    # A sequence beside a few plain features is still a sequence; a stray row is not.
    return int(statistics.median(lengths)) if lengths and 4 * len(lengths) >= len(inputs) else None


def _time_steps(array: Numbers) -> int | None:
    """Count the steps along the time axis: of tokens, or of [time, channel]. None: no such axis."""
    if array.is_tokens:
        return array.size
    # A square of numbers, or a rectangle of bytes, is a grey image.
    if len(array.shape) == 2 and array.values.dtype.kind == "f" and array.shape[0] != array.shape[1]:
        return array.shape[1] if array.shape[0] == 1 else array.shape[0]
    return None


def _edges(batches: Sequence[Any]) -> int | None:
    try:
        return edges_in(batches[0]) if len(batches) else None
    except Exception:  # noqa: BLE001  # a batch may hold anything, and an array of another library behave anyhow
        return None


def _scale_ratio(samples: Sequence[Sample]) -> float | None:
    """Divide the largest standard deviation of a feature by the smallest, over all inputs of one shape throughout."""
    deviations: list[float] = []
    for column in range(max((len(sample.inputs) for sample in samples), default=0)):
        arrays = [sample.inputs[column] for sample in samples if column < len(sample.inputs)]
        alike = len({each.shape for each in arrays}) == 1
        if alike and all(each.values.dtype.kind == "f" and each.positions is None for each in arrays):
            deviations += _deviations(arrays)
    present = [deviation for deviation in deviations if np.isfinite(deviation) and deviation > 0]
    return max(present) / min(present) if len(present) > 1 else None


def _deviations(arrays: Sequence[Numbers]) -> list[float]:
    """Return the standard deviations of the features that are present often enough."""
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415  # half a second, which only a search needs

    scaler = StandardScaler()
    nonzero: NDArray[Any] | float = 0.0
    rows = 0
    for block in _blocks(arrays):
        # float64: a large mean would drown a small deviation in less. NaN is a missing value, as scikit-learn
        # has it.
        table = np.where(np.isfinite(block), block, np.nan).astype(np.float64)
        with np.errstate(invalid="ignore"):  # a feature that is missing throughout has no mean
            scaler.partial_fit(table)
        nonzero = nonzero + np.count_nonzero(table, axis=0)
        rows += len(table)
    return [
        float(deviation)
        for deviation, count in zip(np.sqrt(scaler.var_), np.asarray(nonzero), strict=True)
        if count >= _PRESENT * rows
    ]


def _blocks(arrays: Sequence[Numbers]) -> Iterator[NDArray[Any]]:
    """Yield the arrays as tables of observations by features, a million numbers at a time."""
    step = max(1, _BLOCK_NUMBERS // max(1, arrays[0].size))
    edges = [*range(0, len(arrays), step), len(arrays)]
    for low, high in pairwise(edges):
        stacked = np.stack([each.values.reshape(each.shape) for each in arrays[low:high]])
        if stacked.ndim <= 2:
            yield stacked.reshape(len(stacked), -1)
        else:
            # Images come as [channel, height, width] or [height, width, channel]: the short side is the
            # channels.
            first_is_channel = stacked.ndim >= 4 and stacked.shape[1] <= stacked.shape[-1]
            yield np.moveaxis(stacked, 1 if first_is_channel else -1, -1).reshape(
                -1, stacked.shape[1 if first_is_channel else -1]
            )
