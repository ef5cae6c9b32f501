"""`optselect fit`, `tune`, `worker` and `profile`: what each runs, and what it prints of it."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from optselect import measure
from optselect.building.fitting_policy import policy_for
from optselect.callbacks import AutoOptimizer, LightningWorkload
from optselect.callbacks.auto_optimizer import SearchFallbackWarning
from optselect.callbacks.decision import FitRequest
from optselect.callbacks.lightning_names import lightning_of
from optselect.configuration.policy import FineTuning
from optselect.errors import ConfigurationError, OptselectError, UnsupportedModuleError
from optselect.plan import OptimizerPlan
from optselect.profile.model import measured_anatomy
from optselect.profile.text import describe
from optselect.recipes.cli.checkpoints import checked_checkpoint, last_checkpoint
from optselect.recipes.cli.ending import Terminated, sigterm_heeded
from optselect.recipes.cli.input_errors import as_input_error
from optselect.recipes.cli.lightning_cli import AutoCLI, build_cli
from optselect.recipes.cli.surroundings import chatter_muted, here_importable, sigint_restored
from optselect.recipes.cli.workers import beside, workers_in
from optselect.report.explanation import headline
from optselect.report.groups import LAYER_HEADER, LAYER_NUMBERS, aligned, layer_rows
from optselect.report.text import choice_as_text
from optselect.words import printable

if TYPE_CHECKING:
    import lightning.pytorch as pl

# So long a worker waits for the search to be begun, most often by `tune`, which measures the training first.
_JOINS_WITHIN_SECONDS = 30.0


def run(command: str, arguments: list[str], *, verbose: bool) -> None:
    """Run `fit`, `tune`, `worker` or `profile` with LightningCLI's `arguments`.

    Raises `OptselectError` on wrong input, and `KeyboardInterrupt` or `Terminated` with a hint on how to go on.
    """
    with ExitStack() as stack:
        stack.enter_context(here_importable())
        stack.enter_context(sigint_restored())
        stack.enter_context(sigterm_heeded())
        if not verbose:
            stack.enter_context(chatter_muted())
        try:
            _COMMANDS[command](arguments)
        except SystemExit as leaving:
            # --help and --print_config leave this way, too.
            if leaving.code not in (None, 0):
                raise


def _fit(arguments: list[str]) -> None:
    cli = build_cli("fit", AutoOptimizer, arguments)
    weights_only = cli.config.weights_only
    checkpoint = checked_checkpoint(cli.config.ckpt_path, weights_only=weights_only)
    _train(cli, ckpt_path=checkpoint, weights_only=weights_only)
    auto, trainer = cli.auto, cli.trainer
    if _nothing_trained(trainer):
        raise ConfigurationError("the training data gave no batch, so nothing was trained; look at data: and limits")
    if auto.plan is not None:
        print(printable(choice_as_text(auto.plan)))
    for name, value in sorted(trainer.callback_metrics.items()):
        print(f"{printable(name):<20} {float(value):.5g}")
    last = last_checkpoint(trainer)
    for what, file in (("plan", auto.plan_path), ("report", auto.report_path), ("checkpoint", last)):
        if file is not None:
            print(f"{what:<20} {_relative(file)}")


def _tune(arguments: list[str]) -> None:
    arguments, workers = workers_in(arguments)
    with beside(arguments, workers):
        cli = build_cli("tune", _Tuning, arguments)
        if cli.config.workers != 1:
            raise ConfigurationError("workers: stands in the config; pass --workers N on the command line in its place")
        auto = cli.auto
        _search(cli)
    if auto.plan is None or auto.plan_path is None:
        raise _nothing_searched(cli)
    print(printable(choice_as_text(auto.plan)))
    print(f"plan                 {_relative(auto.plan_path)}")
    if auto.report_path is not None:
        print(f"report               {_relative(auto.report_path)}")
    print(f"to train with it     optselect fit … --plan {_relative(auto.plan_path)}")


def _work(arguments: list[str]) -> None:
    cli = build_cli("worker", _Working, arguments)
    _search(cli)
    if cli.auto.plan is None:
        raise _nothing_searched(cli)
    study = cli.auto.study
    print(f"the search {study.study_name if study is not None else ''} has ended: {printable(headline(cli.auto.plan))}")


def _nothing_searched(cli: AutoCLI) -> ConfigurationError:
    if cli.trainer.max_epochs == 0 or cli.trainer.max_steps == 0:
        return ConfigurationError(
            "nothing was searched: max_epochs or max_steps is 0; set trainer.max_epochs to the training's length"
        )
    return ConfigurationError("nothing was searched: fast_dev_run and auto.plan leave nothing to tune; remove them")


def _search(cli: AutoCLI) -> None:
    with warnings.catch_warnings():
        # Training goes on without a search; here there is nothing else to do.
        warnings.simplefilter("error", SearchFallbackWarning)
        try:
            _train(cli)
        except SearchFallbackWarning as warning:
            raise UnsupportedModuleError(str(warning.__cause__ or warning)) from warning


def _profile(arguments: list[str]) -> None:
    cli = build_cli("profile", _Profiling, arguments)
    _train(cli)
    if cli.auto.profile is not None:
        print(printable("\n".join(describe(cli.auto.profile))))
    if isinstance(cli.auto, _Profiling) and cli.auto.layers:
        print(printable("\n".join(("", *cli.auto.layers))))


_COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "fit": _fit,
    "tune": _tune,
    "worker": _work,
    "profile": _profile,
}


class _Tuning(AutoOptimizer):
    """Searches, then ends the fit before its first step."""

    def optimizers_for(self, module: pl.LightningModule) -> NoReturn:
        super().optimizers_for(module)
        # Lightning's own way out, made for its tuner: teardown hooks run, and nothing counts as a failure.
        raise lightning_of(module)._TunerExitException  # noqa: SLF001  # there is no public way out


class _Working(_Tuning):
    """The same for one worker of a search: the plan is written by whoever began it."""

    def _request(self, module: pl.LightningModule) -> FitRequest:
        return replace(super()._request(module), joins_within=_JOINS_WITHIN_SECONDS)

    def _write(self, trainer: pl.Trainer, module: pl.LightningModule, plan: OptimizerPlan) -> None:
        pass


class _Profiling(AutoOptimizer):
    """Measures, then ends the fit before its first step. No trial, no plan.

    `layers` is a table of what the parameters are for and how they would be treated.
    """

    layers: Sequence[str] = ()

    def optimizers_for(self, module: pl.LightningModule) -> NoReturn:
        workload = LightningWorkload(module.trainer, module, monitor=self.monitor, mode=self.mode)
        told = self._settings.fine_tuning
        with workload.borrowed():
            profile = measure(workload)
            anatomy = measured_anatomy(profile, module)
            policy = policy_for(workload, told, anatomy) if isinstance(told, FineTuning) else None
            rows = layer_rows(anatomy, policy, fresh=profile.model.fresh)
        # Not inside: what a callback is told while the module is borrowed is put back with it.
        self.profile, self.layers = profile, aligned(LAYER_HEADER, rows, LAYER_NUMBERS)
        raise lightning_of(module)._TunerExitException  # noqa: SLF001  # there is no public way out


def _train(cli: AutoCLI, *, ckpt_path: str | None = None, weights_only: bool | None = None) -> None:
    # Before 2.6 `fit` does not take it, and reads whatever is in the file.
    takes_it = "weights_only" in inspect.signature(cli.trainer.fit).parameters
    own: dict[str, Any] = {"weights_only": weights_only} if takes_it and weights_only is not None else {}
    try:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=ckpt_path, **own)
    except Terminated as leaving:
        raise Terminated(_how_to_go_on(cli)) from leaving
    except SystemExit as leaving:
        # Lightning turns Ctrl-C into exit status 1, and SIGTERM into 0.
        sigterm = lightning_of(cli.trainer).SIGTERMException
        if isinstance(leaving, sigterm) or cli.trainer.received_sigterm:
            raise Terminated(_how_to_go_on(cli)) from leaving
        if isinstance(leaving.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt(_how_to_go_on(cli)) from leaving
        raise
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(_how_to_go_on(cli)) from interrupt
    except OptselectError:
        raise
    except Exception as error:
        refusal = as_input_error(error, cli.model, ckpt_path)
        if refusal is None:
            raise
        raise refusal from error
    if cli.trainer.received_sigterm:
        # It came too late for Lightning to look at it.
        raise Terminated(_how_to_go_on(cli))


def _nothing_trained(trainer: pl.Trainer) -> bool:
    """Tell whether the fit ended well without a single batch, though it was to have some."""
    wanted = trainer.max_epochs != 0 and trainer.max_steps != 0
    return wanted and not trainer.fit_loop.epoch_loop.batch_progress.total.ready


def _how_to_go_on(cli: AutoCLI) -> str:
    if cli.auto.plan is None:
        return "the same line goes on with the search where it stood"
    checkpoint = last_checkpoint(cli.trainer)
    anew = "the same line trains anew without new trials"
    return f"{anew}; to go on from the last checkpoint add --ckpt_path {_relative(checkpoint)}" if checkpoint else anew


def _relative(path: Path) -> str:
    """Make the path relative where that is shorter to read."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
