"""Whether a rule behaves like one."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable, Mapping
from typing import get_args

from optselect import catalogue
from optselect.profile import DataProfile, GradientProfile, ModelProfile, Profile
from optselect.rules import Rule, Strength, Vote
from optselect.testing.conformance import ConformanceError, said

# One of each kind of training that our own rules tell apart, and one of which nothing is known.
PROFILES: Mapping[str, Profile] = {
    "nothing known": Profile(data=DataProfile(), model=ModelProfile(parameters=0), gradient=GradientProfile()),
    "small perceptron": Profile(
        data=DataProfile(size=1_437, batch_size=64, batches=23, density=0.5, label_kind="multiclass", classes=10),
        model=ModelProfile(
            parameters=26_000,
            tensors=6,
            kinds={"linear": 26_000},
            depth=3,
            muon_share=0.95,
            at_initialisation=True,
        ),
        gradient=GradientProfile(passes=3, norm_quantiles=(0.5, 1.0, 3.0)),
        steps=400,
    ),
    "small regression": Profile(
        data=DataProfile(size=350, batch_size=32, batches=11, label_kind="continuous"),
        model=ModelProfile(
            parameters=5_000,
            tensors=6,
            kinds={"linear": 5_000},
            depth=3,
            muon_share=0.8,
            at_initialisation=True,
        ),
        gradient=GradientProfile(passes=3),
        steps=300,
    ),
    "convolutional net with batchnorm": Profile(
        data=DataProfile(size=50_000, batch_size=128, batches=390, label_kind="multiclass", classes=10),
        model=ModelProfile(
            parameters=1_000_000,
            tensors=62,
            kinds={"conv": 980_000, "norm": 10_000, "linear": 10_000},
            depth=20,
            batch_norm=True,
            at_initialisation=True,
        ),
        gradient=GradientProfile(passes=3),
        steps=10_000,
    ),
    "pretrained transformer": Profile(
        data=DataProfile(size=5_000, batch_size=32, batches=156, label_kind="binary", sequence_length=128),
        model=ModelProfile(
            parameters=22_000_000,
            tensors=101,
            kinds={"attention": 7_000_000, "linear": 7_000_000, "embedding": 8_000_000},
            depth=12,
            muon_share=0.6,
            at_initialisation=False,
            memory_free=1_000_000_000,
        ),
        gradient=GradientProfile(passes=3),
        steps=500,
    ),
    "recurrent net on a stream": Profile(
        data=DataProfile(batch_size=32, label_kind="tokens", sequence_length=64, rare_class_share=0.7),
        model=ModelProfile(parameters=20_000, tensors=6, kinds={"recurrent": 19_000, "linear": 1_000}, depth=2),
        gradient=GradientProfile(passes=3, norm_quantiles=(0.1, 1.0, 9.0)),
    ),
    "matrix factorisation": Profile(
        data=DataProfile(size=80_000, batch_size=256, batches=312, label_kind="continuous"),
        model=ModelProfile(parameters=84_000, tensors=2, kinds={"embedding": 84_000}, depth=1, at_initialisation=True),
        gradient=GradientProfile(passes=3, sparse=("users.weight", "items.weight"), touched_rows=0.2),
        steps=800,
    ),
    "one graph in a full batch": Profile(
        data=DataProfile(size=2_708, batch_size=2_708, batches=1, label_kind="multiclass", classes=7, edges=10_556),
        model=ModelProfile(
            parameters=23_000,
            tensors=4,
            kinds={"linear": 23_000},
            depth=2,
            dropout=0.5,
            graph=True,
            muon_share=0.99,
            at_initialisation=True,
        ),
        gradient=GradientProfile(passes=3),
        steps=200,
    ),
    "complex weights in a full batch": Profile(
        data=DataProfile(size=100, batch_size=100, batches=1, label_kind="continuous", density=0.01),
        model=ModelProfile(parameters=50, tensors=2, kinds={"linear": 50}, depth=1, complex=True, muon_share=1.0),
        gradient=GradientProfile(passes=3),
        steps=300,
    ),
}


def check_rule(rule: Rule, profiles: Iterable[Profile] = ()) -> None:
    """Ask `rule` about `PROFILES` and the `profiles` given. Raises `ConformanceError` for a wrong answer.

    A rule names its claim, its mechanism and its source; it never raises, not even when nothing is known; it
    gives the same votes for the same profile and leaves the profile as it was; its votes are JSON both ways,
    have a weight, and name optimizers of the catalogue.
    """
    for quality in ("name", "mechanism", "cites"):
        if not getattr(rule, quality).strip():
            raise ConformanceError(f"the rule {rule.name!r} has an empty {quality}; say it, so that the answer can")
    if rule.strength not in get_args(Strength):
        raise ConformanceError(
            f"the rule {rule.name!r} has strength={rule.strength!r}, not one of {get_args(Strength)}"
        )
    for profile in (*PROFILES.values(), *profiles):
        _check_votes(rule, profile)


def _check_votes(rule: Rule, profile: Profile) -> None:
    before = copy.deepcopy(profile.to_dict())
    try:
        votes, again = rule(profile), rule(profile)
    except Exception as error:
        raise ConformanceError(f"the rule {rule.name!r} raises {said(error)} on {profile}") from error
    if votes != again:
        raise ConformanceError(f"the rule {rule.name!r} answers the same profile differently the second time")
    if profile.to_dict() != before:
        raise ConformanceError(f"the rule {rule.name!r} changes the profile it is given")
    for vote in votes:
        _check_vote(rule, vote)


def _check_vote(rule: Rule, vote: Vote) -> None:
    try:
        restored = Vote.from_dict(json.loads(json.dumps(vote.to_dict())))
    except (TypeError, ValueError) as error:
        raise ConformanceError(f"the rule {rule.name!r} gives a vote without a JSON form: {said(error)}") from error
    if restored != vote:
        raise ConformanceError(f"the rule {rule.name!r} gives a vote that JSON changes: {vote.because!r}")
    if not math.isfinite(vote.weight) or (vote.weight == 0 and not vote.veto):
        raise ConformanceError(f"the rule {rule.name!r} gives a vote of weight {vote.weight}; say nothing instead")
    if vote.optimizer not in catalogue.names():
        raise ConformanceError(f"the rule {rule.name!r} votes for {vote.optimizer!r}, which is not in the catalogue")
