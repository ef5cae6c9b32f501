"""A reason is the sentence that people read, and what the sentence is made of."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace

from optselect.plan.reason import Reason
from tests.support.cases import case

REASON = Reason(kind="vote", text="it is fast", cites="measured here", value=0.5)
COPIES: dict[str, Callable[[Reason], Reason]] = {
    "pickled": lambda reason: pickle.loads(pickle.dumps(reason)),  # noqa: S301  # our own bytes
    "copied": copy.deepcopy,
    "replaced": replace,
    "written and read": lambda reason: Reason.from_dict(reason.to_dict()),
}


def test_a_reason_is_a_string_with_its_source() -> None:
    assert REASON == "it is fast [measured here]"
    assert Reason(kind="vote", text="it is fast") == "it is fast"


def test_every_copy_keeps_the_sentence_and_the_fields() -> None:
    for name, copied in COPIES.items():
        with case(name):
            other = copied(REASON)
            assert other == REASON
            assert other.to_dict() == REASON.to_dict()
