"""A checkpoint that does not fit is refused by name before any search; docs/reference/mismatch.md says how."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import optselect
from optselect import AutoOptimizer, Budget, OptimizerPlan, ResumeError
from optselect.errors import OptselectError
from tests.support.modules import Classifier, StopAfter, auto, equal_states, fit, made

PAGE = Path(__file__).parents[2] / "docs/reference/mismatch.md"
ROWS = re.findall(r"^\| (.*?) \| (.*?) \| `(\w+)` \|$", PAGE.read_text("utf-8"), flags=re.MULTILINE)


class ByHand(Classifier):
    """With an optimizer of its own, of the class that is said."""

    optimizer: Any = torch.optim.AdamW

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.parameters(), lr=1e-3)


class WithAdam(ByHand):
    optimizer = torch.optim.Adam


class WithRAdam(ByHand):
    optimizer = torch.optim.RAdam


class WithSGD(ByHand):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1e-3, momentum=0.9)


class WithSteps(ByHand):
    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


class WithCosine(ByHand):
    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)]


class Larger(ByHand):
    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Linear(2, 2)


class LargerAtEase(Larger):
    strict_loading = False


class AtEase(ByHand):
    strict_loading = False


class Wider(ByHand):
    def __init__(self) -> None:
        super().__init__()
        self.net[4] = nn.Linear(16, 17)
        self.net[6] = nn.Linear(17, 3)


class Reordered(ByHand):
    def __init__(self) -> None:
        super().__init__()
        norm = self.net[1]
        norm.weight, norm.bias = norm.bias, norm.weight
        weight, bias = norm._parameters.pop("bias"), norm._parameters.pop("weight")
        norm.register_parameter("bias", bias)
        norm.register_parameter("weight", weight)


class Frozen(ByHand):
    def __init__(self) -> None:
        super().__init__()
        self.net[0].requires_grad_(False)


def edited(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """The callback's entry in a checkpoint, changed."""

    def edit(path: Path) -> None:
        checkpoint = torch.load(path, weights_only=True)
        if "AutoOptimizer" in checkpoint["callbacks"]:
            change(checkpoint["callbacks"]["AutoOptimizer"])
        torch.save(checkpoint, path)

    return edit


def of_an_older_torch(state: dict[str, Any]) -> None:
    state["optimizers"][0]["version"] = "2.0.0"


def of_a_later_optselect(state: dict[str, Any]) -> None:
    state["plan"]["version"] += 1


def damaged(state: dict[str, Any]) -> None:
    del state["plan"]["param_groups"]


def of_an_unknown_optimizer(state: dict[str, Any]) -> None:
    for group in state["plan"]["param_groups"]:
        group["optimizer"] = "adamx"


def weights_alone(path: Path) -> None:
    checkpoint = torch.load(path, weights_only=True)
    torch.save({key: checkpoint[key] for key in checkpoint if key not in _STATES}, path)


_STATES = ("optimizer_states", "lr_schedulers", "callbacks")


class Case:
    """A checkpoint of `before`, changed by `edit`, from which `after` goes on; `own`: with the user's optimizer."""

    def __init__(
        self,
        before: type[ByHand],
        after: type[ByHand],
        *,
        own: bool = False,
        edit: Callable[[Path], None] | None = None,
        recorded: bool = True,
        given: str = "",
    ) -> None:
        self.before, self.after, self.own = before, after, own
        self.edit, self.recorded, self.given = edit, recorded, given

    def checkpoint(self, folder: Path, *callbacks: Any) -> Path:
        """Of the first two of four epochs."""
        path = folder / "half.ckpt"
        fit(made(self.before), *callbacks, StopAfter(2), epochs=4).save_checkpoint(path)
        if self.edit is not None:
            self.edit(path)
        return path

    def chooses(self, folder: Path, **arguments: Any) -> AutoOptimizer:
        """Keeps the user's optimizer, or takes AdamW."""
        return auto(folder, candidates=["user"] if self.own else ["adamw"], budget=0, **arguments)


