"""One entry of a checkpoint, without the rest of it."""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from optselect.errors import ResumeError
from optselect.plan.reading import checkpoint_skeleton, opaque_in
from tests.support.cases import case


class Scale:
    """Stands for a metric or a loss among the hyperparameters."""

    def __init__(self) -> None:
        self.parts = [1, 2]


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("code was run",))


class Lists(list[Any]):
    """A class of its own that a pickle fills item by item."""


class Keys(dict[Any, Any]):
    """As above, by keys."""


HELD: dict[str, Any] = {
    "an object": Scale(),
    "a trap": Trap(),
    "a model": nn.Linear(3, 2),
    "tensors": nn.Linear(3, 2).state_dict(),
    "an ordered dictionary": OrderedDict(a=1),
    "a list of its own": Lists([1, 2]),
    "a dictionary of its own": Keys(a=1),
    "a set": {1, 2},
    "a class": Scale,
    "a path": Path("here"),
}


@pytest.mark.parametrize("zipped", [True, False])
def test_whatever_lies_beside_an_entry_the_entry_is_read_and_nothing_is_run(zipped: bool, tmp_path: Path) -> None:
    for name, held in HELD.items():
        with case(name):
            file = tmp_path / "last.ckpt"
            content = {
                "hyper_parameters": {"held": held},
                "callbacks": {"Mine": {"numbers": [1, 2.5, None, "a", b"b"]}},
            }
            torch.save(content, file, _use_new_zipfile_serialization=zipped)

            read = checkpoint_skeleton(file)

            assert read["callbacks"] == content["callbacks"]


def test_what_is_no_builtin_is_found_by_its_name(tmp_path: Path) -> None:
    torch.save({"a": [{"b": Scale()}]}, tmp_path / "last.ckpt")

    read = checkpoint_skeleton(tmp_path / "last.ckpt")

    assert str(opaque_in(read)).endswith("Scale")
    assert opaque_in({"a": [1, {"b": (2, None)}]}) is None


def test_what_is_no_checkpoint_is_an_error_of_ours(tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    torch.save({"a": 1}, file)
    whole = file.read_bytes()
    contents = {"nothing": b"", "words": b"hello", "a half": whole[: len(whole) // 2], "a pickle": pickle.dumps(1)}

    for name, content in contents.items():
        file.write_bytes(content)
        with case(name), pytest.raises(ResumeError, match="cannot be read as a checkpoint"):
            checkpoint_skeleton(file)


def test_a_zip_without_a_pickle_is_an_error_of_ours(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "last.ckpt", "w") as archive:
        archive.writestr("readme.txt", "nothing")

    with pytest.raises(ResumeError, match=r"there is no data\.pkl"):
        checkpoint_skeleton(tmp_path / "last.ckpt")
