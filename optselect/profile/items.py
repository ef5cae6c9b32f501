"""What one item of a data set holds: inputs and a target, as plain numpy arrays, whatever it came as."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[Any]

TARGET_NAMES = ("labels", "label", "targets", "target", "y")


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """One array of an item.

    values     flat; of a sparse array the stored entries alone
    shape      of the array; a row of a sparse matrix is one-dimensional
    dtype      torch's and numpy's common names: "float32", "int64", "bfloat16"
    positions  flat places of the stored entries of a sparse array (None: dense)
    """

    values: Array
    shape: tuple[int, ...]
    dtype: str
    positions: Array | None = None

    @property
    def size(self) -> int:
        """Numbers in the array, zeros of a sparse one included."""
        return math.prod(self.shape)

    @property
    def is_integer(self) -> bool:
        """Integers that stand for something: tokens, ids, classes. Bytes and booleans are measured values."""
        return self.positions is None and self.values.dtype.kind in "iu" and self.dtype != "uint8"

    @property
    def is_tokens(self) -> bool:
        """A sequence of integers. Shorter ones are rather the columns of a table: user, item, hour."""
        return self.is_integer and len(self.shape) == 1 and self.size >= 8

    @property
    def is_measured(self) -> bool:
        """Real values whose size means something."""
        return self.positions is not None or (not self.is_integer and self.values.dtype.kind in "fbu")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One item. `target` is None where there is none, or none that can be read."""

    inputs: tuple[Numbers, ...]
    target: Numbers | str | None = None

    @property
    def stored(self) -> int:
        """Numbers held in memory for this sample."""
        arrays = (*self.inputs, *([self.target] if isinstance(self.target, Numbers) else []))
        return sum(each.values.size for each in arrays)


def read_item(item: Any) -> Sample:
    """Read the inputs and the target of `item`.

    Of a pair or longer tuple the last entry is the target; of a mapping, a dataclass or a named tuple the
    field with a target's name; anything else is an input. What holds no numbers is left out.
    """
    inputs, target = _split(item)
    return Sample(inputs=tuple(_arrays(inputs)), target=target if isinstance(target, str) else _numbers(target))


def rows_of(batch: Any, most: int) -> list[Any]:
    """Split a collated `batch` into its first `most` items; none when its size cannot be seen."""
    size = next(_leading_sizes(batch), None)
    return [] if size is None else [_row(batch, index, size) for index in range(min(size, most))]


def _split(item: Any) -> tuple[Any, Any]:
    fields = _fields(item)
    if fields is not None:
        name = next((name for name in TARGET_NAMES if name in fields), None)
        if name is not None or not isinstance(item, tuple):
            # A mask says which inputs count; it is none itself.
            inputs = [value for key, value in fields.items() if key != name and "mask" not in str(key)]
            return inputs, fields.get(name) if name is not None else None
    if isinstance(item, tuple | list) and len(item) >= 2:
        return item[:-1], item[-1]
    return item, None


