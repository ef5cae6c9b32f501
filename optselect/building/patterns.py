"""Which parameters the patterns of a policy mean; what they mean twice, or not at all, is an error that says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from optselect.configuration.policy import Pattern, Patterns, matches, several
from optselect.errors import ConfigurationError
from optselect.parameters.describe import ParamInfo


def matched(what: str, patterns: Patterns, infos: Sequence[ParamInfo]) -> list[ParamInfo]:
    """Find the parameters that any of the patterns matches; each pattern must match one."""
    found = {info.name for pattern in several(patterns) for info in _found(what, pattern, infos)}
    return [info for info in infos if info.name in found]


def claims(what: str, patterns: Sequence[Pattern], infos: Sequence[ParamInfo]) -> list[list[ParamInfo]]:
    """Find the parameters of each pattern; no two may claim the same one."""
    claimed = [_found(what, pattern, infos) for pattern in patterns]
    owners: dict[str, int] = {}
    for index, claim in enumerate(claimed):
        for info in claim:
            if owners.setdefault(info.name, index) != index:
                raise ConfigurationError(
                    f"{what} claims {info.name} twice, by {_spoken(patterns[owners[info.name]])} and by "
                    f"{_spoken(patterns[index])}; a parameter can be in one only"
                )
    return claimed


def any_of(patterns: Patterns) -> Callable[[str], bool]:
    """Combine the patterns into one that matches what any of them does."""
    listed = list(several(patterns))

    def found(name: str) -> bool:
        return any(matches(pattern, (name,)) for pattern in listed)

    found.__name__ = " or ".join(map(_spoken, listed))
    return found


def some_names(infos: Sequence[ParamInfo], most: int = 5) -> str:
    """List the first few of their names, and how many more there are."""
    more = f" and {len(infos) - most} more" if len(infos) > most else ""
    return ", ".join(info.name for info in infos[:most]) + more


def _found(what: str, pattern: Pattern, infos: Sequence[ParamInfo]) -> list[ParamInfo]:
    found = [info for info in infos if matches(pattern, info.names)]
    if not found:
        raise ConfigurationError(
            f"{what}: {_spoken(pattern)} matches none of the {len(infos)} parameters it could mean "
            f"({some_names(infos)}); frozen ones (requires_grad=False) are not among them"
        )
    return found


def _spoken(pattern: Pattern) -> str:
    return getattr(pattern, "__name__", repr(pattern)) if callable(pattern) else repr(pattern)
