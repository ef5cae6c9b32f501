"""Merge the rules' votes, openly, into a few proposals."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence

from optselect import catalogue
from optselect.configuration import USER, Configuration, Schedule
from optselect.errors import ConfigurationError, UnknownOptimizerError, UnsupportedModuleError
from optselect.profile.values import Profile
from optselect.rules.classic import CLASSIC
from optselect.rules.data import DATA
from optselect.rules.gradient import GRADIENT
from optselect.rules.limitations import FACTS
from optselect.rules.model import MODEL
from optselect.rules.portfolio import starts, trainings_like_it_were_recorded
from optselect.rules.prior import configuration
from optselect.rules.proposal import Proposal, Seat
from optselect.rules.rule import Rule, RuleWarning, Vote
from optselect.space import Value

# A string is one of "default" and "classic"; `resolve` refuses others.
RulesArgument = str | Sequence[Rule]

Prior = Callable[[str, Profile], tuple[dict[str, Value], Schedule]]
"""Where an optimizer of that name starts on such a training: its hyperparameters and its schedule."""

# What recorded trainings say, the rules that look at measurements, then the textbook's.
RULES_ALONE: tuple[Rule, ...] = (*DATA, *MODEL, *GRADIENT, *CLASSIC)
DEFAULT: tuple[Rule, ...] = (trainings_like_it_were_recorded, *RULES_ALONE)

# What every choice is compared with: torch's AdamW as it comes.
BASELINE = Proposal(
    configuration=Configuration(optimizer="adamw", hyperparameters={"lr": 1e-3, "weight_decay": 1e-2}),
    seat="baseline",
)

FEWEST = 3

# A vote this far below zero: what others' trainings gave does not speak against it.
_WARNING = -4.0

# What is left when no rule speaks for anything: the common choice, and one that no fact of ours forbids.
_SAFE = ("adamw", "sgd")

_OURS = frozenset(rule.name for rule in DEFAULT)


def resolve(rules: RulesArgument) -> tuple[Rule, ...]:
    """Find the rules that the argument means: "default", "classic", or a sequence of rules.

    Raises `ConfigurationError` on anything else.
    """
    if rules == "default":
        return DEFAULT
    if rules == "classic":
        return CLASSIC
    if isinstance(rules, str) or not isinstance(rules, Iterable) or not all(isinstance(each, Rule) for each in rules):
        raise ConfigurationError(
            f"rules must be 'default', 'classic' or a sequence of optselect.rules.Rule, but got {rules!r}"
        )
    return tuple(rules)


def tally(profile: Profile, rules: RulesArgument = "default") -> dict[str, tuple[Vote, ...]]:
    """Collect every vote by optimizer name, plug-ins and vetoed ones included; the facts are always asked.

    A rule that raises, or votes for a name that is not in the catalogue, is left out with a `RuleWarning`.
    """
    found: dict[str, tuple[Vote, ...]] = {}
    for rule in dict.fromkeys((*FACTS, *resolve(rules))):
        for vote in _ask(rule, profile):
            found[vote.optimizer] = (*found.get(vote.optimizer, ()), vote)
    return found


def vetoes(profile: Profile, rules: RulesArgument = "default") -> tuple[Vote, ...]:
    """List the facts that keep an optimizer from this model, one vote for each."""
    return tuple(vote for cast in tally(profile, rules).values() for vote in cast if vote.veto)


def propose(
    profile: Profile,
    *,
    rules: RulesArgument = "default",
    candidates: Iterable[str] | None = None,
    prior: Prior | None = None,
) -> list[Proposal]:
    """Choose the optimizers worth trying on `profile`, best first, each with where to start and every vote.

    Without `candidates`: first what recorded trainings like this one say, on seats "portfolio". Then the three of
    torch's own with the most votes, and whoever else sits on a seat: "classic" is the textbook's own pick, "evidence"
    the best of the others by what was measured. A plug-in is proposed only when it is a candidate or when a rule of
    the user's votes for it.

    With `candidates`: the same of these alone, each of them at least once, in the order of their votes. "user" stands
    for the optimizer of the user's own `configure_optimizers`. What no recorded training speaks of starts where `prior`
    says (None: where `configuration` does). Without the rule that asks the recorded trainings, that is all.

    Raises `UnknownOptimizerError` for a candidate that is not in the catalogue, `UnsupportedModuleError` for
    one that a fact forbids, `MissingExtraError` for one that is not installed, and `ConfigurationError` for
    no candidates at all.
    """
    prior = configuration if prior is None else prior
    votes = tally(profile, rules)
    recorded = trainings_like_it_were_recorded in resolve(rules)
    if candidates is not None:
        asked = _asked(candidates, profile, votes, prior)
        names = {proposal.optimizer for proposal in asked}
        return [*(_recorded(profile, votes, names.__contains__) if recorded else []), *asked]
    # Opinions beside the record, not of it: where it errs, they are what is left.
    opinions = {name: heard for name, cast in votes.items() if (heard := _without_the_record(cast))}
    ranking = sorted((name for name in opinions if _eligible(opinions[name])), key=_by_score(opinions))
    seats = _seats(ranking, opinions)
    leaders = [name for name in ranking if _score(opinions[name]) > 0][:FEWEST]
    chosen = [name for name in ranking if name in seats or name in leaders] or [_last_resort(votes)]
    found = [_proposal(name, profile, votes.get(name, ()), seats.get(name, "candidate"), prior) for name in chosen]
    if not recorded:
        return found
    # Whoever adds a rule knows more of this training than any record.
    own = [each for each in found if any(vote.rule not in _OURS for vote in each.because)]
    rest = [each for each in found if each not in own]
    return [*own, *_recorded(profile, votes, _may_be_tried(votes)), *rest]


def _recorded(profile: Profile, votes: Mapping[str, tuple[Vote, ...]], may: Callable[[str], bool]) -> list[Proposal]:
    return [
        Proposal(configuration=start, votes=votes.get(start.optimizer, ()), seat="portfolio")
        for start in starts(profile, may)
    ]


def _without_the_record(cast: Iterable[Vote]) -> tuple[Vote, ...]:
    return tuple(vote for vote in cast if vote.rule != trainings_like_it_were_recorded.name)


def _may_be_tried(votes: Mapping[str, tuple[Vote, ...]]) -> Callable[[str], bool]:
    """Return whether an optimizer comes with torch, no fact forbids it, and no rule warns of it."""

    def may(name: str) -> bool:
        cast = votes.get(name, ())
        warned = any(vote.weight <= _WARNING for vote in cast)
        return catalogue.get(name).extra is None and not _vetoed(cast) and not warned

    return may


def _ask(rule: Rule, profile: Profile) -> tuple[Vote, ...]:
    # A user's rule may raise anything; the others still have their say.
    try:
        votes = rule(profile)
        for vote in votes:
            catalogue.get(vote.optimizer)
    except Exception as error:  # noqa: BLE001  # see above
        message = f"the rule {rule.name!r} was left out: it raised {type(error).__name__}: {error}"
        warnings.warn(message, RuleWarning, stacklevel=4)
        return ()
    return votes


def _asked(
    candidates: Iterable[str], profile: Profile, votes: Mapping[str, tuple[Vote, ...]], prior: Prior
) -> list[Proposal]:
    if isinstance(candidates, str):
        raise ConfigurationError(f"candidates is a sequence of names, but got {candidates!r}; write [{candidates!r}]")
    names = list(dict.fromkeys(candidates))
    if not names:
        raise ConfigurationError(
            "candidates is empty; name at least one optimizer, or pass None for what the rules propose"
        )
    for name in names:
        _check(name, votes.get(name, ()))
    ranking = sorted((name for name in names if name != USER), key=_by_score(votes))
    proposals = [_proposal(name, profile, votes.get(name, ()), "candidate", prior) for name in ranking]
    own = [Proposal(configuration=Configuration(optimizer=USER), seat="baseline")]
    return proposals + (own if USER in names else [])


def _check(name: str, votes: Iterable[Vote]) -> None:
    if name == USER:
        return
    try:
        spec = catalogue.get(name)
    except UnknownOptimizerError as error:
        raise UnknownOptimizerError.named(name, (*catalogue.names(), USER)) from error
    for vote in votes:
        if vote.veto:
            raise UnsupportedModuleError(
                f"the candidate {name!r} cannot train this model: {vote.rule} ({vote.because.describe()}). "
                "Leave it out of candidates."
            )
    if spec.extra is not None:
        spec.load()


def _eligible(votes: Sequence[Vote]) -> bool:
    asked = any(vote.rule not in _OURS and not vote.veto for vote in votes)
    built_in = catalogue.get(votes[0].optimizer).extra is None
    return not _vetoed(votes) and (built_in or asked)


def _vetoed(votes: Iterable[Vote]) -> bool:
    return any(vote.veto for vote in votes)


def _last_resort(votes: Mapping[str, tuple[Vote, ...]]) -> str:
    return next((name for name in _SAFE if not _vetoed(votes.get(name, ()))), _SAFE[-1])


def _seats(ranking: Sequence[str], votes: Mapping[str, tuple[Vote, ...]]) -> dict[str, Seat]:
    """Seat the textbook's best on "classic", and the best by measurement among the others on "evidence".

    The textbook's pick keeps its seat when the measured rules speak against it: trying it is the point.
    """
    seats: dict[str, Seat] = {}
    if classic := _best(ranking, votes, textbook=True):
        seats[classic] = "classic"
    if evidence := _best([name for name in ranking if name != classic], votes, textbook=False):
        seats[evidence] = "evidence"
    return seats


def _best(names: Sequence[str], votes: Mapping[str, tuple[Vote, ...]], *, textbook: bool) -> str | None:
    """Return the one of `names` with the most votes of one kind; None when that kind speaks for none."""
    share = {name: tuple(vote for vote in votes[name] if (vote.strength == "textbook") is textbook) for name in names}
    best = min(names, key=_by_score(share), default=None)
    return best if best is not None and _score(share[best]) > 0 else None


def _score(votes: Iterable[Vote]) -> float:
    return math.fsum(vote.weight for vote in votes)


def _by_score(votes: Mapping[str, Sequence[Vote]]) -> Callable[[str], tuple[float, str]]:
    # Equal scores in the order of names, so that the same profile always gives the same list.
    return lambda name: (-_score(votes.get(name, ())), name)


def _proposal(name: str, profile: Profile, votes: tuple[Vote, ...], seat: Seat, prior: Prior) -> Proposal:
    hyperparameters, schedule = prior(name, profile)
    start = Configuration(optimizer=name, hyperparameters=hyperparameters, schedule=schedule)
    return Proposal(configuration=start, votes=votes, seat=seat)
