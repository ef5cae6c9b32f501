"""A plain loop as a workload: trials are real, and nothing is left behind."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, IterableDataset

from optselect import TorchWorkload, Workload, select
from optselect.configuration import Evaluation
from optselect.errors import ConfigurationError, UnsupportedModuleError
from optselect.workload.protocol import Build
from optselect.workload.rng import rng_state, seed_rng
from tests.support.small import Net, loader, net, sentences, vectors, words

LOSS: Callable[[Tensor, Tensor], Tensor] = nn.CrossEntropyLoss()


def workload(model: nn.Module | None = None, train: Any = None, val: Any = None, **options: Any) -> TorchWorkload:
    return TorchWorkload(model or net(), LOSS, loader() if train is None else train, val, **{"steps": 40, **options})


def adamw(lr: float = 0.01) -> Build:
    return lambda model: (torch.optim.AdamW(model.parameters(), lr=lr), None)


def tensors(model: nn.Module) -> list[Tensor]:
    return [tensor.clone() for tensor in model.state_dict().values()]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_it_is_a_workload() -> None:
    assert isinstance(workload(), Workload)


# --- trials ---------------------------------------------------------------------------------


def test_a_trial_of_seed_0_trains_as_the_hand_written_loop_under_the_same_random_state() -> None:
    model, reference = net(), net()
    train = loader()
    optimizer = torch.optim.AdamW(reference.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)

    def build(module: nn.Module) -> Any:
        mine = torch.optim.AdamW(module.parameters(), lr=0.01)
        return mine, torch.optim.lr_scheduler.StepLR(mine, 2, gamma=0.5)

    torch.manual_seed(7)
    order = [batch for _ in range(2) for batch in loader()]
    seed_rng(0)  # as begin(build, 0) does: the trial's own random numbers, dropout's among them
    reference.train()
    by_hand = []
    for inputs, target in order[:10]:
        optimizer.zero_grad()
        loss = LOSS(reference(inputs), target)
        loss.backward()
        optimizer.step()
        schedule.step()
        by_hand.append(loss.item())

    torch.manual_seed(7)
    borrowing = workload(model, train, loader(vectors(48)))
    with borrowing.borrowed():
        borrowing.begin(build, 0)
        losses = [*borrowing.train(4), *borrowing.train(6)]
        weights = tensors(model)

    assert losses == pytest.approx(by_hand, rel=1e-6)
    assert equal(weights, tensors(reference))


def test_equal_seeds_give_equal_trials_and_others_do_not() -> None:
    borrowing = workload()

    with borrowing.borrowed():
        runs = []
        for seed in (0, 0, 1, 1):
            borrowing.begin(adamw(), seed)
            runs.append(([*borrowing.train(12)], borrowing.validate()))

    assert runs[0] == runs[1]
    assert runs[2] == runs[3]
    assert runs[0] != runs[2]


def test_a_trial_put_aside_goes_on_bit_for_bit() -> None:
    def run(interrupted: bool) -> tuple[list[Any], Evaluation]:
        borrowing = workload(val=loader(vectors(48)))
        with borrowing.borrowed():
            borrowing.begin(adamw(), 0)
            losses = [*borrowing.train(5)]
            borrowing.validate()
            if interrupted:
                paused = borrowing.pause()
                borrowing.begin(adamw(0.5), 1)
                borrowing.train(7)
                borrowing.resume(paused)
            return [*losses, *borrowing.train(6)], borrowing.validate()

    assert run(interrupted=True) == run(interrupted=False)


def test_judging_does_not_change_how_the_training_goes_on() -> None:
    def run(judged: bool) -> list[Any]:
        borrowing = workload(val=loader(vectors(48)))
        with borrowing.borrowed():
            borrowing.begin(adamw(), 0)
            losses = [*borrowing.train(4)]
            if judged:
                borrowing.validate()
            return [*losses, *borrowing.train(4)]

    assert run(judged=True) == run(judged=False)


class Counter(nn.Module):
    """Counts what goes through it, in front of a BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
        self.register_buffer("passes", torch.zeros(()))
        self.passes: Tensor
        self.count = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.passes += 1
        self.count += 1
        return self.layers(inputs)  # type: ignore[no-any-return]  # torch has it as Any


