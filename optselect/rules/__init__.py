"""Judgements on a profile: which optimizers are worth trying, where to start with each, and why.

A rule is a function of the profile whose name is its claim:

    @rule(cites="our experience with audio", strength="measured")
    def long_sequences_favour_rmsprop(profile):
        \"\"\"Gradients through time differ by orders of magnitude.\"\"\"
        because = at_least("data.sequence_length", profile.data.sequence_length, 500)
        return votes(because, {"rmsprop": 2.0})

    propose(profile, rules=[*DEFAULT, long_sequences_favour_rmsprop])

`policies` are ways to train the parts of a model that is trained already. `facts` are vetoes and always hold.
`data`, `model` and `gradient` go by measurements, `classic` by the textbook.
"""

from optselect.rules.classic import CLASSIC
from optselect.rules.limitations import FACTS
from optselect.rules.policies import POLICIES, Policy, policies
from optselect.rules.prior import configuration
from optselect.rules.proposal import Proposal, Seat
from optselect.rules.regimes import REGIMES, Regime, regime
from optselect.rules.rule import (
    Answer,
    Evidence,
    Rule,
    RuleWarning,
    Strength,
    Vote,
    at_least,
    at_most,
    rule,
    votes,
)
from optselect.rules.voting import BASELINE, DEFAULT, Prior, RulesArgument, propose, resolve, tally, vetoes

__all__ = [
    "BASELINE",
    "CLASSIC",
    "DEFAULT",
    "FACTS",
    "POLICIES",
    "REGIMES",
    "Answer",
    "Evidence",
    "Policy",
    "Prior",
    "Proposal",
    "Regime",
    "Rule",
    "RuleWarning",
    "RulesArgument",
    "Seat",
    "Strength",
    "Vote",
    "at_least",
    "at_most",
    "configuration",
    "policies",
    "propose",
    "regime",
    "resolve",
    "rule",
    "tally",
    "vetoes",
    "votes",
]
