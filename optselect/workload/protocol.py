"""What the search needs from a training, whatever runs it.

`Workload` is AlgoPerf's word (Dahl et al. 2023, arXiv:2306.07179) for a model, its data, its loss and its
length. `TorchWorkload` is a plain PyTorch loop; `LightningWorkload` drives Lightning's own loops.

Units: a *micro-batch* is one forward and backward pass; a *step* is one optimizer step, which takes
`accumulate` micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, IterableDataset

from optselect.configuration.evaluation import Evaluation
from optselect.configuration.goal import Mode
from optselect.configuration.own_optimizer import OwnOptimizer
from optselect.study.identity import Identity

T = TypeVar("T")
Build = Callable[[nn.Module], tuple[Optimizer, LRScheduler | None]]
UNSCALED: Mapping[str, float] = MappingProxyType({})
"""No factor on the user's own rates."""


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """The training data as the profile reads it.

    dataset     map-style data set that can be indexed without touching a loader (None: a stream)
    collate     makes a batch of a list of its items (None: items are not collated)
    batch_size  samples in one batch (None: not known)
    batches     batches in one epoch (None: a stream)
    head        the first `n` batches as the training would draw them, the loader left unchanged
    """

    dataset: Any | None
    collate: Callable[[list[Any]], Any] | None
    batch_size: int | None
    batches: int | None
    head: Callable[[int], list[Any]]

    @classmethod
    def of(cls, loader: Any, *, batches: int | None, head: Callable[[int], list[Any]]) -> DataSource:
        """Describe the data behind `loader`: its data set, where it is a DataLoader over one that can be indexed."""
        indexed = isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset)
        # With batch_size=None the items are batches already.
        indexed = indexed and loader.batch_sampler is not None
        return cls(
            dataset=loader.dataset if indexed else None,
            collate=loader.collate_fn if indexed else None,
            batch_size=getattr(loader, "batch_size", None),
            batches=batches,
            head=head,
        )


@runtime_checkable
class Workload(Protocol):
    """A training that can be borrowed for short trials and comes back as it was.

    All methods but the properties, `source` and `agree` are called inside `borrowed()`.
    """

    @property
    def model(self) -> nn.Module:
        """The model, with the user's weights."""

    @property
    def steps(self) -> int | None:
        """Optimizer steps to come; None when that cannot be known."""

    @property
    def accumulate(self) -> int:
        """Micro-batches to one optimizer step."""

    @property
    def mode(self) -> Mode:
        """Whether the value a trial is judged by should be small or large."""

    @property
    def monitor(self) -> str:
        """What a trial is judged by, in words: the logged name, or a description."""

    @property
    def validation_batches(self) -> int:
        """Batches one `validate()` runs forward; each counts a third of a micro-batch."""

    @property
    def has_user_optimizer(self) -> bool:
        """Whether the training brings an optimizer of its own."""

    @property
    def own_optimizer(self) -> OwnOptimizer | None:
        """What that optimizer trains, and how; known inside `borrowed()`. None: the training brings none."""

    @property
    def obstacle_to_thawing(self) -> str | None:
        """Why parts of the model cannot be frozen and join later; None: they can."""

    @property
    def obstacle_to_scheduling(self) -> str | None:
        """Why no schedule would move once per optimizer step; None: it would. Known when `backward` was called."""

    @property
    def caveats(self) -> tuple[str, ...]:
        """In what trials are judged otherwise than the training will be, a sentence each."""

    @property
    def keeps_best(self) -> bool:
        """Whether the training keeps the weights of its best value, not of its last."""

    @property
    def identity(self) -> Identity:
        """What tells this training from another: equal, as far as machines agree, for a rerun of the same one."""

    def borrowed(self) -> AbstractContextManager[None]:
        """Leave everything as it came, whatever happens inside. Nested calls borrow once."""

    def source(self) -> DataSource:
        """Return the training data, for the profile."""

    def backward(self, batch: Any) -> float:
        """Return the training loss of `batch`, and leave its gradients in the parameters' `.grad`."""

    def begin(self, build: Build | None, seed: int, scales: Mapping[str, float] = UNSCALED) -> None:
        """Start a training from the borrowed weights with a new optimizer; None: the user's own, at `scales`.

        The same seed gives the same batches and the same random numbers. `scales` are factors on
        the user's own rates, as `optselect.optim.rescaling.scaled` takes them.
        """

    def train(self, micro_batches: int) -> Sequence[float | None]:
        """Go on with the training that was begun; return the loss of every micro-batch (None where it gave none)."""

    def validate(self) -> Evaluation:
        """Measure the value a trial is judged by, at the present weights, and that of each batch it is the mean of."""

    def pause(self) -> Any:
        """Put the training that was begun aside, to go on with it later."""

    def resume(self, paused: Any) -> None:
        """Go on with what `pause` put aside, exactly where it stood. A paused training can be resumed once."""

    def store(self) -> dict[str, Any] | None:
        """Return the training that was begun, in builtins and tensors; None where these cannot say all of it."""

    def restore(self, stored: dict[str, Any], build: Build | None, scales: Mapping[str, float] = UNSCALED) -> None:
        """Go on with what `store` said, in this or in a later process, exactly where it stood.

        `build` and `scales` are those the training was begun with. Raises some error when it cannot
        be gone on with; then it has to be begun.
        """

    def paused_bytes(self) -> int:
        """Estimate the memory that putting the present training aside would hold."""

    @property
    def processes(self) -> int:
        """Processes that train together, in lock-step."""

    def agree(self, value: T) -> T:
        """Return what the first process says, in every process of a distributed training."""