@pytest.mark.parametrize("validates", [True, False])
def test_judging_moves_nothing_that_a_model_keeps(validates: bool) -> None:
    model = Counter()
    own = workload(model, val=loader() if validates else None)

    with own.borrowed():
        own.begin(adamw(), 0)
        own.train(3)
        first, second = own.validate(), own.validate()

        assert first == second
        assert (int(model.passes), model.count) == (3, 3)


def residual(model: nn.Module, batch: Any) -> Tensor:
    inputs = batch[0].clone().requires_grad_(True)
    slope = torch.autograd.grad(model(inputs).sum(), inputs, create_graph=True)[0]
    loss: Tensor = slope.square().mean()
    return loss


class Forces(nn.Module):
    """Takes a derivative in `forward`, and wants no other."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.BatchNorm1d(6), nn.Linear(6, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = inputs.clone().requires_grad_(True)
        return torch.autograd.grad(self.energy(inputs).sum(), inputs, create_graph=True)[0][:, :3]


@pytest.mark.parametrize("validates", [True, False])
@pytest.mark.parametrize(
    "step", [residual, lambda model, batch: LOSS(model(batch[0]), batch[1])], ids=["loss", "model"]
)
def test_a_loss_or_a_model_that_takes_derivatives_is_judged(step: Any, validates: bool) -> None:
    model = Forces() if step is not residual else nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    own = TorchWorkload(model, None, loader(), loader() if validates else None, steps=40, step=step)

    with own.borrowed():
        own.begin(adamw(), 0)
        own.train(2)

        assert math.isfinite(own.validate().value)


def test_an_error_of_another_kind_in_judging_is_not_tried_again() -> None:
    calls: list[bool] = []

    def fails(model: nn.Module, batch: Any) -> Tensor:
        calls.append(torch.is_grad_enabled())
        raise RuntimeError("something else")

    own = TorchWorkload(net(), None, loader(), loader(), steps=40, step=fails)

    with own.borrowed():
        own.begin(adamw(), 0)
        with pytest.raises(RuntimeError, match="something else"):
            own.validate()

    assert calls == [False]


def test_the_value_is_the_mean_over_all_validation_samples_in_evaluation_mode() -> None:
    # No BatchNorm: its statistics are estimated anew before judging.
    model = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.5), nn.Linear(16, 3))
    data = vectors(50)  # the last batch is smaller than the others
    borrowing = workload(model, val=loader(data, shuffle=False))

    with borrowing.borrowed():
        borrowing.begin(adamw(), 0)
        borrowing.train(3)
        value = borrowing.validate().value
        modes = [module.training for module in model.modules()]
        model.eval()
        with torch.no_grad():
            expected = LOSS(model(data.tensors[0]), data.tensors[1]).item()

    assert value == pytest.approx(expected, rel=1e-5)
    assert all(modes)


class Rows(IterableDataset[Any]):
    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[Any]:
        inputs, targets = vectors(self.count).tensors
        return iter(zip(inputs, targets, strict=True))


def test_a_validation_stream_without_a_length_is_read_once() -> None:
    calls: list[int] = []

    def loss(output: Tensor, target: Tensor) -> Tensor:
        calls.append(len(target))
        return LOSS(output, target)

    model = nn.Linear(6, 3)
    borrowing = TorchWorkload(model, loss, loader(), DataLoader(Rows(50), batch_size=16), steps=10)

    with borrowing.borrowed():
        borrowing.begin(adamw(), 0)
        borrowing.validate()

    assert calls == [16, 16, 16, 2]


def test_a_value_comes_with_the_loss_and_the_size_of_each_batch() -> None:
    model, data = nn.Linear(6, 3), vectors(50)
    borrowing = workload(model, val=loader(data, shuffle=False))

    with borrowing.borrowed():
        borrowing.begin(adamw(), 0)
        borrowing.train(3)
        judged = borrowing.validate()
        with torch.no_grad():
            losses = [LOSS(model(inputs), target).item() for inputs, target in loader(data, shuffle=False)]

    assert [weight for _, weight in judged.batches] == [16, 16, 16, 2]
    assert [loss for loss, _ in judged.batches] == losses
    assert judged.value == pytest.approx(sum(loss * weight for loss, weight in judged.batches) / 50)


def test_a_value_on_batches_held_back_comes_with_its_parts_too() -> None:
    borrowing = workload(nn.Linear(6, 3))

    with borrowing.borrowed():
        borrowing.begin(adamw(), 0)
        judged = borrowing.validate()

    assert len(judged.batches) == borrowing.validation_batches


def test_a_value_that_is_no_number_comes_alone() -> None:
    borrowing = workload(nn.Linear(6, 3), val=loader(vectors(48)))

    with borrowing.borrowed():
        borrowing.begin(adamw(), 0)
        with torch.no_grad():
            next(borrowing.model.parameters()).fill_(torch.nan)
        judged = borrowing.validate()

    assert math.isnan(judged.value)
    assert judged.batches == ()


def test_of_a_large_validation_set_a_fixed_part_is_judged() -> None:
    borrowing = workload(nn.Linear(6, 3), val=loader(vectors(960), shuffle=True), max_validation_batches=5)

    with borrowing.borrowed():
        values = []
        for _ in range(2):
            borrowing.begin(adamw(0.0), 0)
            values.append(borrowing.validate())

    assert borrowing.validation_batches == 5
    assert values[0] == values[1]


def test_without_a_validation_set_trials_leave_the_judged_batches_out_of_their_first_epoch() -> None:
    seen: list[Tensor] = []

    def step(model: nn.Module, batch: Any) -> Tensor:
        if torch.is_grad_enabled():
            seen.append(batch[0])
        else:
            judged.append(batch[0])
        return LOSS(model(batch[0]), batch[1])

    judged: list[Tensor] = []
    borrowing = TorchWorkload(nn.Linear(6, 3), None, loader(vectors(320)), steps=10, step=step)

    with borrowing.borrowed():
        borrowing.begin(adamw(), 0)
        borrowing.train(12)
        borrowing.validate()

    rows = {tuple(row.tolist()) for batch in judged for row in batch}
    assert len(judged) == borrowing.validation_batches
    assert rows.isdisjoint(tuple(row.tolist()) for batch in seen for row in batch)


def test_a_step_function_serves_batches_of_any_shape() -> None:
    data = [{"x": torch.randn(4, 6), "y": torch.tensor([0, 1, 2, 0])} for _ in range(3)]

    def step(model: nn.Module, batch: Any) -> Tensor:
        return LOSS(model(batch.pop("x")), batch.pop("y"))

    borrowing = TorchWorkload(nn.Linear(6, 3), None, data, data, steps=10, step=step)

    with borrowing.borrowed():
        borrowing.begin(adamw(), 0)
        borrowing.train(7)
        borrowing.validate()

    assert all(sorted(batch) == ["x", "y"] for batch in data)


def test_an_optimizer_with_modes_is_judged_in_its_evaluation_mode() -> None:
    modes = []

    class Moded(torch.optim.SGD):
        mode = "none"

        def train(self) -> None:
            self.mode = "train"

        def eval(self) -> None:
            self.mode = "eval"

    def step(model: nn.Module, batch: Any) -> Tensor:
        modes.append(optimizers[-1].mode)
        return LOSS(model(batch[0]), batch[1])

    optimizers: list[Moded] = []

    def build(model: nn.Module) -> Any:
        optimizers.append(Moded(model.parameters(), lr=0.1))
        return optimizers[-1], None

    borrowing = TorchWorkload(nn.Linear(6, 3), None, loader(), loader(), steps=10, step=step)
    with borrowing.borrowed():
        borrowing.begin(build, 0)
        borrowing.train(2)
        borrowing.validate()
        borrowing.train(1)

    assert modes == ["train"] * 2 + ["eval"] * 6 + ["train"]


def test_the_users_own_optimizer_is_built_by_its_own_function() -> None:
    made: list[Optimizer] = []

    def mine(model: nn.Module) -> Any:
        made.append(torch.optim.SGD(model.parameters(), lr=0.1))
        return made[-1], None

    borrowing = workload(user_optimizer=mine)

    with borrowing.borrowed():
        looked_at = len(made)
        borrowing.begin(None, 0)
        borrowing.train(1)

    assert borrowing.has_user_optimizer
    assert len(made) == looked_at + 1


def test_asking_for_the_users_passes_leaves_a_training_where_it_is() -> None:
    borrowing = workload(user_optimizer=lambda model: (torch.optim.LBFGS(model.parameters(), max_eval=3), None))

    with borrowing.borrowed():
        borrowing.begin(None, 0)
        borrowing.train(1)
        before = tensors(borrowing.model)
        own = borrowing.own_optimizer

        assert own is not None
        assert own.passes == 3
        assert equal(tensors(borrowing.model), before)


def test_sparse_gradients_flow_through_backward() -> None:
    model = words()
    borrowing = workload(model, loader(sentences()))

    with borrowing.borrowed():
        loss = borrowing.backward(borrowing.source().head(1)[0])
        assert model.table.weight.grad is not None
        assert model.table.weight.grad.is_sparse

    assert math.isfinite(loss)
    assert model.table.weight.grad is None


# --- no trace -------------------------------------------------------------------------------


@pytest.mark.parametrize("raises", [None, ZeroDivisionError, KeyboardInterrupt])
def test_everything_is_as_it_was_on_leaving(raises: type[BaseException] | None) -> None:
    model = net()
    model(torch.randn(4, 6)).sum().backward()
    model.body.eval()
    torch.manual_seed(3)
    train = loader(shuffle=True)
    before = (tensors(model), rng_state().torch, [module.training for module in model.modules()], model.calls)
    grads = [(parameter.grad, parameter.grad.clone()) for parameter in model.parameters() if parameter.grad is not None]

    borrowing = workload(model, train, loader(vectors(48)))
    try:
        with borrowing.borrowed(), borrowing.borrowed():
            borrowing.source().head(3)
            borrowing.begin(adamw(), 0)
            borrowing.train(9)
            borrowing.validate()
            if raises is not None:
                raise raises  # the law is about raising just here
    except (ZeroDivisionError, KeyboardInterrupt):
        pass

    assert equal(tensors(model), before[0])
    assert torch.equal(rng_state().torch, before[1])
    assert [module.training for module in model.modules()] == before[2]
    assert (model.calls, model.history) == (before[3], [4])
    assert [parameter.grad for parameter in model.parameters()] == [grad for grad, _ in grads]
    assert all(torch.equal(grad, content) for grad, content in grads)


def test_leaving_the_inner_of_two_loans_gives_nothing_back_yet() -> None:
    model = net()
    borrowing = workload(model)

    with borrowing.borrowed():
        with borrowing.borrowed():
            borrowing.begin(adamw(), 0)
            borrowing.train(2)
            weights = tensors(model)
        assert equal(tensors(model), weights)

    assert not equal(tensors(model), weights)


def test_it_can_be_borrowed_again_and_then_gives_the_same() -> None:
    borrowing = workload()

    runs = []
    for _ in range(2):
        with borrowing.borrowed():
            borrowing.begin(adamw(), 0)
            runs.append([*borrowing.train(6)])

    assert runs[0] == runs[1]


def test_a_map_style_data_set_that_counts_has_counted_nothing() -> None:
    class Counting(torch.utils.data.Dataset[Any]):
        def __init__(self) -> None:
            self.reads = 0
            self.log: list[int] = []

        def __len__(self) -> int:
            return 32

        def __getitem__(self, index: int) -> Any:
            self.reads += 1
            self.log.append(index)
            return torch.randn(6), index % 3

    data = Counting()
    borrowing = workload(nn.Linear(6, 3), DataLoader(data, batch_size=8))

    with borrowing.borrowed():
        borrowing.begin(adamw(), 0)
        borrowing.train(5)

    assert (data.reads, data.log) == (0, [])


# --- what is refused ------------------------------------------------------------------------


def one_shot() -> Iterator[Any]:
    yield torch.randn(4, 6), torch.tensor([0, 1, 2, 0])


class Held(IterableDataset[Any]):
    def __init__(self) -> None:
        self.source = one_shot()

    def __iter__(self) -> Iterator[Any]:
        return self.source


@pytest.mark.parametrize("made", [one_shot, lambda: DataLoader(Held(), batch_size=None)], ids=["generator", "stream"])
def test_data_that_can_be_read_once_are_refused_before_anything_is_read(made: Callable[[], Any]) -> None:
    stream = made()

    with pytest.raises(UnsupportedModuleError, match="read only once"), workload(train=stream).borrowed():
        pass

    assert len(list(stream)) == 1


def test_a_lazy_model_is_refused_by_name_and_left_as_it_is() -> None:
    model = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 3))

    with pytest.raises(UnsupportedModuleError, match=r"0\.weight"), workload(model).borrowed():
        pass

    model(torch.randn(2, 6))
    assert model[0].in_features == 6


@pytest.mark.parametrize("steps", [0, -1])
def test_a_training_without_steps_is_refused(steps: int) -> None:
    with pytest.raises(ConfigurationError, match="1 or more"):
        workload(steps=steps)


def test_either_a_loss_or_a_step_is_wanted() -> None:
    with pytest.raises(ConfigurationError, match="either"):
        TorchWorkload(net(), None, loader(), steps=1)
    with pytest.raises(ConfigurationError, match="either"):
        TorchWorkload(net(), LOSS, loader(), steps=1, step=lambda model, batch: torch.zeros(()))


def test_a_trial_outside_a_loan_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="borrowed"):
        workload().begin(adamw(), 0)


def test_a_batch_that_is_no_pair_is_refused_with_the_way_out() -> None:
    borrowing = workload(train=[torch.randn(4, 6)])

    with pytest.raises(ConfigurationError, match=r"step\(model, batch\)"), borrowing.borrowed():
        borrowing.backward(torch.randn(4, 6))


def test_trying_a_users_optimizer_that_is_not_there_is_refused() -> None:
    borrowing = workload()

    with pytest.raises(ConfigurationError, match="user_optimizer"), borrowing.borrowed():
        borrowing.begin(None, 0)


# --- identity -------------------------------------------------------------------------------


def test_a_rerun_of_the_same_training_has_the_same_identity() -> None:
    assert workload(val=loader(vectors(48))).identity == workload(val=loader(vectors(48))).identity


def relabelled() -> Any:
    data = vectors()
    return loader(torch.utils.data.TensorDataset(data.tensors[0], (data.tensors[1] + 1) % 3))


@pytest.mark.parametrize(
    "other",
    [
        lambda: workload(net(1)),
        lambda: workload(nn.Linear(6, 3)),
        lambda: workload(steps=41),
        lambda: workload(train=loader(batch_size=8)),
        lambda: workload(train=loader(vectors(95))),
        lambda: workload(train=relabelled()),
        lambda: workload(val=loader(vectors(48))),
    ],
    ids=["weights", "model", "steps", "batch size", "size", "labels", "validation"],
)
def test_another_training_has_another_identity(other: Callable[[], TorchWorkload]) -> None:
    assert other().identity != workload().identity


def test_reading_the_identity_draws_no_random_number_that_counts() -> None:
    class Augmented(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> Any:
            return torch.randn(6), index % 3

    before = rng_state().torch
    first, second = (workload(train=DataLoader(Augmented(), batch_size=4)).identity for _ in range(2))

    assert torch.equal(rng_state().torch, before)
    assert first == second


def test_a_complex_or_unreadable_training_has_an_identity() -> None:
    class Broken(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            raise OSError("unreadable")

    model = nn.Linear(6, 3, dtype=torch.complex64)

    assert workload(model, DataLoader(Broken())).identity
    assert workload(train=DataLoader(Rows(5))).identity
    assert isinstance(Net(), nn.Module)


def test_what_its_own_optimizer_leaves_out_no_plan_trains() -> None:
    borrowing = workload(user_optimizer=lambda model: (torch.optim.SGD(model.head.parameters(), lr=1e-3), None))

    plan = select(borrowing, budget=0, candidates=["adamw"])

    trained = {name for group in plan.param_groups for name in group.parameters}
    everything = {name for name, _ in borrowing.model.named_parameters()}
    assert trained == {"head.weight", "head.bias"}
    assert plan.model_fingerprint.left_out == everything - trained
    assert all(parameter.requires_grad for parameter in borrowing.model.parameters())


def test_the_items_of_a_loader_without_a_batch_size_are_batches_and_those_of_a_batch_sampler_are_rows() -> None:
    data = vectors(32)
    batches: DataLoader[Any] = DataLoader([data[:8], data[8:16]], batch_size=None)  # type: ignore[arg-type]  # a list will do
    sampled: DataLoader[Any] = DataLoader(data, batch_sampler=[[0, 1], [2, 3]])

    assert workload(train=batches).source().dataset is None
    assert workload(train=sampled).source().dataset is data
