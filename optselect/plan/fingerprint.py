"""The model that a plan is for, by the names and shapes of its parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from optselect.errors import PlanMismatchError
from optselect.parameters.names import named_parameters


class _Parameter(Protocol):
    @property
    def shape(self) -> Iterable[int]: ...

    @property
    def requires_grad(self) -> bool: ...


class _Model(Protocol):
    def named_parameters(self) -> Iterable[tuple[str, _Parameter]]: ...


@dataclass(frozen=True, kw_only=True)
class ModelFingerprint:
    """The model a plan is for: each parameter's shape by name, in the model's order; and which are frozen.

    `left_out` are those that are not frozen, but left as they are by the training's own optimizer: so does the plan.
    """

    shapes: Mapping[str, tuple[int, ...]]
    frozen: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()

    @classmethod
    def of(cls, model: _Model, left_out: Iterable[str] = ()) -> ModelFingerprint:
        """Take the fingerprint of `model`."""
        parameters = list(named_parameters(model))
        return cls(
            shapes={name: tuple(parameter.shape) for name, parameter in parameters},
            frozen=frozenset(name for name, parameter in parameters if not parameter.requires_grad),
            left_out=frozenset(left_out),
        )

    @property
    def untrained(self) -> frozenset[str]:
        """The parameters that no group has: the frozen ones, and those left out."""
        return self.frozen | self.left_out

    def check(self, model: _Model) -> None:
        """Raise `PlanMismatchError`, naming the parameters, unless `model` is the one this was taken of."""
        here = ModelFingerprint.of(model)
        if wrapper := _wrapper(self.shapes, here.shapes):
            raise PlanMismatchError(
                f"the plan covers {len(self.shapes)} parameters, and the names of the model's begin with {wrapper!r} "
                f"beside: it is the plan's model in a wrapper, as DistributedDataParallel is one. "
                f"Pass the model inside, model.{wrapper[:-1]}; the two share their parameters."
            )
        if wrapper := _wrapper(here.shapes, self.shapes):
            raise PlanMismatchError(
                f"the plan was made for this model in a wrapper: its names of parameters begin with {wrapper!r}. Wrap "
                "the model as it was, or search anew with the model itself and wrap it afterwards."
            )
        differences = [
            *_listed("new", [name for name in here.shapes if name not in self.shapes]),
            *_listed("missing", [name for name in self.shapes if name not in here.shapes]),
            *_listed(
                "of another shape",
                [
                    f"{name} {list(here.shapes[name])} for {list(shape)}"
                    for name, shape in self.shapes.items()
                    if name in here.shapes and here.shapes[name] != shape
                ],
            ),
            *_listed("now frozen", sorted((here.frozen - self.frozen) & set(self.shapes))),
            *_listed("no longer frozen", sorted((self.frozen - here.frozen) & set(here.shapes))),
        ]
        if not differences and list(here.shapes) != list(self.shapes):
            differences = ["the same parameters in another order"]
        if differences:
            raise PlanMismatchError(
                f"the plan covers {len(self.shapes)} parameters and the model has {len(here.shapes)}; "
                f"{'; '.join(differences)}. Use the model the plan was made for, or search anew without the plan."
            )

    def to_dict(self) -> dict[str, Any]:
        """Write as builtins; inverse of `from_dict`."""
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        left_out = {"left_out": sorted(self.left_out)} if self.left_out else {}
        return {"shapes": shapes, "frozen": sorted(self.frozen), **left_out}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelFingerprint:
        """Read the fingerprint that `to_dict` wrote."""
        shapes = {name: tuple(shape) for name, shape in data["shapes"].items()}
        return cls(shapes=shapes, frozen=frozenset(data["frozen"]), left_out=frozenset(data.get("left_out", ())))


def _wrapper(inside: Iterable[str], outside: Iterable[str]) -> str:
    """Return what all names `outside` have before those `inside`, as a path that ends in a dot (none: "")."""
    names, longer = list(inside), list(outside)
    if not names or not longer or not longer[0].endswith(f".{names[0]}"):
        return ""
    before = longer[0].removesuffix(names[0])
    return before if longer == [f"{before}{name}" for name in names] else ""


def _listed(what: str, names: list[str], most: int = 5) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return [f"{what}: {', '.join(names[:most])}{more}"]
