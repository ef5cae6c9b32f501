"""The measured numbers, as values with a JSON form both ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from html import escape
from typing import Any, Literal, Self

from optselect.catalogue.spec import Cut
from optselect.errors import PlanFormatError

LabelKind = Literal["binary", "multiclass", "multilabel", "continuous", "tokens", "unknown"]


class _Record:
    """JSON both ways for the dataclasses below: tuples come back as tuples, unknown fields are refused."""

    def to_dict(self) -> dict[str, Any]:
        """Write as builtins; inverse of `from_dict`."""
        return {name: _plain(value) for name, value in asdict(self).items()}  # type: ignore[call-overload]  # mixin

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read the record that `to_dict` wrote. Raises `PlanFormatError` on fields it does not know."""
        known = {item.name for item in fields(cls)}  # type: ignore[arg-type]  # a mixin of dataclasses
        if unknown := sorted(set(data) - known):
            raise PlanFormatError(
                f"{cls.__name__} has no field {', '.join(unknown)}; it has {', '.join(sorted(known))}"
            )
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in data.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True, kw_only=True)
class DataProfile(_Record):
    """The data set, from a bounded sample. None means: not known, or there is none.

    size              samples in the training set (None: a stream)
    batch_size        samples in one batch
    batches           batches in one epoch (None: a stream)
    rows_read         samples looked at for the numbers below
    features          numbers in one sample, all inputs together
    dtypes            of the input tensors, e.g. ("float32",)
    density           share of the sampled measured inputs that are not zero. Measured are floating-point,
                      byte and boolean inputs and whatever stands in a sparse container; integers are tokens
                      or ids: None. Of a graph None too: its matrix of edges is no feature
    value_range       smallest and largest finite measured input
    scale_ratio       largest over smallest standard deviation of a feature (a channel, where there is a time
                      or image axis); large means: not scaled. Features that are zero in nine rows of ten are
                      left out: their deviation tells how rare they are, not their scale
    duplicates        share of the sampled rows that repeat an earlier one exactly
    sequence_length   median length of the sequence axis (None: no such axis; the nodes of a graph are none)
    edges             edges of the graphs in the first batch (None: there is no graph in it)
    label_kind        what the targets are. "tokens": an integer for each position; a sequence of integers
                      that comes without a target is taken to be its own, as in language models
    classes           distinct classes seen
    class_counts      samples of each class seen, descending, at most the first 1,000
    top_class_share   share of the most frequent class
    rare_class_share  share of the classes seen that are less than a tenth as frequent as the top one
    tail_exponent     slope of log(count) against -log(rank): 0 balanced, 1 Zipf
    """

    size: int | None = None
    batch_size: int | None = None
    batches: int | None = None
    rows_read: int = 0
    features: int | None = None
    dtypes: tuple[str, ...] = ()
    density: float | None = None
    value_range: tuple[float, float] | None = None
    scale_ratio: float | None = None
    duplicates: float | None = None
    sequence_length: int | None = None
    edges: int | None = None
    label_kind: LabelKind = "unknown"
    classes: int | None = None
    class_counts: tuple[int, ...] = ()
    top_class_share: float | None = None
    rare_class_share: float | None = None
    tail_exponent: float | None = None


@dataclass(frozen=True, kw_only=True)
class ModelProfile(_Record):
    """The model's parameters. Counts are of scalars unless they say tensors, shares of the trainable ones.

    parameters        trainable scalars
    frozen            scalars with requires_grad=False, and those of `left_out`
    tensors           trainable tensors
    kinds             trainable scalars by kind: embedding, conv, linear, norm, recurrent, attention, other
    depth             layers with parameters, from input to output; a repeated block is one layer
    batch_norm        whether a BatchNorm layer is there
    dropout           the largest probability of a dropout layer: above 0 the same batch has another loss each
                      time
    graph             whether a module's class is named like a graph network's
    tied              tensors that stand under more than one name
    dtypes            of the trainable tensors, e.g. ("float32",)
    complex           whether a trainable tensor is complex
    muon_share        share in hidden matrices that torch's Muon can train
    shapes            trainable tensors by shape, as in {"128x64": 2, "128": 2}: what an optimizer's state is
                      sized by
    at_initialisation whether the weights look untrained (None: cannot tell)
    initialisation_evidence   what that was told from, in words (None: cannot tell)
    trained_share     share of the matrices whose spectrum is not that of a random one
    fresh             modules that are as they were made in a model that is not: a new head on a trained backbone
    head              names of the parameters of the head, tied ones left out (none: not found)
    adapters          scalars in LoRA matrices and other adapters
    executed          modules in the order in which they run, one that runs again twice (none: not known)
    memory_free       bytes free where the model lives (None: not known)
    cut               how the weights are cut over processes: into "flat" stretches of vectors (FSDP's first version) or
                      parts of "tensors" that know their whole (FSDP2, tensor parallelism); None: not at all
    left_out          names of the parameters that the training's own optimizer does not train, though they are not
                      frozen: no other optimizer trains them, either
    """

    parameters: int
    frozen: int = 0
    tensors: int = 0
    kinds: Mapping[str, int] = field(default_factory=dict)
    depth: int = 0
    batch_norm: bool = False
    dropout: float = 0.0
    graph: bool = False
    tied: int = 0
    dtypes: tuple[str, ...] = ()
    complex: bool = False
    muon_share: float = 0.0
    shapes: Mapping[str, int] = field(default_factory=dict)
    at_initialisation: bool | None = None
    initialisation_evidence: str | None = None
    trained_share: float | None = None
    fresh: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    adapters: int = 0
    executed: tuple[str, ...] = ()
    memory_free: int | None = None
    cut: Cut | None = None
    left_out: tuple[str, ...] = ()

    @property
    def pretrained(self) -> Literal["no", "partly", "wholly"] | None:
        """How much of the model was trained before; `fresh` names what was not (None: cannot tell)."""
        if self.at_initialisation is None:
            return None
        return "no" if self.at_initialisation else "partly" if self.fresh else "wholly"

    @property
    def has_new_head(self) -> bool:
        """Whether all of the head is as it was made, in a model that is not."""
        return bool(self.head) and all(any(name.startswith(f"{part}.") for part in self.fresh) for name in self.head)

    @property
    def half_precision(self) -> bool:
        """Whether all that trains is kept in 16 bits, without a float32 copy that autocast would keep."""
        return bool(self.dtypes) and set(self.dtypes) <= {"float16", "bfloat16"}

    def share(self, kind: str) -> float:
        """Return the share of the trainable scalars that are of `kind`."""
        return self.kinds.get(kind, 0) / self.parameters if self.parameters else 0.0

    def shape_counts(self) -> list[tuple[tuple[int, ...], int]]:
        """List the shapes of the trainable tensors, each with how many there are of it."""
        return [(tuple(int(side) for side in shape.split("x") if side), count) for shape, count in self.shapes.items()]


