"""How a trained model is trained on: a policy for its head, its layers and what joins later, as a value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from optselect.errors import ConfigurationError

# A regular expression that is searched for in a parameter's name, or a function of the name.
Pattern = str | Callable[[str], bool]
Patterns = Pattern | Sequence[Pattern]


@dataclass(frozen=True, kw_only=True)
class Thaw:
    """A part of the model that joins its training later.

    What joins: the parameters that `parameters` match; or the topmost `layers` of the backbone, as far as they
    have not joined yet; or, with neither, all of the backbone that has not joined yet. Until then its
    `requires_grad` is False, which also saves the backward pass below it.

    When: exactly one of `epoch` (at its beginning, counted from 0), `step` (after so many optimizer steps),
    `share` (of the whole training) and `patience` (after so many validations in a row without an improvement).
    """

    epoch: int | None = None
    step: int | None = None
    share: float | None = None
    patience: int | None = None
    layers: int | None = None
    parameters: Patterns = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", _as_patterns("parameters", self.parameters))
        times = {name: value for name in _TIMES if (value := getattr(self, name)) is not None}
        if len(times) != 1:
            raise ConfigurationError(
                f"a Thaw comes at one of {', '.join(_TIMES)}, but got {', '.join(times) or 'none of them'}; give one"
            )
        ((name, value),) = times.items()
        if name == "share" and not 0.0 < value < 1.0:
            raise ConfigurationError(f"share is a share of the training between 0 and 1, but got {value}")
        if name != "share" and value < 1:
            raise ConfigurationError(
                f"{name} must be 1 or more, but got {value}: what trains from the beginning needs no Thaw"
            )
        if self.layers is not None and self.parameters:
            raise ConfigurationError("a Thaw names what joins by layers or by parameters, but got both; give one")
        if self.layers is not None and self.layers < 1:
            raise ConfigurationError(f"layers counts from the top of the backbone, 1 or more, but got {self.layers}")

    def timed(self, steps_per_epoch: int | None, total_steps: int | None) -> Thaw:
        """Return the same with `step` in place of `epoch` or `share`.

        Raises `ConfigurationError` where the length that it counts in is not known.
        """
        if self.epoch is not None:
            if steps_per_epoch is None:
                raise ConfigurationError(
                    f"a Thaw comes at epoch {self.epoch}, but the length of an epoch is not known; give step="
                )
            return replace(self, epoch=None, step=self.epoch * steps_per_epoch)
        if self.share is not None:
            if total_steps is None:
                raise ConfigurationError(
                    f"a Thaw comes after {self.share:.0%} of the training, whose length is not known; give step="
                )
            return replace(self, share=None, step=max(round(self.share * total_steps), 1))
        return self

    def describe(self) -> str:
        """Put it in words: `the backbone joins at step 60`."""
        whose = f"the top {self.layers} layers" if self.layers is not None else "the backbone"
        if self.parameters:
            whose = _listed(self.parameters)
        when = f"at epoch {self.epoch}" if self.epoch is not None else f"at step {self.step}"
        if self.share is not None:
            when = f"after {self.share:.0%} of the training"
        if self.patience is not None:
            when = f"after {self.patience} validations without improvement"
        return f"{whose} joins {when}"

    def to_dict(self) -> dict[str, Any]:
        """Write as builtins what is not the default; inverse of `from_dict`."""
        return _plain(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Thaw:
        """Read the thaw that `to_dict` wrote."""
        return cls(**data)


_TIMES = ("epoch", "step", "share", "patience")


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """Which parts of a trained model learn how fast, how much they decay, and when they join.

    The learning rate of a configuration is that of the topmost layer; with the defaults, of all parameters.

    head_lr_ratio  how many times faster the head learns, which is usually new
    layer_decay    each layer further from the head learns this many times as fast as the one above it:
                   lr · layer_decay^(layers above it, the head included)
    rates          factors on the learning rate of parameters by pattern, in place of the two above
    no_decay       parameters without weight decay, beside norms, biases and vectors
    freeze         parameters that never train
    thaw           what joins later, in order. What no `Thaw` names trains from the beginning; but with one by
                   `layers`, the rest of the backbone stays frozen unless a later one takes it in
    head           what the head is (none: found, see `optselect.parameters.describe`)
    layers         the layers of the backbone from input to output, one pattern each (none: found)

    Patterns are regular expressions, searched for in the names of `model.named_parameters()`, or functions of
    the name. What matches nothing, or a parameter that two of them claim, is a `ConfigurationError` that names
    it when the policy meets the model.
    """

    head_lr_ratio: float = 1.0
    layer_decay: float = 1.0
    rates: Mapping[Pattern, float] = field(default_factory=dict)
    no_decay: Patterns = ()
    freeze: Patterns = ()
    thaw: Thaw | Sequence[Thaw] = ()
    head: Patterns = ()
    layers: Patterns = ()

    def __post_init__(self) -> None:
        for name in ("no_decay", "freeze", "head", "layers"):
            object.__setattr__(self, name, _as_patterns(name, getattr(self, name)))
        thaws = (self.thaw,) if isinstance(self.thaw, Thaw) else tuple(self.thaw)
        object.__setattr__(self, "thaw", thaws)
        _as_patterns("rates", tuple(self.rates))
        if not 0.0 < self.layer_decay <= 1.0:
            raise ConfigurationError(f"layer_decay is a factor from layer to layer in (0, 1], got {self.layer_decay}")
        factors = {"head_lr_ratio": self.head_lr_ratio, **{f"rates[{p!r}]": rate for p, rate in self.rates.items()}}
        for name, rate in factors.items():
            if not 0.0 < rate < float("inf"):
                raise ConfigurationError(
                    f"{name} is a factor above 0, but got {rate}; to keep a part as it is, use freeze"
                )

    @property
    def thaws(self) -> tuple[Thaw, ...]:
        """`thaw` as a tuple, whichever way it was given."""
        return (self.thaw,) if isinstance(self.thaw, Thaw) else tuple(self.thaw)

    @property
    def sets_rates(self) -> bool:
        """Whether parts learn at different rates."""
        return self.head_lr_ratio != 1.0 or self.layer_decay != 1.0 or bool(self.rates)

    @property
    def freezes(self) -> bool:
        """Whether some part is frozen, for a time or for good."""
        return bool(self.thaw or self.freeze)

    def timed(self, steps_per_epoch: int | None, total_steps: int | None) -> FineTuning:
        """Give every thaw that comes at an epoch or a share its optimizer step.

        Raises `ConfigurationError` for one whose step cannot be known, that comes before an earlier one, or
        that the training does not reach.
        """
        timed = tuple(thaw.timed(steps_per_epoch, total_steps) for thaw in self.thaws)
        latest = 0
        for thaw in timed:
            if thaw.step is None:
                continue
            if thaw.step <= latest:
                raise ConfigurationError(
                    f"a Thaw comes at step {thaw.step}, not after the one before it (step {latest}); "
                    "list them in the order they come in"
                )
            if total_steps is not None and thaw.step >= total_steps:
                raise ConfigurationError(
                    f"a Thaw comes at step {thaw.step}, but the training ends after {total_steps}; let it come earlier"
                )
            latest = thaw.step
        return replace(self, thaw=timed)

    def squeezed(self, ratio: float) -> FineTuning:
        """Fit it to a training `ratio` times as long, of which every thaw that comes at a step keeps its share."""
        steps = (None if thaw.step is None else max(round(thaw.step * ratio), 1) for thaw in self.thaws)
        return replace(self, thaw=tuple(replace(thaw, step=step) for thaw, step in zip(self.thaws, steps, strict=True)))

    def named(self, names: Iterable[str]) -> FineTuning:
        """Replace each function by those of `names` that it matches, so that the policy can be written as JSON."""
        names = list(names)

        def spelled(patterns: Any) -> tuple[Pattern, ...]:
            return tuple(each for pattern in patterns for each in _spelled(pattern, names))

        # A layer, or a rate, is one pattern: several names become one.
        return replace(
            self,
            no_decay=spelled(self.no_decay),
            freeze=spelled(self.freeze),
            head=spelled(self.head),
            layers=tuple("|".join(map(str, _spelled(pattern, names))) for pattern in several(self.layers)),
            rates={"|".join(map(str, _spelled(pattern, names))): rate for pattern, rate in self.rates.items()},
            thaw=tuple(replace(thaw, parameters=spelled(thaw.parameters)) for thaw in self.thaws),
        )

    def describe(self) -> str:
        """Put it in words: `head ×10, layer decay 0.9, the backbone joins at step 60`."""
        parts = [f"head ×{self.head_lr_ratio:g}"] if self.head_lr_ratio != 1.0 else []
        parts += [f"layer decay {self.layer_decay:g}"] if self.layer_decay != 1.0 else []
        parts += [f"×{rate:g} on {pattern}" for pattern, rate in self.rates.items()]
        parts += [f"no decay on {_listed(self.no_decay)}"] if self.no_decay else []
        parts += [f"frozen: {_listed(self.freeze)}"] if self.freeze else []
        return ", ".join([*parts, *(thaw.describe() for thaw in self.thaws)]) or "all parameters alike"

    def to_dict(self) -> dict[str, Any]:
        """Write as builtins what is not the default; inverse of `from_dict`. Functions must have been named before."""
        thaws = {"thaw": [thaw.to_dict() for thaw in self.thaws]} if self.thaw else {}
        return {**_plain(self, without="thaw"), **thaws}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FineTuning:
        """Read the policy that `to_dict` wrote."""
        return cls(**{**data, "thaw": tuple(Thaw.from_dict(thaw) for thaw in data.get("thaw", ()))})


# What `AutoOptimizer` and `select` take: whether the model is trained already, or how it is to be trained on.
FineTuningWord = bool | Literal["auto"] | FineTuning


def matches(pattern: Pattern, names: Iterable[str]) -> bool:
    """Tell whether the pattern is found in one of a parameter's names."""
    if callable(pattern):
        return any(pattern(name) for name in names)
    return any(re.search(pattern, name) for name in names)


