"""A borrowed model comes back as it was."""

import copy
import threading
import types
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from optselect.errors import UnsupportedModuleError
from optselect.workload.borrowed_model import BorrowedModel, attributes_restored
from optselect.workload.rng import rng_state, seed_rng
from tests.support.small import Net, loader, net, vectors


@contextmanager
def borrowed(model: nn.Module, **options: Any) -> Iterator[BorrowedModel]:
    loan = BorrowedModel(model, **options)
    loan.begin()
    try:
        yield loan
    finally:
        loan.restore()


def step(model: nn.Module, seed: int = 0, steps: int = 3) -> None:
    seed_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    inputs, target = vectors().tensors
    for start in range(0, 16 * steps, 16):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs[start : start + 16]), target[start : start + 16]).backward()
        optimizer.step()


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict(keep_vars=False).items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Holder(nn.Module):
    """Whatever people keep on modules."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.count = 0
        self.nested: dict[str, Any] = {"losses": [1.0, [2.0, 3.0]], "best": {"epoch": 3}}
        self.queue = deque([1, 2], maxlen=5)
        self.names = {"a", "b"}
        self.plain = torch.arange(3.0)
        self.tensors = [torch.zeros(2), torch.ones(2)]
        self.array = np.arange(4)
        self.metric = MulticlassAccuracy(num_classes=3)
        self.metrics = [MulticlassAccuracy(num_classes=3)]
        self.generator = torch.Generator().manual_seed(3)
        self.numpy = np
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("kept_out", torch.zeros(3), persistent=False)
        self.mean: Tensor
        self.kept_out: Tensor


def disturb(module: Any) -> None:
    """Change everything a training step could."""
    module.count += 1
    module.nested["losses"][1].append(4.0)
    module.nested["best"]["epoch"] = 9
    module.nested["new"] = 1
    module.queue.append(7)
    module.names.add("c")
    module.plain.add_(1.0)
    module.tensors[0].add_(1.0)
    module.tensors.append(torch.zeros(1))
    module.array[0] = 99
    for metric in (module.metric, module.metrics[0]):
        metric.update(torch.eye(3), torch.tensor([0, 1, 1]))
    torch.rand(3, generator=module.generator)
    module.mean.add_(1.0)
    module.kept_out = torch.ones(3)
    module.added = "new"
    module.extra = nn.Linear(1, 1)
    del module.names


def counts(metric: Any) -> tuple[int, list[int]]:
    return metric._update_count, [int(value.sum()) for value in metric.metric_state.values()]


CONTENTS: dict[str, Callable[[Holder], Any]] = {
    "count": lambda m: m.count,
    "nested": lambda m: copy.deepcopy(m.nested),
    "queue": lambda m: list(m.queue),
    "names": lambda m: sorted(m.names),
    "plain": lambda m: m.plain.tolist(),
    "tensors": lambda m: [t.tolist() for t in m.tensors],
    "array": lambda m: m.array.tolist(),
    "metric": lambda m: counts(m.metric),
    "metrics": lambda m: counts(m.metrics[0]),
    "generator": lambda m: m.generator.get_state().tolist(),
    "mean": lambda m: m.mean.tolist(),
    "kept_out": lambda m: m.kept_out.tolist(),
    "attributes": lambda m: sorted(vars(m)),
    "modules": lambda m: [name for name, _ in m.named_modules()],
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
def test_an_attribute_is_the_same_object_with_the_same_content(content: Callable[[Holder], Any]) -> None:
    module = Holder()
    objects = dict(vars(module))
    before = content(module)

    with borrowed(module) as loan:
        disturb(module)
        loan.begin()
        assert content(module) == before
        disturb(module)

    assert content(module) == before
    assert all(vars(module)[name] is value for name, value in objects.items())
    assert list(vars(module)) == list(objects)


def test_weights_buffers_and_modes_come_back() -> None:
    model = net()
    model.body.eval()
    before, modes = tensors(model), [module.training for module in model.modules()]

    with borrowed(model):
        model.train()
        step(model)
        assert not same(tensors(model), before)

    assert same(tensors(model), before)
    assert [module.training for module in model.modules()] == modes


def test_the_tensors_stay_the_objects_that_optimizers_hold() -> None:
    model = net()
    held = [*model.parameters(), *model.buffers()]

    with borrowed(model):
        step(model)

    assert all(one is other for one, other in zip(held, [*model.parameters(), *model.buffers()], strict=True))


def test_a_replaced_buffer_is_the_old_object_again() -> None:
    module = Holder()
    old = module.kept_out

    with borrowed(module):
        module.kept_out = torch.full((3,), 5.0)

    assert module.kept_out is old
    assert module.kept_out.tolist() == [0.0, 0.0, 0.0]


def test_a_replaced_parameter_is_the_old_object_again() -> None:
    model = nn.Linear(2, 2)
    old, content = model.weight, model.weight.detach().clone()

    with borrowed(model):
        model.weight.data.zero_()
        model.weight = nn.Parameter(torch.ones(2, 2))

    assert model.weight is old
    assert torch.equal(model.weight, content)


def test_gradients_come_back_as_the_same_objects_and_trials_begin_without() -> None:
    model = net()
    model(torch.randn(4, 6)).sum().backward()
    grads = [parameter.grad for parameter in model.parameters()]
    contents = [grad.clone() for grad in grads if grad is not None]

    with borrowed(model):
        assert all(parameter.grad is None for parameter in model.parameters())
        for grad in grads:
            assert grad is not None
            grad.zero_()
        step(model)

    assert all(p.grad is grad for p, grad in zip(model.parameters(), grads, strict=True))
    assert all(map(torch.equal, [p.grad for p in model.parameters() if p.grad is not None], contents))


def test_what_was_frozen_or_thawed_is_so_again() -> None:
    model = net()
    model.head.requires_grad_(False)

    with borrowed(model) as loan:
        model.head.requires_grad_(True)
        model.body.requires_grad_(False)
        loan.begin()
        assert not model.head.weight.requires_grad
        model.body.requires_grad_(False)

    assert not model.head.weight.requires_grad
    assert model.body[0].weight.requires_grad


def test_hooks_of_the_user_stay_and_those_of_a_trial_go() -> None:
    model, seen = net(), list[str]()
    model.head.register_forward_hook(lambda *_: seen.append("user"))

    with borrowed(model):
        model.head.register_forward_hook(lambda *_: seen.append("trial"))
        model.head.register_forward_pre_hook(lambda *_: seen.append("before"))
        model.register_full_backward_hook(lambda *_: seen.append("back"))

    seen.clear()
    model(torch.randn(4, 6)).sum().backward()
    assert seen == ["user"]


def test_a_hook_that_counts_for_itself_has_counted_nothing() -> None:
    class Counter:
        def __init__(self) -> None:
            self.calls = 0

        def __call__(self, *_: Any) -> None:
            self.calls += 1

    model, counter = net(), Counter()
    model.register_forward_hook(counter)

    with borrowed(model):
        step(model)

    assert counter.calls == 0


def test_a_hook_can_still_be_removed_afterwards() -> None:
    seen = list[int]()
    model: Any = net()
    handle = model.register_forward_hook(lambda *_: seen.append(1))
    model.handle = handle

    with borrowed(model):
        step(model)
    seen.clear()
    handle.remove()

    model(torch.randn(4, 6))
    assert not seen


def test_random_numbers_start_where_they_stood_and_end_there() -> None:
    model = net()
    state = rng_state().torch

    with borrowed(model) as loan:
        step(model)
        loan.begin()
        assert torch.equal(rng_state().torch, state)
        step(model)

    assert torch.equal(rng_state().torch, state)


@pytest.mark.parametrize("error", [FloatingPointError, KeyboardInterrupt])
def test_everything_comes_back_when_a_trial_raises(error: type[BaseException]) -> None:
    model = net()
    before, attributes = tensors(model), dict(vars(model))

    with pytest.raises(error), borrowed(model):  # noqa: PT012  # the law is about leaving by an exception
        step(model)
        model.eval()
        nn.init.constant_(model.head.weight, torch.nan)
        raise error

    assert same(tensors(model), before)
    assert vars(model) == attributes
    assert model.history == []


def test_each_trial_begins_at_the_same_point() -> None:
    model = net()

    with borrowed(model) as loan:
        ends = []
        for _ in range(2):
            loan.begin()
            step(model)
            ends.append((tensors(model), model.calls, model.history))

    assert same(ends[0][0], ends[1][0])
    assert ends[0][1:] == ends[1][1:] == (3, [16, 16, 16])


def test_a_paused_trial_goes_on_as_if_nothing_had_come_between() -> None:
    def halves(between: Callable[[BorrowedModel, Net], None]) -> dict[str, Tensor]:
        model = net()
        with borrowed(model) as loan:
            seed_rng(1)
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
            for part in range(2):
                for _ in range(2):
                    optimizer.zero_grad()
                    model(torch.randn(8, 6)).square().sum().backward()
                    optimizer.step()
                if part == 0:
                    between(loan, model)
            assert (model.calls, model.history) == (4, [8] * 4)
            return tensors(model)

    def another_trial(loan: BorrowedModel, model: Net) -> None:
        paused = loan.pause()
        loan.begin()
        step(model, seed=9)
        model.history.clear()
        model.body.eval()
        loan.resume(paused)

    assert same(halves(another_trial), halves(lambda *_: None))


def test_a_paused_trial_keeps_the_buffers_it_replaced_and_the_gradients_it_had() -> None:
    module = Holder()

    with borrowed(module) as loan:
        module.kept_out = torch.full((3,), 5.0)
        module.layer.weight.grad = torch.ones(2, 2)
        paused = loan.pause()
        loan.begin()
        assert module.kept_out.tolist() == [0.0, 0.0, 0.0]
        loan.resume(paused)

        assert module.kept_out.tolist() == [5.0, 5.0, 5.0]
        assert module.layer.weight.grad.tolist() == [[1.0, 1.0], [1.0, 1.0]]


# --- what cannot be borrowed ----------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [threading.Lock(), (number for number in range(3)), [threading.Lock()]], ids=["lock", "generator", "list"]
)
def test_what_cannot_be_copied_is_named_before_anything_is_changed(value: Any) -> None:
    model = net()
    model.hidden.thing = value
    before = dict(vars(model.hidden))

    with pytest.raises(UnsupportedModuleError, match=r"Linear\.thing"):
        BorrowedModel(model)

    assert vars(model.hidden) == before


def test_a_hook_that_cannot_be_copied_is_refused_before_anything_is_changed() -> None:
    class Locked:
        def __init__(self) -> None:
            self.lock = threading.Lock()

        def __call__(self, *_: Any) -> None: ...

    model = net()
    model.register_forward_hook(Locked())

    with pytest.raises(UnsupportedModuleError, match=r"Net\._forward_hooks"):
        BorrowedModel(model)


def test_parameters_without_a_shape_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedModuleError, match=r"0\.weight, 0\.bias have no shape yet.*run the model"):
        BorrowedModel(nn.Sequential(nn.LazyLinear(3)))


# --- odd but legal models -------------------------------------------------------------------


def test_pinned_objects_and_kept_attributes_are_shared() -> None:
    model: Any = net()
    trainer = types.SimpleNamespace(lock=threading.Lock())
    model.trainer = trainer
    lock = threading.Lock()
    model.lock = lock

    with borrowed(model, pinned=[trainer], kept=["lock"]) as loan:
        loan.begin()
        assert model.trainer is trainer
        assert model.lock is lock
        model.lock = "set in a trial"

    assert model.lock is lock


def test_data_that_a_module_holds_are_not_copied() -> None:
    model: Any = net()
    model.data, model.loader = vectors(), loader()
    data = model.data

    with borrowed(model):
        assert isinstance(model.data, TensorDataset)
        assert model.data is data


def test_an_activation_that_a_module_kept_is_kept() -> None:
    model: Any = net()
    model.last = model(torch.randn(4, 6))
    model.losses = [model.last.sum()]
    last, content = model.last, model.last.detach().clone()

    with borrowed(model):
        model.last.detach().zero_()
        model.last = None

    assert model.last is last
    assert torch.equal(model.last, content)


def test_a_list_of_the_models_own_parameters_still_is_one() -> None:
    model: Any = net()
    model.decayed = [model.head.weight]

    with borrowed(model) as loan:
        loan.begin()
        assert model.decayed[0] is model.head.weight


def test_a_buffer_whose_entries_share_memory_is_left_alone() -> None:
    model: Any = net()
    model.register_buffer("mask", torch.ones(1).expand(5))

    with borrowed(model):
        step(model)

    assert model.mask.tolist() == [1.0] * 5


def test_old_style_weight_norm_is_borrowed_like_any_model() -> None:
    with pytest.warns(FutureWarning, match="weight_norm"):
        model = nn.Sequential(nn.utils.weight_norm(nn.Linear(6, 4)), nn.Linear(4, 3))
    before = tensors(model)

    with borrowed(model):
        step(model)

    assert same(tensors(model), before)
    step(model)  # and still trains
    assert not same(tensors(model), before)


def test_parametrized_shared_and_tied_modules_come_back() -> None:
    shared = nn.Linear(6, 6)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.utils.parametrizations.spectral_norm(nn.Linear(6, 3)))
    before = tensors(model)

    with borrowed(model):
        step(model)

    assert same(tensors(model), before)
    assert model[0] is model[2]


def test_a_sparse_gradient_comes_back() -> None:
    model = nn.Embedding(5, 2, sparse=True)
    model(torch.tensor([1, 3])).sum().backward()
    grad = model.weight.grad
    assert grad is not None
    before = grad.to_dense()

    with borrowed(model):
        model(torch.tensor([0])).sum().backward()

    assert model.weight.grad is grad
    assert torch.equal(grad.to_dense(), before)


# --- ordinary objects -----------------------------------------------------------------------


def test_an_ordinary_object_has_its_attributes_and_small_containers_again() -> None:
    owner = types.SimpleNamespace(epoch=1, queue=[1, 2], seen={"a": 1}, names={"x"}, data=(1,))
    objects = dict(vars(owner))

    with pytest.raises(KeyError), attributes_restored(owner):  # noqa: PT012  # the law is about leaving by an exception
        owner.epoch = 5
        owner.queue.clear()
        owner.seen["b"] = 2
        owner.names = set()
        owner.more = 1
        del owner.data
        raise KeyError

    assert vars(owner) == {"epoch": 1, "queue": [1, 2], "seen": {"a": 1}, "names": {"x"}, "data": (1,)}
    assert all(vars(owner)[name] is value for name, value in objects.items())


class Observer(nn.Module):
    """Resizes a buffer in place, and gives another new data, as quantization-aware training does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.register_buffer("seen", torch.empty(0))
        self.register_buffer("scale", torch.ones(1))
        self.seen: Tensor
        self.scale: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            self.seen.resize_(6).copy_(inputs.amax(0))
            self.scale.data = torch.ones(6)
        return self.layer(inputs)  # type: ignore[no-any-return]  # torch has it as Any