CASES = {
    "parameters added, `strict_loading = False`": Case(ByHand, LargerAtEase),
    "parameters removed, `strict_loading = False`": Case(Larger, AtEase),
    "parameters added or removed, strict": Case(ByHand, Larger),
    "a parameter of another shape": Case(ByHand, Wider),
    "the same parameters in another order": Case(ByHand, Reordered),
    "parameters frozen": Case(ByHand, Frozen),
    "parameters no longer frozen": Case(Frozen, ByHand),
    "AdamW in the checkpoint, Adam in the module": Case(ByHand, WithAdam, own=True),
    "AdamW in the checkpoint, RAdam in the module": Case(ByHand, WithRAdam, own=True),
    "AdamW in the checkpoint, SGD in the module": Case(ByHand, WithSGD, own=True),
    "StepLR in the checkpoint, CosineAnnealingLR in the module": Case(WithSteps, WithCosine, own=True),
    "a scheduler in the checkpoint, none in the module": Case(WithSteps, ByHand, own=True),
    "another version of the optimizer's package": Case(ByHand, ByHand, edit=edited(of_an_older_torch)),
    "a checkpoint made without the callback": Case(ByHand, ByHand, recorded=False),
    "a checkpoint of AdamW, and `plan=` for Adam": Case(ByHand, WithAdam, recorded=False, given="adam"),
    "a checkpoint with a plan, and `plan=` for another": Case(ByHand, WithAdam, given="adam"),
    "a checkpoint of weights alone": Case(ByHand, ByHand, edit=weights_alone),
    "a plan of a later optselect": Case(ByHand, ByHand, edit=edited(of_a_later_optselect)),
    "a plan that is damaged": Case(ByHand, ByHand, edit=edited(damaged)),
    "an optimizer that is not in the catalogue here": Case(ByHand, ByHand, edit=edited(of_an_unknown_optimizer)),
}
# torch itself refuses these weights, before any callback is asked.
REFUSED_BY_TORCH = {"parameters added or removed, strict", "a parameter of another shape"}


def test_every_row_of_the_page_is_a_case() -> None:
    assert [row for row, _, _ in ROWS] == list(CASES)


@pytest.mark.full  # of Lightning, not of ours
@pytest.mark.parametrize("row, alone", [(row, alone) for row, alone, _ in ROWS])
def test_lightning_alone_does_what_the_page_says(row: str, alone: str, tmp_path: Path) -> None:
    case = CASES[row]
    path = case.checkpoint(tmp_path)
    steps: list[int] = []

    class Stepping(case.after):  # type: ignore[misc,name-defined]  # a class of the table
        def on_train_batch_start(self, *_: Any) -> None:
            steps.append(self.trainer.global_step)

    try:
        fit(made(Stepping), epochs=4, ckpt_path=path)
        measured = "goes on"
    except Exception as error:  # noqa: BLE001  # which one it is, is the question
        measured = f"`{type(error).__name__}`" + (" at the first step" if steps else "")

    assert alone.split(",", maxsplit=1)[0] == measured


@pytest.mark.parametrize("row, said", [(row, said) for row, _, said in ROWS])
def test_a_mismatch_is_a_named_error_before_any_search(row: str, said: str, tmp_path: Path) -> None:
    case = CASES[row]
    path = case.checkpoint(tmp_path, *([case.chooses(tmp_path)] if case.recorded else []))
    callback = auto(tmp_path, plan=plan_for(case.given, tmp_path))
    error = RuntimeError if said == "RuntimeError" else getattr(optselect, said)

    with pytest.raises(error) as caught:
        fit(made(case.after), callback, epochs=4, ckpt_path=path)

    assert type(caught.value) is error
    assert (callback.study, callback.profile, callback.plan) == (None, None, None)


