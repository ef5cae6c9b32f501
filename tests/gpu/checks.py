"""What has to hold on a device that is no CPU. Each check raises `Differs` with what does not, and says what it saw.

The functions take the device, so that the CPU runs the same code at the same small size.
"""

from __future__ import annotations

import gc
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from optselect import AutoOptimizer, Budget, OptimizerPlan
from optselect.callbacks.workload import LightningWorkload
from optselect.workload.borrowed_model import BorrowedModel
from optselect.workload.rng import seed_rng
from optselect.workload.shelf import Shelf, ShelvedStates
from optselect.workload.stopwatch import Stopwatch
from tests.support.comparison import left_behind
from tests.support.modules import by_hand, equal_states

FEATURES, HIDDEN, CLASSES, ROWS, BATCH = 32, 64, 4, 200, 16
# What a library may keep for itself on the device, such as cuBLAS its workspace.
KEPT_BYTES = 2**20


class Differs(Exception):  # noqa: N818  # it says what differs
    """Something is not as it has to be."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where to check: "cuda" or "cpu", and a folder to write into."""

    device: str
    folder: Path

    @property
    def root(self) -> torch.device:
        """The device that tensors are on."""
        return torch.device("cuda", torch.cuda.current_device()) if self.device == "cuda" else torch.device("cpu")

    def within(self, name: str) -> Place:
        """The same with a folder of its own."""
        return Place(device=self.device, folder=self.folder / name)