@dataclass(frozen=True, kw_only=True)
class GradientProfile(_Record):
    """A few real backward passes at the initial weights. None means: not measured.

    passes            backward passes this cost
    nonfinite         passes whose loss or gradient was not finite; they count for nothing below
    sparse            names of the parameters whose gradient is a sparse tensor
    unused            names of the trainable parameters that got no gradient
    zero_fraction     share of exact zeros in the dense gradients
    touched_rows      share of the rows of the sparse parameters that one batch touches
    norms             the whole gradient's norm in each pass
    norm_quantiles    10 %, 50 %, 90 % of them
    relative_norms    per layer ‖g‖/‖w‖ by parameter name, for at most 200 matrices
    noise_scale       tr(Σ)/‖G‖² in samples (McCandlish et al. 2018, arXiv:1812.06162); None also when the
                      passes could not tell the mean gradient from noise
    initial_loss      mean training loss at the initial weights
    """

    passes: int = 0
    nonfinite: int = 0
    sparse: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    zero_fraction: float | None = None
    touched_rows: float | None = None
    norms: tuple[float, ...] = ()
    norm_quantiles: tuple[float, float, float] | None = None
    relative_norms: Mapping[str, float] = field(default_factory=dict)
    noise_scale: float | None = None
    initial_loss: float | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read the record that `to_dict` wrote. Raises `PlanFormatError` on fields it does not know."""
        # Earlier plans hold it, though it was never measured.
        return super().from_dict({name: value for name, value in data.items() if name != "curvature"})


@dataclass(frozen=True, kw_only=True, repr=False)
class Profile:
    """All that was measured, and what the training is to be.

    steps       optimizer steps to come (None: not known)
    keeps_best  whether the weights of the best value are kept, not the last ones
    """

    data: DataProfile
    model: ModelProfile
    gradient: GradientProfile
    steps: int | None = None
    keeps_best: bool = False

    def __repr__(self) -> str:
        size = "a stream" if self.data.size is None else f"{self.data.size:,} samples"
        steps = "length not known" if self.steps is None else f"{self.steps:,} steps"
        return f"Profile({size}, {self.model.parameters:,} parameters, {self.gradient.passes} passes, {steps})"

    def _repr_html_(self) -> str:
        """Show it in a notebook, as a table of a few lines."""
        from optselect.profile.text import described  # noqa: PLC0415  # it is about this module's values

        rows = ((title, ", ".join(parts)) for title, parts in described(self))
        left = 'style="text-align: left"'
        cells = (f"<tr><th {left}>{escape(title)}</th><td {left}>{escape(said)}</td></tr>" for title, said in rows)
        return f"<table>{''.join(cells)}</table>"

    def quantity(self, path: str) -> Any:
        """Look up the value at a dotted path such as `data.density`."""
        value: Any = self
        for name in path.split("."):
            value = getattr(value, name)
        return value

    def to_dict(self) -> dict[str, Any]:
        """Write as builtins; inverse of `from_dict`."""
        parts = {
            "data": self.data.to_dict(),
            "model": self.model.to_dict(),
            "gradient": self.gradient.to_dict(),
        }
        return {**parts, "steps": self.steps, "keeps_best": self.keeps_best}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Profile:
        """Read the profile that `to_dict` wrote."""
        return cls(
            data=DataProfile.from_dict(data["data"]),
            model=ModelProfile.from_dict(data["model"]),
            gradient=GradientProfile.from_dict(data["gradient"]),
            steps=data["steps"],
            keeps_best=data.get("keeps_best", False),
        )