def test_buffers_that_change_their_shape_come_back_in_their_shape() -> None:
    model = Observer()
    own = dict(model.named_buffers())

    with borrowed(model) as loan:
        step(model)
        paused = loan.pause()
        seen = model.seen.clone()
        loan.begin()
        assert (len(model.seen), len(model.scale)) == (0, 1)
        loan.resume(paused)
        assert torch.equal(model.seen, seen)

    assert all(own[name] is buffer for name, buffer in model.named_buffers())
    assert {name: tuple(buffer.shape) for name, buffer in own.items()} == {"seen": (0,), "scale": (1,)}


def test_what_runs_unmoved_leaves_the_present_state() -> None:
    model = Holder()
    with borrowed(model) as loan:
        disturb(model)
        before = {name: read(model) for name, read in CONTENTS.items() if name != "names"}
        objects, weights = dict(vars(model)), tensors(model)

        with loan.unmoved():
            model.names = set()
            disturb(model)
            with torch.no_grad():
                model.layer.weight.add_(1.0)

        assert same(tensors(model), weights)
        assert {name: read(model) for name, read in CONTENTS.items() if name != "names"} == before
        assert all(vars(model)[name] is value for name, value in objects.items() if name != "training")


def test_what_is_left_out_keeps_what_it_became_meanwhile() -> None:
    model = Holder()
    with borrowed(model) as loan:
        with loan.unmoved([model.mean]):
            model.mean.add_(1.0)
            model.plain.add_(1.0)

        assert model.mean.tolist() == [1.0, 1.0, 1.0]
        assert model.plain.tolist() == [0.0, 1.0, 2.0]


def test_trials_hold_another_object_where_one_is_given() -> None:
    model: Any = Holder()
    real, silent = [1], [2]
    model.logger = real

    with borrowed(model, instead={id(real): silent}):
        assert model.logger is silent

    assert model.logger is real
