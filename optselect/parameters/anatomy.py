"""A model's parameters, described once and handed on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from torch import nn

from optselect.parameters.describe import ParamInfo, describe_params
from optselect.parameters.sharding import whole


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """What the parameters of a model are for, and what that was told from.

    parameters  all of them, frozen ones too, in the model's order
    order       the modules in the order in which they run, one that runs again twice (none: not known)
    sparse      the names of the parameters whose gradients are sparse tensors
    left_out    the names of those that nobody trains, though they are not frozen themselves: they count as frozen
    model       what was described
    """

    parameters: tuple[ParamInfo, ...]
    order: tuple[str, ...] = ()
    sparse: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()
    model: nn.Module = field(repr=False, compare=False)
    _with_heads: dict[frozenset[str], Anatomy] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def trainable(self) -> tuple[ParamInfo, ...]:
        """The parameters that are not frozen."""
        return tuple(info for info in self.parameters if not info.frozen)

    def with_head(self, head: Collection[str]) -> Anatomy:
        """Describe the model with these parameters as its head, which may change the depth of the others, too."""
        names = frozenset(head)
        if names not in self._with_heads:
            self._with_heads[names] = anatomy_of(
                self.model, sparse=self.sparse, order=self.order, head=names, left_out=self.left_out
            )
        return self._with_heads[names]


def anatomy_of(
    model: nn.Module,
    *,
    sparse: Collection[str] = (),
    order: Sequence[str] = (),
    head: Collection[str] | None = None,
    left_out: Collection[str] = (),
) -> Anatomy:
    """Describe every parameter of `model`, whole where it is cut over processes; see `describe_params`."""
    model = whole(model)
    return Anatomy(
        parameters=tuple(describe_params(model, sparse=sparse, order=order, head=head, left_out=left_out)),
        order=tuple(order),
        sparse=frozenset(sparse),
        left_out=frozenset(left_out),
        model=model,
    )
