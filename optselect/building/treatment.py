"""How a policy treats each parameter of a model: how fast it learns, whether it decays, when it joins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from optselect.configuration.policy import FineTuning, Pattern, Patterns, matches, several
from optselect.errors import ConfigurationError
from optselect.parameters.describe import ParamInfo, describe_params
from optselect.plan import Joining

_NEVER = Joining()


@dataclass(frozen=True, kw_only=True)
class Treatment:
    """What a policy says about one parameter.

    part   in words: "head", "backbone", "layer 3"; empty without a policy that tells them apart
    rate   factor on the configuration's learning rate
    decay  whether it may decay
    joins  when it begins to train (None: from the beginning)
    """

    part: str = ""
    rate: float = 1.0
    decay: bool = True
    joins: Joining | None = None


def treated(
    model: nn.Module, policy: FineTuning | None, sparse: Iterable[str] = (), order: Sequence[str] = ()
) -> list[tuple[ParamInfo, Treatment]]:
    """Every trainable parameter of `model` with its treatment; `order` as in `describe_params`.

    Raises `ConfigurationError` when a pattern matches no trainable parameter, when two claim the same one, when
    the policy speaks of a head and none is found, and when nothing would train from the beginning.
    """
    infos = describe_params(model, sparse=frozenset(sparse), order=order)
    if policy is None:
        return [(info, Treatment(decay=info.decay)) for info in infos if not info.frozen]
    if policy.head:
        named = _claimed("head", policy.head, infos)
        head_names = frozenset(info.name for info in named)
        infos = describe_params(model, sparse=frozenset(sparse), order=order, head=head_names)
    trainable = [info for info in infos if not info.frozen]
    if not trainable:
        return []
    head = {info.name for info in trainable if info.role == "head"}
    if not head and (policy.head_lr_ratio != 1.0 or any(not thaw.parameters for thaw in policy.thaws)):
        raise ConfigurationError(
            "the policy speaks of the head, but the model has none that can be found (its output layer may be its "
            "embedding, or frozen); name it with FineTuning(head=…)"
        )
    level = _levels(infos, policy)
    joins = _joinings(trainable, policy, head=head, level=level)
    if all(name in joins for name in (info.name for info in trainable)):
        raise ConfigurationError(
            "the policy leaves nothing to train at the beginning: freeze and thaw claim all "
            f"{len(trainable)} trainable parameters ({_some(trainable)}); leave the head out of them"
        )
    rates = _rates(trainable, policy)
    undecayed = {info.name for info in _claimed("no_decay", policy.no_decay, trainable)}
    top = max(level.values(), default=-1) + 1 if head else max(level.values(), default=0)

    def treatment(info: ParamInfo) -> Treatment:
        part, rate = "", 1.0
        if info.name in rates:
            rate = rates[info.name]
            part = f"rate {rate:g}"
        elif info.name in head:
            part, rate = "head", policy.head_lr_ratio
        elif policy.layer_decay != 1.0:
            part, rate = f"layer {level[info.name]}", policy.layer_decay ** (top - level[info.name])
        else:
            part = "backbone"
        return Treatment(
            part=part,
            rate=rate,
            decay=info.decay and info.name not in undecayed,
            joins=joins.get(info.name),
        )

    return [(info, treatment(info)) for info in trainable]


def _levels(infos: Sequence[ParamInfo], policy: FineTuning) -> dict[str, int]:
    """The layer of every parameter below the head, 0 nearest the input; frozen ones count, too."""
    below = [info for info in infos if info.role != "head"]
    if not policy.layers:
        ranks = {depth: rank for rank, depth in enumerate(sorted({info.depth for info in below}))}
        return {info.name: ranks[info.depth] for info in below}
    patterns = list(several(policy.layers))
    levels = {}
    for rank, infos_of_layer in enumerate(_claims("layers", patterns, below)):
        levels.update({info.name: rank for info in infos_of_layer})
    if missing := [info for info in below if info.name not in levels]:
        raise ConfigurationError(
            f"layers has no pattern for {_some(missing)}; let one of its {len(patterns)} patterns match them"
        )
    return levels


def _joinings(
    trainable: Sequence[ParamInfo], policy: FineTuning, *, head: set[str], level: Mapping[str, int]
) -> dict[str, Joining]:
    found = {info.name: _NEVER for info in _claimed("freeze", policy.freeze, trainable)}
    by_name = [thaw for thaw in policy.thaws if thaw.parameters]
    claims = dict(
        zip(map(id, by_name), _claims("thaw", [_any_of(thaw.parameters) for thaw in by_name], trainable), strict=True)
    )
    taken = {info.name for infos in claims.values() for info in infos}
    if twice := [info for info in trainable if info.name in taken and info.name in found]:
        raise ConfigurationError(
            f"freeze and thaw both claim {_some(twice)}; a parameter is frozen or thawed, not both"
        )
    body = [info for info in trainable if info.name not in head and info.name not in taken and info.name not in found]
    top = max((level[info.name] for info in body), default=0)
    for phase, thaw in enumerate(policy.thaws, start=1):
        joining = Joining(phase=phase, step=thaw.step, patience=thaw.patience)
        if thaw.parameters:
            found |= {info.name: joining for info in claims[id(thaw)]}
            continue
        joined = [
            info
            for info in body
            if info.name not in found and (thaw.layers is None or level[info.name] > top - thaw.layers)
        ]
        if not joined:
            raise ConfigurationError(f"nothing is left to join in thaw {phase} ({thaw.describe()}); leave it out")
        found |= {info.name: joining for info in joined}
    if any(thaw.layers is not None for thaw in policy.thaws):
        found |= {info.name: _NEVER for info in body if info.name not in found}
    return found


def _rates(trainable: Sequence[ParamInfo], policy: FineTuning) -> dict[str, float]:
    claims = _claims("rates", list(policy.rates), trainable)
    return {info.name: rate for infos, rate in zip(claims, policy.rates.values(), strict=True) for info in infos}


def _claimed(what: str, patterns: Patterns, infos: Sequence[ParamInfo]) -> list[ParamInfo]:
    """The parameters that any of the patterns matches; each pattern must match one."""
    listed = list(several(patterns))
    for pattern in listed:
        _found(what, pattern, infos)
    return [info for info in infos if any(matches(pattern, _names(info)) for pattern in listed)]


def _claims(what: str, patterns: Sequence[Pattern], infos: Sequence[ParamInfo]) -> list[list[ParamInfo]]:
    """The parameters of each pattern; no two may claim the same one."""
    claims = [_found(what, pattern, infos) for pattern in patterns]
    owners: dict[str, int] = {}
    for index, claim in enumerate(claims):
        for info in claim:
            if owners.setdefault(info.name, index) != index:
                raise ConfigurationError(
                    f"{what} claims {info.name} twice, by {_spoken(patterns[owners[info.name]])} and by "
                    f"{_spoken(patterns[index])}; a parameter can be in one only"
                )
    return claims


def _found(what: str, pattern: Pattern, infos: Sequence[ParamInfo]) -> list[ParamInfo]:
    found = [info for info in infos if matches(pattern, _names(info))]
    if not found:
        raise ConfigurationError(
            f"{what}: {_spoken(pattern)} matches none of the {len(infos)} parameters it could mean ({_some(infos)}); "
            "frozen ones (requires_grad=False) are not among them"
        )
    return found


def _any_of(patterns: Patterns) -> Callable[[str], bool]:
    listed = list(several(patterns))

    def claims(name: str) -> bool:
        return any(matches(pattern, (name,)) for pattern in listed)

    claims.__name__ = " or ".join(map(_spoken, listed))
    return claims


def _names(info: ParamInfo) -> tuple[str, ...]:
    return (info.name, *info.tied_names)


def _spoken(pattern: Pattern) -> str:
    return getattr(pattern, "__name__", repr(pattern)) if callable(pattern) else repr(pattern)


def _some(infos: Sequence[ParamInfo], most: int = 5) -> str:
    more = f" and {len(infos) - most} more" if len(infos) > most else ""
    return ", ".join(info.name for info in infos[:most]) + more