class Net(L.LightningModule):
    """BatchNorm moves buffers, and dropout draws random numbers on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(FEATURES, HIDDEN),
            nn.BatchNorm1d(HIDDEN),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, CLASSES),
        )

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))


class Fused(Net):
    """An optimizer of its own, in one kernel."""

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=1e-3, fused=True)


class Foreach(Net):
    """In a few kernels over all parameters."""

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=1e-3, foreach=True)


class Capturable(Net):
    """Counts its steps on the device, which torch has for no CPU."""

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=1e-3, foreach=True, capturable=self.device.type == "cuda")


class Compiled(Net):
    """Its network is compiled; the graphs run as they are on a CPU, where there may be no compiler."""

    def __init__(self) -> None:
        super().__init__()
        network: Any = torch.compile(self.net, backend="inductor" if torch.cuda.is_available() else "eager")
        self.net = network


def rows(count: int = ROWS) -> TensorDataset:
    """Classes that a linear map nearly separates."""
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(count, FEATURES, generator=generator)
    return TensorDataset(inputs, (inputs @ torch.randn(FEATURES, CLASSES, generator=generator)).argmax(1))


def fit(module: L.LightningModule, place: Place, *callbacks: L.Callback, precision: str = "32-true") -> L.Trainer:
    """Two epochs, the last batch of each a smaller one; weights and random numbers are set before."""
    half = precision == "16-mixed"
    # A scale that overflows, and moves, within these few steps.
    scaler = torch.amp.GradScaler(place.device, init_scale=2.0**18, growth_interval=5) if half else None
    mixed = MixedPrecision("16-mixed", place.device, scaler) if half else None
    trainer = L.Trainer(
        accelerator="gpu" if place.device == "cuda" else "cpu",
        devices=1,
        max_epochs=2,
        logger=False,
        plugins=[] if mixed is None else [mixed],
        precision=None if half else precision,  # type: ignore[arg-type]  # one of Lightning's words
        deterministic="warn",
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=place.folder,
        callbacks=list(callbacks),
    )
    pinned = place.device == "cuda"
    train = DataLoader(rows(), batch_size=BATCH, shuffle=True, pin_memory=pinned)
    trainer.fit(module, train, DataLoader(rows(40), batch_size=BATCH, pin_memory=pinned))
    return trainer


def lived(kind: type[L.LightningModule], place: Place, *callbacks: L.Callback, precision: str) -> dict[str, Any]:
    """What such a run leaves behind, the random numbers of the device among it."""
    torch.compiler.reset()
    torch.manual_seed(0)
    module = kind()
    seed_rng(1)
    return left_behind(module, fit(module, place, *callbacks, precision=precision), place.folder)


# --- the checks -----------------------------------------------------------------------------------


def no_trace(
    place: Place,
    *,
    kind: type[Net] = Net,
    candidates: Sequence[str] = ("adamw", "muon"),
    precision: str = "32-true",
    **arguments: Any,
) -> str:
    """After a search the run is bit for bit the hand-written one."""
    auto = AutoOptimizer(
        budget=Budget(steps=60),
        candidates=candidates,
        storage=place.folder / "study.journal",
        report=False,
        progress=False,
        **arguments,
    )
    ours = lived(kind, place.within("searched"), auto, precision=precision)
    tried = [trial for trial in auto.chosen.trials if trial.value is not None]
    if len(tried) < 2:
        raise Differs(f"only {len(tried)} trials have a value")
    written: Any = by_hand(kind, OptimizerPlan.load(_saved(auto.chosen, place)))
    if auto.chosen.optimizer == "user":
        written = _scaled(kind, auto.chosen)
    first = lived(written, place.within("written"), precision=precision)
    again = lived(written, place.within("again"), precision=precision)
    if unsteady := [what for what in first if not equal_states(first[what], again[what])]:
        raise Differs(f"two hand-written runs differ in {', '.join(unsteady)}, so nothing can be told")
    if different := [what for what in first if not equal_states(ours[what], first[what])]:
        raise Differs(f"the run differs in {', '.join(different)}")
    return f"{auto.chosen.configuration.describe()}; {len(tried)} trials"


def memory_given_back(place: Place) -> str:
    """When the training ends, as much is held on the device after a search as without one."""

    class Held(L.Callback):
        bytes = 0

        def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            gc.collect()
            self.bytes = held_bytes(place)

    with_search, without = Held(), Held()
    auto = AutoOptimizer(
        budget=Budget(steps=60), candidates=["adamw"], storage=place.folder / "s.journal", report=False, progress=False
    )
    # What libraries take once, they have taken before the two runs.
    lived(Foreach, place.within("warm"), precision="32-true")
    lived(Net, place.within("searched"), auto, with_search, precision="32-true")
    written = by_hand(Net, auto.chosen)
    lived(written, place.within("written"), without, precision="32-true")
    gc.collect()
    if with_search.bytes > without.bytes + KEPT_BYTES:
        raise Differs(f"{with_search.bytes:,} bytes are held after a search, {without.bytes:,} without one")
    return f"{with_search.bytes:,} bytes are held at the end of the training, {without.bytes:,} without a search"


def put_aside(place: Place, *, precision: str = "32-true") -> str:
    """A trial that is put aside, while the device is at work, goes on bit for bit: in memory and out of a file."""
    seen: dict[str, Any] = {}

    class Tried(Net):
        def configure_optimizers(self) -> Any:
            workload = LightningWorkload(self.trainer, self)
            with workload.borrowed():
                seen.update(_interrupted(workload, place))
            return torch.optim.SGD(self.parameters(), lr=0.1)

    torch.manual_seed(0)
    fit(Tried(), place, precision=precision)
    expected = seen.pop("uninterrupted")
    if different := [how for how, found in seen.items() if not equal_states(found, expected)]:
        raise Differs(f"a trial goes on otherwise when it was {' and '.join(different)}")
    return "in memory and out of a file"


def kept_in_host_memory(place: Place) -> str:
    """Contents lie in host memory, pinned, copied while the host goes on, and come back bit for bit."""
    torch.manual_seed(0)
    model, host = Net().to(place.root), Shelf(place="host")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, foreach=True)
    inputs = torch.randn(BATCH, FEATURES, device=place.root)

    def step() -> None:
        optimizer.zero_grad()
        model.net(inputs).square().sum().backward()
        optimizer.step()

    def now() -> list[Tensor]:
        slots = [slot for state in optimizer.state.values() for slot in state.values()]
        return [each.detach().clone() for each in (*model.parameters(), *model.buffers(), *slots)]

    step()
    begun = now()[: len([*model.parameters(), *model.buffers()])]
    borrowed = BorrowedModel(model, shelf=host, aside=host)
    step()
    before = now()
    # Once before: to pin memory for the first time may wait for the device, and afterwards it is there.
    ShelvedStates.of([optimizer], host).take_back()
    borrowed.resume(borrowed.pause())
    _keep_busy(place)
    states = ShelvedStates.of([optimizer], host)
    paused = borrowed.pause()
    waits = place.device == "cuda" and not torch.cuda.current_stream().query()
    # At once, while the device may still be at work on the copies.
    borrowed.begin()
    again = [each.detach().clone() for each in (*model.parameters(), *model.buffers())]
    borrowed.resume(paused)
    states.take_back()
    after = now()
    borrowed.restore()
    restored = now()[: len(begun)]
    if not (equal_states(again, begun) and equal_states(restored, begun)):
        raise Differs("the weights that were borrowed come back otherwise")
    if not equal_states(after, before):
        raise Differs("what was put aside comes back otherwise")
    if place.device != "cuda":
        return f"{len(before)} tensors come back; nothing is pinned here"
    if not all(each.is_pinned() for each in (*paused.contents, *states.kept)):
        raise Differs("what lies in host memory is not pinned")
    if not waits:
        raise Differs("the host waited until the device had copied")
    return f"{len(before)} tensors, pinned, copied while the device was at work"


def seconds_waited_for(place: Place) -> str:
    """The clock by which trials are compared waits for the device: what the device took is in what it says."""
    size = 1024 if place.device == "cuda" else 64
    model = nn.Linear(size, size).to(place.root)
    weight = torch.randn(size, size, device=place.root)
    watch = Stopwatch(model)
    device_seconds = 0.0
    for _ in range(2):
        with watch.over(1), _device_time(place) as taken:
            for _ in range(200):
                weight = torch.tanh(weight @ model.weight.detach())
        device_seconds = taken()
    pace = watch.pace or 0.0
    # Events of a device count in steps of half a microsecond.
    if pace < device_seconds * 0.999:
        raise Differs(f"the clock says {pace:.6f} s of what took the device {device_seconds:.6f} s")
    return f"{pace * 1e3:.2f} ms by the clock, {device_seconds * 1e3:.2f} ms on the device"


# --- their parts ----------------------------------------------------------------------------------


def held_bytes(place: Place) -> int:
    """Bytes of tensors on the device; of the CPU's those that Python knows."""
    if place.device == "cuda":
        torch.cuda.synchronize()
        return int(torch.cuda.memory_allocated())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # asking an object for its class may run code that is deprecated
        tensors = [each for each in gc.get_objects() if type(each) in (Tensor, nn.Parameter)]
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors if _dense(each)}
    return sum(storages.values())