def several(patterns: Patterns) -> Sequence[Pattern]:
    """Return patterns as a sequence, whichever way they were given."""
    return (patterns,) if isinstance(patterns, str) or callable(patterns) else patterns


def _listed(patterns: Patterns) -> str:
    return ", ".join(map(str, several(patterns)))


def _as_patterns(what: str, given: Any) -> tuple[Pattern, ...]:
    patterns = tuple(several(given))
    for pattern in patterns:
        if callable(pattern):
            continue
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ConfigurationError(
                f"{what} takes regular expressions or functions of a name, but got {pattern!r} ({error})"
            ) from error
    return patterns


def _spelled(pattern: Pattern, names: Sequence[str]) -> tuple[str, ...]:
    if not callable(pattern):
        return (pattern,)
    found = tuple(f"^{re.escape(name)}$" for name in names if pattern(name))
    if not found:
        raise ConfigurationError(f"{getattr(pattern, '__name__', pattern)} matches none of the model's parameters")
    return found


def _plain(value: Thaw | FineTuning, without: str = "") -> dict[str, Any]:
    usual = {item.name: item.default for item in fields(value)}
    own = {name: getattr(value, name) for name in usual if name != without}
    return {
        name: list(item) if isinstance(item, tuple) else dict(item) if isinstance(item, Mapping) else item
        for name, item in own.items()
        if item != usual[name] and item not in ((), {})
    }
