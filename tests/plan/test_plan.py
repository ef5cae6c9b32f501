"""The decision as a value and as a file."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from optselect import Budget, TorchWorkload, select
from optselect.configuration import Configuration
from optselect.configuration.schedule import Schedule
from optselect.errors import OptselectError, PlanFormatError, PlanMismatchError, PlanVersionError
from optselect.plan import PLAN_VERSION, ModelFingerprint, OptimizerPlan, ParamGroup
from tests.support.small import loader, net, sentences, vectors, words


@pytest.fixture(scope="module")
def plan() -> OptimizerPlan:
    """A plan as a search writes it, with every field filled."""
    workload = TorchWorkload(words(), nn.CrossEntropyLoss(), loader(sentences()), loader(sentences(48)), steps=12)
    return select(workload, Budget(steps=60))


@pytest.fixture
def small() -> OptimizerPlan:
    return OptimizerPlan(
        configuration=Configuration(
            optimizer="sgd", hyperparameters={"lr": 0.1}, schedule=Schedule(kind="cosine", warmup_steps=2)
        ),
        model_fingerprint=ModelFingerprint.of(nn.Linear(3, 2)),
        param_groups=(
            ParamGroup(name="sgd", optimizer="sgd", parameters=("weight", "bias"), hyperparameters={"lr": 0.1}),
        ),
        total_steps=100,
    )


def test_a_plan_survives_json_in_every_field(plan: OptimizerPlan) -> None:
    again = OptimizerPlan.from_dict(json.loads(json.dumps(plan.to_dict())))

    assert again.to_dict() == plan.to_dict()
    assert again == plan


def test_a_plan_is_strict_json_that_other_programs_read(plan: OptimizerPlan) -> None:
    json.dumps(plan.to_dict(), allow_nan=False)


def test_a_searched_plan_says_everything(plan: OptimizerPlan) -> None:
    assert plan.profile is not None
    assert all((plan.proposals, plan.trials, plan.reasons, plan.param_groups, plan.versions, plan.monitor))


def test_a_file_gives_the_plan_back(plan: OptimizerPlan, tmp_path: Path) -> None:
    plan.save(tmp_path / "new" / "folder" / "plan.json")

    assert OptimizerPlan.load(tmp_path / "new" / "folder" / "plan.json") == plan


def test_a_failing_write_leaves_the_old_file_and_nothing_else(
    small: OptimizerPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plan.json"
    small.save(path)
    before = path.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space"):
            small.save(path)

    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["plan.json"]


def test_a_plan_that_is_not_json_by_nature_leaves_the_old_file(small: OptimizerPlan, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    small.save(path)
    before = path.read_bytes()
    unwritable = OptimizerPlan(
        configuration=Configuration(optimizer="sgd", hyperparameters={"lr": torch.tensor(0.1)}),  # type: ignore[dict-item]  # the point
        model_fingerprint=small.model_fingerprint,
    )

    with pytest.raises(TypeError):
        unwritable.save(path)

    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["plan.json"]


@pytest.mark.parametrize("content", [b"", b"not json", b"\xff\xfe\x00", b'{"version": 1', b"[" * 100_000])
def test_a_file_that_is_not_json_is_a_named_error_with_its_path(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)

    with pytest.raises(PlanFormatError, match=r"plan\.json"):
        OptimizerPlan.load(path)


def test_a_file_that_is_not_there_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(PlanFormatError, match=r"nowhere\.json"):
        OptimizerPlan.load(tmp_path / "nowhere.json")


@pytest.mark.parametrize("data", [[], "plan", 3, None, {}, {"version": "1"}, {"version": True}, {"version": 0}])
def test_json_without_a_version_is_not_a_plan(data: Any) -> None:
    with pytest.raises(PlanFormatError, match="version"):
        OptimizerPlan.from_dict(data)


def test_a_later_version_is_refused_with_both_numbers(small: OptimizerPlan) -> None:
    with pytest.raises(PlanVersionError, match=f"version {PLAN_VERSION + 1} .* up to {PLAN_VERSION}"):
        OptimizerPlan.from_dict({**small.to_dict(), "version": PLAN_VERSION + 1})


FIELDS = [
    "optimizer",
    "hyperparameters",
    "schedule",
    # A plan of before says nothing of what it compared, of how long it took, and of recorded trainings.
    *sorted(
        OptimizerPlan.__dataclass_fields__.keys()
        - {"version", "configuration", "compare", "search_seconds", "neighbours"}
    ),
]


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field_is_named(small: OptimizerPlan, field: str) -> None:
    data = small.to_dict()
    del data[field]

    with pytest.raises(PlanFormatError, match=field):
        OptimizerPlan.from_dict(data)


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_another_type_is_an_error_of_ours_or_taken_as_it_is(plan: OptimizerPlan, field: str) -> None:
    for wrong in (3, "text", [1], ["a"], {"a": 1}, [[1]], [{"a": 1}], True, 0.5):
        try:
            OptimizerPlan.from_dict({**plan.to_dict(), field: wrong})
        except OptselectError:
            continue


def test_a_schedule_that_is_none_of_ours_makes_no_plan(small: OptimizerPlan) -> None:
    with pytest.raises(PlanFormatError, match="cosin"):
        OptimizerPlan.from_dict({**small.to_dict(), "schedule": {**small.schedule.to_dict(), "kind": "cosin"}})


# --- version 1 ------------------------------------------------------------------------------

VERSION_1 = json.loads((Path(__file__).parents[1] / "laws" / "golden" / "plan_v1.json").read_text(encoding="utf-8"))


def test_a_plan_of_version_1_is_read_in_the_words_of_this_one() -> None:
    plan = OptimizerPlan.from_dict(VERSION_1)

    assert plan.version == PLAN_VERSION
    assert list(map(str, plan.reasons)) == VERSION_1["reasons"]
    (cost,) = plan.reasons_of("cost")
    assert f"{cost.value:.2f} of the training" in cost.text
    assert [trial.value for trial in plan.trials] == [trial["value"] for trial in VERSION_1["trials"]]
    assert OptimizerPlan.from_dict(plan.to_dict()) == plan


def test_what_a_trial_of_version_1_died_of_is_its_note() -> None:
    ends = ("complete", "diverged after 3 micro-batches")
    trial = {**VERSION_1["trials"][0], "value": None, "earlier": [[3, 1.5]], "micro_batches": 7}

    whole, lost = OptimizerPlan.from_dict({**VERSION_1, "trials": [{**trial, "state": end} for end in ends]}).trials

    assert (whole.state, whole.note, whole.diverged) == ("complete", "", False)
    assert (lost.state, lost.note, lost.values, lost.micro_batches) == ("failed", ends[1], {3: 1.5}, 7)


def test_a_plan_of_version_1_from_before_leads_and_curves_were_kept_is_still_one() -> None:
    later = ("baseline", "fine_tuning", "lead", "mode")
    trials = [{key: value for key, value in trial.items() if key != "earlier"} for trial in VERSION_1["trials"]]
    first = {key: value for key, value in VERSION_1.items() if key not in later}

    read = OptimizerPlan.from_dict({**first, "trials": trials})

    assert (read.baseline, read.lead, read.mode, read.fine_tuning) == (None, None, "min", None)
    assert [trial.value for trial in read.trials] == [trial["value"] for trial in VERSION_1["trials"]]


def test_what_version_1_measured_and_this_one_does_not_know_is_left_out_by_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gradient = {**VERSION_1["profile"]["gradient"], "wiggliness": 3.0}
    old = {**VERSION_1, "profile": {**VERSION_1["profile"], "gradient": gradient}}

    with caplog.at_level(logging.INFO, logger="optselect"):
        read = OptimizerPlan.from_dict(old)

    assert read == OptimizerPlan.from_dict(VERSION_1)
    assert "wiggliness" in caplog.text


def test_what_this_version_does_not_know_of_its_own_is_refused(plan: OptimizerPlan) -> None:
    data = plan.to_dict()
    data["profile"]["gradient"]["wiggliness"] = 3.0

    with pytest.raises(PlanFormatError, match="wiggliness"):
        OptimizerPlan.from_dict(data)


# --- the fingerprint ------------------------------------------------------------------------


class Model(nn.Module):
    def __init__(self, *names: str, shape: tuple[int, ...] = (2, 3)) -> None:
        super().__init__()
        for name in names:
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))


def mismatch(planned: nn.Module, here: nn.Module) -> str:
    with pytest.raises(PlanMismatchError) as caught:
        ModelFingerprint.of(planned).check(here)
    return str(caught.value)


def test_the_same_model_with_other_weights_fits() -> None:
    ModelFingerprint.of(net(0)).check(net(1))


def test_a_fingerprint_survives_json_in_its_order() -> None:
    fingerprint = ModelFingerprint.of(net())

    again = ModelFingerprint.from_dict(json.loads(json.dumps(fingerprint.to_dict())))

    assert again == fingerprint
    assert list(again.shapes) == list(fingerprint.shapes)


def test_a_new_parameter_is_named_with_both_counts() -> None:
    assert "covers 2 parameters and the model has 3; new: c." in mismatch(Model("a", "b"), Model("a", "b", "c"))


def test_a_missing_parameter_is_named() -> None:
    assert "missing: b" in mismatch(Model("a", "b"), Model("a"))


def test_a_parameter_of_another_shape_is_named_with_both_shapes() -> None:
    assert "of another shape: a [4] for [2, 3]" in mismatch(Model("a"), Model("a", shape=(4,)))


def test_another_order_is_said_where_everything_else_agrees() -> None:
    assert "another order" in mismatch(Model("a", "b"), Model("b", "a"))


def test_a_parameter_that_was_frozen_or_thawed_is_named() -> None:
    frozen = Model("a", "b")
    frozen.get_parameter("a").requires_grad_(False)

    assert "now frozen: a." in mismatch(Model("a", "b"), frozen)
    assert "no longer frozen: a." in mismatch(frozen, Model("a", "b"))


def test_a_new_parameter_is_not_also_called_frozen() -> None:
    here = Model("a", "b")
    here.get_parameter("b").requires_grad_(False)

    assert "frozen" not in mismatch(Model("a"), here)


def test_a_model_in_a_wrapper_is_told_apart_from_another_model_with_what_to_pass() -> None:
    inside = Model("a", "b")
    outside = nn.DataParallel(inside)

    assert "Pass the model inside, model.module;" in mismatch(inside, outside)
    assert "begin with 'module.'. Wrap" in mismatch(outside, inside)
    assert "wrapper" not in mismatch(inside, nn.DataParallel(Model("a", "c")))


def test_of_many_differences_the_first_five_are_named_and_the_others_counted() -> None:
    assert "new: p0, p1, p2, p3, p4 and 3 more." in mismatch(Model(), Model(*(f"p{index}" for index in range(8))))


def test_what_was_searched_for_one_model_is_refused_for_another(plan: OptimizerPlan) -> None:
    with pytest.raises(PlanMismatchError, match=r"missing: table\.weight"):
        plan.build(net())


def test_a_search_that_met_nothing_finite_still_writes_strict_json() -> None:
    class Diverging(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(6, 3))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs @ self.weight * math.inf

    workload = TorchWorkload(Diverging(), nn.CrossEntropyLoss(), loader(vectors()), steps=12)

    plan = select(workload, 0)

    json.dumps(plan.to_dict(), allow_nan=False)