def _keep_busy(place: Place) -> None:
    """Give a device so much to do that whoever does not wait for it is done before it."""
    if place.device == "cuda":
        weight = torch.randn(4096, 4096, device=place.root)
        for _ in range(200):
            weight = torch.tanh(weight @ weight)


def _dense(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and tensor.device.type == "cpu"


def _interrupted(workload: LightningWorkload, place: Place) -> dict[str, Any]:
    """Weights, buffers and random numbers of a trial that went through, and of others that were put aside."""

    def adamw(model: nn.Module) -> Any:
        return torch.optim.AdamW(model.parameters(), lr=0.01), None

    def now() -> Any:
        return [each.detach().clone() for each in (*workload.model.parameters(), *workload.model.buffers())]

    seen = {}
    workload.begin(adamw, 0)
    workload.train(12)
    seen["uninterrupted"] = now()
    workload.begin(adamw, 0)
    workload.train(6)
    paused = workload.pause()
    file = place.folder / "trial.pt"
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(workload.store(), file)
    workload.begin(adamw, 3)
    workload.train(6)
    workload.resume(paused)
    workload.train(6)
    seen["kept in memory"] = now()
    workload.begin(adamw, 5)
    workload.train(2)
    workload.restore(torch.load(file, weights_only=True), adamw)
    workload.train(6)
    seen["read from a file"] = now()
    return seen


@contextmanager
def _device_time(place: Place) -> Iterator[Callable[[], float]]:
    """Give the seconds that the device itself took for what is done inside, once it is over."""
    if place.device != "cuda":
        begun = time.perf_counter()
        ended = begun
        yield lambda: ended - begun
        ended = time.perf_counter()
        return
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    first.record()

    def taken() -> float:
        torch.cuda.synchronize()
        return float(first.elapsed_time(last)) / 1e3

    yield taken
    last.record()


def _saved(plan: OptimizerPlan, place: Place) -> Path:
    plan.save(place.folder / "plan.json")
    return place.folder / "plan.json"


def _scaled(kind: type[Net], plan: OptimizerPlan) -> type[Net]:
    """The module whose own optimizer has the rates of `plan`."""
    own: Any = kind.configure_optimizers

    class Scaled(kind):  # type: ignore[misc,valid-type]
        def configure_optimizers(self) -> Any:
            optimizer, scheduler = plan.build(self, own=lambda module: (own(module), None))
            return optimizer if scheduler is None else ([optimizer], [scheduler])

    return Scaled


CHECKS: dict[str, Callable[[Place], str]] = {
    "no trace": no_trace,
    "no trace, fused": partial(no_trace, kind=Fused, candidates=("user",)),
    "no trace, foreach": partial(no_trace, kind=Foreach, candidates=("user",)),
    "no trace, capturable": partial(no_trace, kind=Capturable, candidates=("user",)),
    "no trace, bf16-mixed": partial(no_trace, precision="bf16-mixed"),
    "no trace, 16-mixed with GradScaler": partial(no_trace, precision="16-mixed", candidates=("adamw", "momentum")),
    "no trace, fused in 16-mixed": partial(no_trace, kind=Fused, candidates=("user",), precision="16-mixed"),
    "no trace, at equal seconds": partial(no_trace, compare="seconds", candidates=("adamw", "momentum")),
    "no trace, compiled": partial(no_trace, kind=Compiled, candidates=("adamw", "momentum")),
    "a trial put aside": put_aside,
    "a trial put aside, 16-mixed": partial(put_aside, precision="16-mixed"),
    "kept in host memory": kept_in_host_memory,
    "memory given back": memory_given_back,
    "seconds waited for": seconds_waited_for,
}


def in_a_folder(check: Callable[[Place], str], device: str) -> str:
    """Run a check where what it writes is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        return check(Place(device=device, folder=Path(folder)))
