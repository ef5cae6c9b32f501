"""What kind of targets a training has, and how its classes are distributed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optselect.profile.items import Numbers, Sample
from optselect.profile.values import LabelKind

# The index torch's cross entropy ignores by default: padding, not a class.
_IGNORED = -100
_MOST_COUNTS = 1_000


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The kind of the targets, and the samples of each class seen, descending (no classes: empty)."""

    kind: LabelKind = "unknown"
    counts: tuple[int, ...] = ()

    @property
    def class_counts(self) -> tuple[int, ...]:
        """The first 1,000 counts."""
        return self.counts[:_MOST_COUNTS]

    @property
    def top_share(self) -> float | None:
        """Share of the most frequent class."""
        return self.counts[0] / sum(self.counts) if self.counts else None

    @property
    def rare_share(self) -> float | None:
        """Share of the classes seen that are less than a tenth as frequent as the top one."""
        if not self.counts:
            return None
        return sum(10 * count < self.counts[0] for count in self.counts) / len(self.counts)

    @property
    def tail_exponent(self) -> float | None:
        """Minus the slope of log(count) over log(rank): 0 balanced, 1 Zipf. None below three classes.

        Weighted by the counts, whose Poisson error in logarithms is 1/√count: a long tail of classes seen
        once would otherwise be the whole fit.
        """
        if len(self.counts) < 3:
            return None
        counts = np.asarray(self.counts, dtype=np.float64)
        ranks = np.log(np.arange(1, len(counts) + 1))
        # polyfit squares its weights.
        slope = float(np.polyfit(ranks, np.log(counts), 1, w=np.sqrt(counts))[0])
        return max(0.0, -slope)


def read_labels(samples: Sequence[Sample]) -> Labels:
    """Read the labels of `samples`; of token sequences without a target, the tokens themselves."""
    targets = [sample.target for sample in samples if sample.target is not None]
    if targets and all(isinstance(each, str) for each in targets):
        return _classes(np.asarray(targets))
    arrays = [each for each in targets if isinstance(each, Numbers) and each.values.dtype.kind in "biuf"]
    if arrays:
        return _of_arrays(arrays)
    tokens = [each for sample in samples for each in sample.inputs if each.is_tokens]
    alone = len(tokens) == len(samples) and all(len(sample.inputs) == 1 for sample in samples)
    if tokens and (alone or not targets):
        return _tokens(tokens)
    return Labels()


def _of_arrays(targets: Sequence[Numbers]) -> Labels:
    integer = all(each.values.dtype.kind in "biu" for each in targets)
    sizes = {each.size for each in targets}
    flat = all(len(each.shape) <= 1 for each in targets)
    if sizes == {1} and flat:
        values = np.concatenate([each.values for each in targets])
        # Ratings and ages come as floats that happen to be whole; scikit-learn would call them classes. Only
        # the targets of a binary cross entropy are floats and classes.
        if integer or np.isin(values, (0.0, 1.0)).all():
            return _classes(values)
        return Labels(kind="continuous")
    if len(sizes) == 1 and flat and all(each.positions is None for each in targets):
        table = np.stack([each.values for each in targets])
        if (labels := _of_rows(table)) is not None:
            return labels
    return _tokens(targets) if integer else Labels(kind="continuous")


def _of_rows(table: NDArray[Any]) -> Labels | None:
    """Read targets that are a vector for each sample: classes as indicators or probabilities; None: neither."""
    if np.isin(table, (0, 1)).all():
        indicators = table.astype(np.int64)
        if (indicators.sum(axis=1) == 1).all():
            return _one_of(indicators)
        if _type_of(indicators) == "multilabel-indicator":
            return Labels(kind="multilabel", counts=_descending(indicators.sum(axis=0)))
        return None
    if table.dtype.kind == "f" and (table >= 0).all() and np.allclose(table.sum(axis=1), 1, atol=1e-3):
        return _one_of(table)  # smoothed or mixed classes
    return None


def _classes(values: NDArray[Any]) -> Labels:
    kind: LabelKind = "binary" if _type_of(values) == "binary" else "multiclass"
    return Labels(kind=kind, counts=_descending(np.unique(values, return_counts=True)[1]))


def _one_of(table: NDArray[Any]) -> Labels:
    """Count classes given as columns: how many there are is known, however few the sample shows."""
    counts = _descending(np.bincount(table.argmax(axis=1)))
    return Labels(kind="binary" if table.shape[1] == 2 else "multiclass", counts=counts)


def _tokens(arrays: Sequence[Numbers]) -> Labels:
    values = np.concatenate([each.values for each in arrays])
    return Labels(kind="tokens", counts=_descending(np.unique(values[values != _IGNORED], return_counts=True)[1]))


def _type_of(values: NDArray[Any]) -> str:
    from sklearn.utils.multiclass import type_of_target  # noqa: PLC0415  # half a second, which only a search needs

    with warnings.catch_warnings():
        # scikit-learn wonders aloud about many classes; the number of them is part of the answer here.
        warnings.simplefilter("ignore")
        return str(type_of_target(values))


def _descending(counts: NDArray[Any]) -> tuple[int, ...]:
    return tuple(sorted((int(count) for count in counts if count), reverse=True))
