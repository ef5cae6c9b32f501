"""Attributes of a module's own classes come back after a search."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
import torch
from torch import nn

from optselect.workload.class_state import classes_restored


def module_class() -> Any:
    class Base(nn.Module):
        calls = 0
        queue = deque([1, 2], maxlen=2)  # noqa: RUF012  # what users write

    class Own(Base):
        registry = {"rows": [1], "names": {"a"}}  # noqa: RUF012  # what users write
        table = torch.zeros(2)
        cache = None

    return Own


def change(kind: Any) -> None:
    kind.calls += 1
    kind.__mro__[1].calls += 1
    kind.queue.append(3)
    kind.registry["rows"].append(2)
    kind.registry["names"].add("b")
    kind.registry["new"] = 1
    kind.table += 1
    kind.cache = object()
    kind.late = [1]
    kind.forward = lambda self, x: x


def look(kind: Any) -> Any:
    return (
        {name for name in vars(kind) if not name.startswith("__")},
        kind.calls,
        list(kind.queue),
        {"rows": list(kind.registry["rows"]), "names": set(kind.registry["names"]), "all": set(kind.registry)},
        kind.table.tolist(),
        kind.cache,
    )


@pytest.mark.parametrize("error", [None, ValueError])
def test_classes_are_as_they_were_with_the_same_objects(error: type[Exception] | None) -> None:
    kind = module_class()
    before, objects = look(kind), (kind.queue, kind.registry, kind.registry["rows"], kind.table)

    try:
        with classes_restored(kind().modules()):
            change(kind)
            if error is not None:
                raise error
    except ValueError:
        pass

    assert look(kind) == before
    found = (kind.queue, kind.registry, kind.registry["rows"], kind.table)
    assert all(one is other for one, other in zip(found, objects, strict=True))


def test_what_ends_the_process_leaves_them_alone() -> None:
    kind = module_class()

    def is_interrupted() -> None:
        with classes_restored(kind().modules()):
            kind.calls = 5
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        is_interrupted()

    assert kind.calls == 5


def test_classes_of_torch_are_not_looked_at() -> None:
    with classes_restored(nn.Linear(1, 1).modules()):
        nn.Linear.mark = 1  # type: ignore[attr-defined]  # by someone else
    try:
        assert nn.Linear.mark == 1  # type: ignore[attr-defined]  # as above
    finally:
        del nn.Linear.mark  # type: ignore[attr-defined]  # as above