def _fields(item: Any) -> Mapping[Any, Any] | None:
    if isinstance(item, Mapping):
        return item
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        return {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
    if isinstance(item, tuple) and hasattr(item, "_asdict"):
        named: Mapping[Any, Any] = item._asdict()
        return named
    keys = getattr(item, "keys", None)
    if callable(keys):  # graphs of PyTorch Geometric, records of tensordict
        return {key: item[key] for key in keys()}
    return None


def _arrays(value: Any) -> Iterator[Numbers]:
    if (found := _numbers(value)) is not None:
        yield found
    elif (fields := _fields(value)) is not None:
        for each in fields.values():
            yield from _arrays(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _arrays(each)


def _numbers(value: Any) -> Numbers | None:
    if isinstance(value, torch.Tensor):
        return _of_tensor(value.detach())
    if hasattr(value, "tocoo"):
        return _of_scipy(value)
    if isinstance(value, bool | int | float | complex):
        array = np.asarray(value)
    elif isinstance(value, list) and value and isinstance(value[0], bool | int | float):
        # Token lists of Hugging Face data sets, before they are padded.
        array = np.asarray(value)
    elif hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        array = np.asarray(value)
    else:
        return None
    if array.dtype.kind not in "biufc":
        return None
    # A copy, so that a row keeps neither the batch nor the mapped file it came from.
    return Numbers(values=array.ravel().copy(), shape=tuple(array.shape), dtype=str(array.dtype))


def _of_tensor(tensor: torch.Tensor) -> Numbers:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if tensor.layout is not torch.strided:
        entries = tensor.to_sparse_coo().coalesce()
        positions = np.ravel_multi_index(tuple(entries.indices().cpu().numpy()), tuple(tensor.shape))
        values = _plain(entries.values())
        return Numbers(values=values, shape=(tensor.numel(),), dtype=dtype, positions=positions)
    return Numbers(values=_plain(tensor).ravel().copy(), shape=tuple(tensor.shape), dtype=dtype)


def _plain(tensor: torch.Tensor) -> Array:
    # numpy has no bfloat16 and no 8-bit floats.
    known = tensor.dtype in {torch.float16, torch.float32, torch.float64} or not tensor.is_floating_point()
    array: Array = (tensor if known else tensor.float()).cpu().numpy()
    return array


def _of_scipy(matrix: Any) -> Numbers:
    entries = matrix.tocoo()
    coordinates = entries.coords if hasattr(entries, "coords") else (entries.row, entries.col)
    positions = np.ravel_multi_index(tuple(np.asarray(each) for each in coordinates), entries.shape)
    return Numbers(
        values=np.asarray(entries.data),
        shape=(math.prod(entries.shape),),
        dtype=str(entries.dtype),
        positions=positions,
    )


# --- graphs -------------------------------------------------------------------------------------------------


def edges_in(batch: Any) -> int | None:
    """Count the edges of the graph that a batch, or the first of its items, holds; None: there is none.

    A graph is a table of node features beside a square matrix of as many rows, sparse, or mostly zeros and
    symmetric in its pattern; or beside two rows of node numbers (PyTorch Geometric's `edge_index`).
    """
    for each in (batch, *rows_of(batch, 1)):
        leaves = [leaf for leaf in _leaves(each) if getattr(leaf, "ndim", 0) == 2]
        for leaf in leaves:
            nodes = {int(other.shape[0]) for other in leaves if other is not leaf and _is_table(other)}
            if (edges := _edges(leaf, nodes)) is not None:
                return edges
    return None


def _edges(leaf: Any, nodes: Collection[int]) -> int | None:
    rows, columns = map(int, leaf.shape)
    if isinstance(leaf, torch.Tensor) and leaf.layout is not torch.strided:
        return int(leaf.to_sparse_coo().coalesce().values().numel()) if rows == columns and rows in nodes else None
    if hasattr(leaf, "tocoo"):
        return int(leaf.nnz) if rows == columns and rows in nodes else None
    array = np.asarray(_plain(leaf) if isinstance(leaf, torch.Tensor) else leaf)
    if array.dtype.kind in "iu" and rows == 2 and columns > 0 and nodes:
        return columns if array.min() >= 0 and array.max() < max(nodes) else None
    # Two nodes make a matrix that nearly anything could be.
    if rows == columns and rows in nodes and rows > 2:
        pattern = array != 0
        edges = int(pattern.sum())
        return edges if 0 < edges <= array.size / 2 and (pattern == pattern.T).all() else None
    return None


def _is_table(leaf: Any) -> bool:
    """Tell whether it is real numbers in rows, as the features of nodes are."""
    dense = not hasattr(leaf, "tocoo") and getattr(leaf, "layout", torch.strided) is torch.strided
    floating = leaf.is_floating_point() if isinstance(leaf, torch.Tensor) else leaf.dtype.kind == "f"
    return bool(dense and floating)


def _leaves(value: Any) -> Iterator[Any]:
    if hasattr(value, "shape"):
        yield value.detach() if isinstance(value, torch.Tensor) else value
        return
    fields = _fields(value)
    for each in fields.values() if fields is not None else value if isinstance(value, tuple | list) else ():
        yield from _leaves(each)


# --- batches ------------------------------------------------------------------------------------------------


def _leading_sizes(value: Any) -> Iterator[int]:
    """Yield the leading sizes of the arrays in `value`, from the last on: a target is not ragged."""
    shape = getattr(value, "shape", None)
    if shape is not None:
        if len(shape):
            yield int(shape[0])
        return
    fields = _fields(value)
    parts = fields.values() if fields is not None else value if isinstance(value, tuple | list) else ()
    for each in reversed(list(parts)):
        yield from _leading_sizes(each)


def _row(value: Any, index: int, size: int) -> Any:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return value[index] if len(shape) and shape[0] == size else None
    fields = _fields(value)
    if fields is not None:
        return {key: _row(each, index, size) for key, each in fields.items()}
    if isinstance(value, tuple | list):
        if len(value) == size and not any(hasattr(each, "shape") for each in value):
            return value[index]  # a list of names or numbers, one for each item
        return tuple(_row(each, index, size) for each in value)
    return None
