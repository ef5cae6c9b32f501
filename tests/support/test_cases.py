"""One test over many cases."""

from __future__ import annotations

import traceback

import pytest

from tests.support.cases import case


def test_a_case_that_fails_is_named() -> None:
    with pytest.raises(AssertionError) as caught, case("number", 3):
        raise AssertionError

    assert "case: 'number', 3" in "".join(traceback.format_exception(caught.value))