@pytest.mark.parametrize("row", [row for row in CASES if row not in REFUSED_BY_TORCH])
def test_with_on_mismatch_search_a_fresh_optimizer_goes_on_from_the_weights(row: str, tmp_path: Path) -> None:
    case = CASES[row]
    path = case.checkpoint(tmp_path, *([case.chooses(tmp_path)] if case.recorded else []))
    start: dict[str, Any] = {}

    class Starts(case.after):  # type: ignore[misc,name-defined]  # as above
        def on_train_start(self) -> None:
            if self.trainer.current_epoch:  # not a trial
                start["weights"] = {name: value.clone() for name, value in self.state_dict().items()}
                start["states"] = [len(optimizer.state) for optimizer in self.trainer.optimizers]

    callback = auto(tmp_path, plan=plan_for(case.given, tmp_path), candidates=["momentum"], on_mismatch="search")
    trainer = fit(made(Starts), callback, epochs=4, ckpt_path=path)

    saved = torch.load(path, weights_only=True)["state_dict"]
    common = saved.keys() & start["weights"].keys()
    assert equal_states({n: saved[n] for n in common}, {n: start["weights"][n] for n in common})
    assert start["states"] == [0]
    assert trainer.global_step == 48
    assert callback.plan is not None
    assert callback.plan.total_steps == (48 if case.given else 24)


def plan_for(optimizer: str, folder: Path) -> OptimizerPlan | None:
    """A plan of that optimizer for the classifier."""
    if not optimizer:
        return None
    callback = auto(folder / "given", candidates=[optimizer], budget=0)
    fit(made(Classifier), callback, epochs=4, default_root_dir=folder / "given")
    return callback.plan


def test_another_version_is_accepted_with_the_plan_in_hand(tmp_path: Path) -> None:
    case = CASES["another version of the optimizer's package"]
    first = case.chooses(tmp_path)
    path = case.checkpoint(tmp_path, first)
    callback = AutoOptimizer(plan=first.plan)

    trainer = fit(made(ByHand), callback, epochs=4, ckpt_path=path)

    steps = {int(state["step"]) for state in trainer.optimizers[0].state.values()}
    assert steps == {48}


def test_a_copied_plan_goes_on_from_a_checkpoint_made_without_the_callback(tmp_path: Path) -> None:
    plan = plan_for("adamw", tmp_path)

    class Planned(Classifier):
        def configure_optimizers(self) -> Any:
            optimizer, scheduler = plan.build(self)  # type: ignore[union-attr]
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    fit(made(Planned), epochs=1).save_checkpoint(tmp_path / "half.ckpt")

    trainer = fit(made(Classifier), AutoOptimizer(plan=plan), ckpt_path=tmp_path / "half.ckpt")

    assert {int(state["step"]) for state in trainer.optimizers[0].state.values()} == {24}


def test_the_error_says_where_the_plan_may_be(tmp_path: Path) -> None:
    fit(made(Classifier), auto(tmp_path, budget=0), default_root_dir=tmp_path).save_checkpoint(tmp_path / "a.ckpt")
    weights_alone(tmp_path / "a.ckpt")

    with pytest.raises(ResumeError, match=r"weights and no optimizer state.*plan\.json \(.*plan\.json may be it\)"):
        fit(made(Classifier), auto(tmp_path), epochs=3, ckpt_path=tmp_path / "a.ckpt")


def test_a_search_that_was_asked_for_is_laid_out_for_the_steps_that_remain(tmp_path: Path) -> None:
    fit(made(ByHand), StopAfter(2), epochs=4).save_checkpoint(tmp_path / "half.ckpt")
    callback = auto(tmp_path, budget=Budget(steps=60), on_mismatch="search")

    fit(made(ByHand), callback, epochs=4, ckpt_path=tmp_path / "half.ckpt")

    assert callback.plan is not None
    assert callback.plan.total_steps == 24
    assert any(trial.value is not None for trial in callback.plan.trials)


def test_all_errors_of_the_page_are_of_one_tree() -> None:
    names = {said for _, _, said in ROWS} - {"RuntimeError"}

    assert all(issubclass(getattr(optselect, name), OptselectError) for name in names)
