"""Conformance suites: whether an optimizer's spec tells the truth, and whether a rule behaves like one.

For those who add their own, in a test:

    @pytest.mark.parametrize("spec", my_package.SPECS, ids=lambda spec: spec.name)
    def test_every_fact_of_the_spec_holds(spec):
        check_optimizer(spec)

Both raise a `ConformanceError` with a sentence that says which fact is wrong.
"""

from optselect.testing.conformance import ConformanceError
from optselect.testing.optimizers import SHAPES, STATE_SLACK_BYTES, STATE_TOLERANCE, check_optimizer
from optselect.testing.rules import PROFILES, check_rule

__all__ = [
    "PROFILES",
    "SHAPES",
    "STATE_SLACK_BYTES",
    "STATE_TOLERANCE",
    "ConformanceError",
    "check_optimizer",
    "check_rule",
]
