"""How a policy treats each parameter of a model: how fast it learns, whether it decays, when it joins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optselect.building.patterns import any_of, claims, matched, some_names
from optselect.configuration.policy import FineTuning, several
from optselect.errors import ConfigurationError
from optselect.parameters.anatomy import Anatomy
from optselect.parameters.describe import ParamInfo
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


def treated(anatomy: Anatomy, policy: FineTuning | None) -> list[tuple[ParamInfo, Treatment]]:
    """Pair every trainable parameter of a model with its treatment.

    Raises `ConfigurationError` when a pattern matches no trainable parameter, when two claim the same one, when
    the policy speaks of a head and none is found, and when nothing would train from the beginning.
    """
    if policy is None:
        return [(info, Treatment(decay=info.decay)) for info in anatomy.trainable]
    if policy.head:
        anatomy = anatomy.with_head({info.name for info in matched("head", policy.head, anatomy.parameters)})
    trainable = anatomy.trainable
    if not trainable:
        return []
    head = {info.name for info in trainable if info.role == "head"}
    if not head and (policy.head_lr_ratio != 1.0 or any(not thaw.parameters for thaw in policy.thaws)):
        raise ConfigurationError(
            "the policy speaks of the head, but the model has none that can be found (its output layer may be its "
            "embedding, or frozen); name it with FineTuning(head=…)"
        )
    level = _levels(anatomy.parameters, policy)
    joins = _joinings(trainable, policy, head=head, level=level)
    if all(info.name in joins for info in trainable):
        raise ConfigurationError(
            "the policy leaves nothing to train at the beginning: freeze and thaw claim all "
            f"{len(trainable)} trainable parameters ({some_names(trainable)}); leave the head out of them"
        )
    rates = _rates(trainable, policy, head=head, level=level)
    undecayed = {info.name for info in matched("no_decay", policy.no_decay, trainable)}
    return [
        (
            info,
            Treatment(
                part=rates[info.name][0],
                rate=rates[info.name][1],
                decay=info.decay and info.name not in undecayed,
                joins=joins.get(info.name),
            ),
        )
        for info in trainable
    ]


def _levels(infos: Sequence[ParamInfo], policy: FineTuning) -> dict[str, int]:
    """Rank every parameter below the head by its layer, 0 nearest the input; frozen ones count, too."""
    below = [info for info in infos if info.role != "head"]
    if not policy.layers:
        ranks = {depth: rank for rank, depth in enumerate(sorted({info.depth for info in below}))}
        return {info.name: ranks[info.depth] for info in below}
    patterns = list(several(policy.layers))
    levels = {}
    for rank, infos_of_layer in enumerate(claims("layers", patterns, below)):
        levels.update({info.name: rank for info in infos_of_layer})
    if missing := [info for info in below if info.name not in levels]:
        raise ConfigurationError(
            f"layers has no pattern for {some_names(missing)}; let one of its {len(patterns)} patterns match them"
        )
    return levels


def _joinings(
    trainable: Sequence[ParamInfo], policy: FineTuning, *, head: set[str], level: Mapping[str, int]
) -> dict[str, Joining]:
    """Tell when each parameter joins that does not train from the beginning."""
    found = {info.name: _NEVER for info in matched("freeze", policy.freeze, trainable)}
    by_name = [thaw for thaw in policy.thaws if thaw.parameters]
    claimed = dict(
        zip(map(id, by_name), claims("thaw", [any_of(thaw.parameters) for thaw in by_name], trainable), strict=True)
    )
    taken = {info.name for infos in claimed.values() for info in infos}
    if twice := [info for info in trainable if info.name in taken and info.name in found]:
        raise ConfigurationError(
            f"freeze and thaw both claim {some_names(twice)}; a parameter is frozen or thawed, not both"
        )
    body = [info for info in trainable if info.name not in head and info.name not in taken and info.name not in found]
    top = max((level[info.name] for info in body), default=0)
    for phase, thaw in enumerate(policy.thaws, start=1):
        joining = Joining(phase=phase, step=thaw.step, patience=thaw.patience)
        if thaw.parameters:
            found |= {info.name: joining for info in claimed[id(thaw)]}
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


def _rates(
    trainable: Sequence[ParamInfo], policy: FineTuning, *, head: set[str], level: Mapping[str, int]
) -> dict[str, tuple[str, float]]:
    """Return each parameter's part, in words, and its factor on the learning rate."""
    of_patterns = claims("rates", list(policy.rates), trainable)
    own = {info.name: rate for infos, rate in zip(of_patterns, policy.rates.values(), strict=True) for info in infos}
    # The head is a layer of its own above the backbone's.
    top = max(level.values(), default=-1) + 1 if head else max(level.values(), default=0)

    def part_and_rate(name: str) -> tuple[str, float]:
        if name in own:
            return f"rate {own[name]:g}", own[name]
        if name in head:
            return "head", policy.head_lr_ratio
        if policy.layer_decay != 1.0:
            return f"layer {level[name]}", policy.layer_decay ** (top - level[name])
        return "backbone", 1.0

    return {info.name: part_and_rate(info.name) for info in trainable}
