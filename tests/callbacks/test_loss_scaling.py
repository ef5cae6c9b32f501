"""Half precision with a scaled loss: what is measured is not scaled, and each trial has a scale of its own."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision

from optselect.callbacks.workload import LightningWorkload
from optselect.profile import Profile
from optselect.profile.measure import measure
from tests.support.comparison import differences, fitting
from tests.support.modules import Classifier, fit, made

# torch's own: a scheduler does not see that a scaler left a step out, in the hand-written training neither.
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")


def half(scale: float | None = 2.0**16) -> MixedPrecision:
    """A scale that moves within a few steps; None: no scaler."""
    precision = MixedPrecision(
        "16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale or 1.0, growth_interval=3)
    )
    if scale is None:
        precision.scaler = None
    return precision


def inside(look: Callable[[LightningWorkload], Any], scale: float | None = 2.0**16) -> Any:
    """What `look` saw of the borrowed workload."""
    seen = []

    class Looked(Classifier):
        def configure_optimizers(self) -> Any:
            workload = LightningWorkload(self.trainer, self)
            with workload.borrowed():
                seen.append(look(workload))
            return torch.optim.SGD(self.parameters(), lr=0.1)

    fit(made(Looked), epochs=1, plugins=[half(scale)])
    return seen[0]


def adamw(model: Any) -> Any:
    return torch.optim.AdamW(model.parameters(), lr=0.01), None


def scale_of(workload: LightningWorkload) -> float:
    return float(workload.model.trainer.precision_plugin.scaler.get_scale())  # type: ignore[attr-defined]  # a module's


def test_the_run_is_the_hand_written_one(tmp_path: Path) -> None:
    assert differences(fitting(plugins=lambda _: [half()]), tmp_path) == []


def test_gradients_are_measured_without_the_scale() -> None:
    def norms(workload: LightningWorkload) -> Profile:
        return measure(workload, passes=4)

    scaled, plain = inside(norms), inside(norms, scale=None)

    assert scaled.gradient.norms == pytest.approx(plain.gradient.norms, rel=1e-2)
    assert scaled.gradient.relative_norms == pytest.approx(plain.gradient.relative_norms, rel=1e-2)


def test_a_trial_begins_with_the_scale_of_the_training_and_goes_on_with_its_own() -> None:
    def look(workload: LightningWorkload) -> list[Any]:
        workload.begin(adamw, 0)
        first = [scale_of(workload), *workload.train(8), scale_of(workload)]
        paused = workload.pause()
        workload.begin(adamw, 0)
        again = [scale_of(workload), *workload.train(8)]
        workload.resume(paused)
        return [first, again, scale_of(workload)]

    (begun, *losses, moved), (begun_again, *same), resumed = inside(look)

    assert begun == begun_again == 2.0**16
    assert losses == same
    assert moved == resumed != begun


def test_a_trial_that_was_stored_goes_on_bit_for_bit_with_its_scale() -> None:
    def look(workload: LightningWorkload) -> tuple[Any, ...]:
        workload.begin(adamw, 0)
        workload.train(8)
        file = io.BytesIO()
        torch.save(workload.store(), file)
        expected = [*workload.train(4), scale_of(workload)]
        file.seek(0)
        stored = torch.load(file, weights_only=True)
        workload.restore(stored, adamw)
        return expected, [*workload.train(4), scale_of(workload)]

    expected, found = inside(look)

    assert found == expected
