"""`optselect fit`, `tune` and `profile`: a LightningCLI that adds AutoOptimizer to any config."""

from __future__ import annotations

import argparse
import functools
import io
import logging
import os
import signal
import sys
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.cli import (
    LightningArgumentParser,
    LightningCLI,
    LRSchedulerTypeTuple,
    SaveConfigCallback,
    instantiate_class,
)
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities.exceptions import _TunerExitException
from torch.optim import Optimizer

from optselect import measure
from optselect.building.fitting_policy import policy_for
from optselect.callbacks import AutoOptimizer, LightningWorkload
from optselect.callbacks.auto_optimizer import SearchFallbackWarning
from optselect.configuration.policy import FineTuning
from optselect.errors import ConfigurationError, OptselectError, ResumeError, UnsupportedModuleError
from optselect.files import write_whole
from optselect.plan import OptimizerPlan
from optselect.profile.model import measured_anatomy
from optselect.profile.text import describe
from optselect.recipes.cli.input_errors import readable, refused, unreadable
from optselect.report.groups import LAYER_HEADER, LAYER_NUMBERS, aligned, layer_rows
from optselect.words import without_passwords

# What Trainer.fit takes for ckpt_path besides a path.
_CHECKPOINT_WORDS = frozenset({"last", "best", "hpc", "registry"})


def run(command: str, arguments: list[str], *, verbose: bool) -> None:
    """Run `fit`, `tune` or `profile` with LightningCLI's `arguments`.

    Raises `OptselectError` on wrong input, and `KeyboardInterrupt` with a hint on how to go on.
    """
    with ExitStack() as stack:
        stack.enter_context(_here_importable())
        stack.enter_context(_sigint_restored())
        if not verbose:
            stack.enter_context(_chatter_muted())
        try:
            _COMMANDS[command](arguments)
        except SystemExit as leaving:
            # --help and --print_config leave this way, too.
            if leaving.code not in (None, 0):
                raise


def _fit(arguments: list[str]) -> None:
    cli = _build_cli("fit", AutoOptimizer, arguments)
    _train(cli, ckpt_path=_checkpoint(cli.config.ckpt_path))
    auto, trainer = cli.auto, cli.trainer
    if _nothing_trained(trainer):
        raise ConfigurationError("the training data gave no batch, so nothing was trained; look at data: and limits")
    if auto.plan is not None:
        print("\n".join(_choice(auto.plan)))
    for name, value in sorted(trainer.callback_metrics.items()):
        print(f"{name:<20} {float(value):.5g}")
    checkpoint = _last_checkpoint(trainer)
    for what, file in (("plan", auto.plan_path), ("report", auto.report_path), ("checkpoint", checkpoint)):
        if file is not None:
            print(f"{what:<20} {_short(file)}")


def _tune(arguments: list[str]) -> None:
    cli = _build_cli("tune", _Tuning, arguments)
    auto = cli.auto
    with warnings.catch_warnings():
        # Training goes on without a search; here there is nothing else to do.
        warnings.simplefilter("error", SearchFallbackWarning)
        try:
            _train(cli)
        except SearchFallbackWarning as warning:
            raise UnsupportedModuleError(str(warning.__cause__ or warning)) from warning
    if auto.plan is None or auto.plan_path is None:
        raise ConfigurationError("nothing was searched: fast_dev_run and auto.plan leave nothing to tune; remove them")
    print("\n".join(_choice(auto.plan)))
    print(f"plan                 {_short(auto.plan_path)}")
    if auto.report_path is not None:
        print(f"report               {_short(auto.report_path)}")
    print(f"to train with it     optselect fit … --plan {_short(auto.plan_path)}")


def _profile(arguments: list[str]) -> None:
    cli = _build_cli("profile", _Profiling, arguments)
    _train(cli)
    if cli.auto.profile is not None:
        print("\n".join(describe(cli.auto.profile)))
    if isinstance(cli.auto, _Profiling) and cli.auto.layers:
        print("\n".join(("", *cli.auto.layers)))


_COMMANDS: dict[str, Callable[[list[str]], None]] = {"fit": _fit, "tune": _tune, "profile": _profile}


class _Tuning(AutoOptimizer):
    """Searches, then ends the fit before its first step."""

    def optimizers_for(self, module: pl.LightningModule) -> NoReturn:
        super().optimizers_for(module)
        # Lightning's own way out, made for its tuner: teardown hooks run, and nothing counts as a failure.
        raise _TunerExitException


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
        raise _TunerExitException


class _ConfigSaved(SaveConfigCallback):
    """The whole config beside the plan of a run, without passwords."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # Without a logger there is no folder of the run's own, and a config.yaml that lies there is the user's.
        if not trainer.is_global_zero or not trainer.loggers or trainer.log_dir is None:
            return
        target = Path(trainer.log_dir) / "config.yaml"
        if not target.exists():
            write_whole(target, without_passwords(self.parser.dump(self.config)))


class _AutoCLI(LightningCLI):
    """Any module and data by import path, AutoOptimizer under `auto:`, the user's own under `optimizer:`."""

    auto: AutoOptimizer

    def __init__(self, command: str, callback: type[AutoOptimizer], arguments: list[str]) -> None:
        self._trains = command == "fit"
        self._callback = callback
        super().__init__(
            args=arguments,
            run=False,
            save_config_callback=_ConfigSaved if self._trains else None,
            # Not a random one: weights are part of the study's name, so the same line would not go on.
            seed_everything_default=0,
            # Lightning would build the `optimizer:` once; each trial needs a fresh one.
            auto_configure_optimizers=False,
            parser_kwargs={
                "prog": f"optselect {command}",
                "exit_on_error": False,
                "description": None,
                # OPTSELECT_TRAINER__MAX_EPOCHS=3, and above all OPTSELECT_AUTO__STORAGE, which no `ps` shows.
                "default_env": True,
                "env_prefix": "OPTSELECT",
            },
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        # As add_lightning_class_args does it, but for sub_configs: with them a plan or a storage that is a
        # file of JSON or YAML would be taken for the arguments of its class.
        parser.callback_keys.append("auto")
        parser.add_class_arguments(self._callback, "auto", instantiate=True, sub_configs=False)
        parser.add_optimizer_args((Optimizer,))
        parser.add_lr_scheduler_args(LRSchedulerTypeTuple)
        if self._trains:
            parser.add_argument("--plan", type=str | None, default=None, help="a plan.json; nothing is searched")
            parser.add_argument("--ckpt_path", type=str | None, default=None, help="a checkpoint to go on from")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        # Lightning's own warns when sys.argv is not empty, which it never is here.
        with _passwords_unsaid():
            self.config = parser.parse_args(args)

    def before_instantiate_classes(self) -> None:
        if not self._trains:
            # Nothing is trained, so nothing is to appear where trainings are logged.
            self.config.trainer.logger = False
        elif self.config.plan is not None:
            self.config.auto.plan = self.config.plan

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        given = self.config_init.trainer.callbacks
        if any(isinstance(each, AutoOptimizer) for each in (given if isinstance(given, list) else [given])):
            raise ConfigurationError(
                "trainer.callbacks has an AutoOptimizer, and optselect adds one; remove it there and put its "
                "arguments under auto:"
            )
        # A logger that takes everything: modules may call self.logger.experiment.
        return super().instantiate_trainer(**kwargs if self._trains else {**kwargs, "logger": DummyLogger()})

    def after_instantiate_classes(self) -> None:
        self.auto = self.config_init.auto
        if self.config.optimizer:
            own = functools.partial(
                _configure, self.model, self.config.optimizer.as_dict(), _as_dict(self.config.lr_scheduler)
            )
            vars(self.model)["configure_optimizers"] = own


class _Asked(_AutoCLI):
    """Stops where the parser is whole: LightningCLI goes on in its constructor."""

    class Answer(Exception):  # noqa: N818  # no error: the way out of a constructor
        """Carries the parser."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> NoReturn:
        raise self.Answer(parser)


def parser_of(command: str) -> LightningArgumentParser:
    """The parser of `fit`, `tune` or `profile`, for what asks about its options."""
    try:
        _Asked(command, AutoOptimizer, [])
    except _Asked.Answer as answer:
        parser: LightningArgumentParser = answer.args[0]
    return parser


def _configure(module: pl.LightningModule, optimizer: dict[str, Any], scheduler: dict[str, Any] | None) -> Any:
    built = instantiate_class(module.parameters(), optimizer)
    return LightningCLI.configure_optimizers(
        module, built, instantiate_class(built, scheduler) if scheduler is not None else None
    )


def _as_dict(namespace: Any) -> dict[str, Any] | None:
    return namespace.as_dict() if namespace else None


def _build_cli(command: str, callback: type[AutoOptimizer], arguments: list[str]) -> _AutoCLI:
    try:
        return _AutoCLI(command, callback, arguments)
    except OptselectError:
        raise
    except argparse.ArgumentError as error:
        raise ConfigurationError(f"{readable(str(error))}; see optselect {command} --help") from error
    # What constructors raise for arguments they cannot take.
    except (MisconfigurationException, TypeError, ValueError, OSError, ImportError) as error:
        kind = "" if isinstance(error, MisconfigurationException) else f"{type(error).__name__}: "
        raise ConfigurationError(
            f"{kind}{readable(str(error))}; mend the config, or see the traceback with -v"
        ) from error


def _train(cli: _AutoCLI, *, ckpt_path: str | None = None) -> None:
    try:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=ckpt_path)
    except SystemExit as leaving:
        # Lightning turns Ctrl-C into exit status 1.
        if isinstance(leaving.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt(_how_to_go_on(cli)) from leaving
        raise
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(_how_to_go_on(cli)) from interrupt
    except OptselectError:
        raise
    except Exception as error:
        refusal = refused(error, cli.model, ckpt_path)
        if refusal is None:
            raise
        raise refusal from error


def _nothing_trained(trainer: pl.Trainer) -> bool:
    """Whether the fit ended well without a single batch, though it was to have some."""
    wanted = trainer.max_epochs != 0 and trainer.max_steps != 0
    return wanted and not trainer.fit_loop.epoch_loop.batch_progress.total.ready


def _how_to_go_on(cli: _AutoCLI) -> str:
    if cli.auto.plan is None:
        return "the same line goes on with the search where it stood"
    checkpoint = _last_checkpoint(cli.trainer)
    anew = "the same line trains anew without new trials"
    return f"{anew}; to go on from the last checkpoint add --ckpt_path {_short(checkpoint)}" if checkpoint else anew


def _checkpoint(given: str | None) -> str | None:
    """`given`, looked at before anything is set up."""
    if given is None or given in _CHECKPOINT_WORDS or "://" in given or Path(given).is_dir():
        return given
    try:
        Path(given).open("rb").close()
    except OSError as error:
        raise ResumeError(f"the checkpoint {given} cannot be read ({error.strerror}); pass a .ckpt file") from error
    if not zipfile.is_zipfile(given):
        raise ResumeError(f"{given} is not a checkpoint; pass a .ckpt file that Lightning wrote")
    try:
        # Before 2.6 Lightning itself would unpickle whatever is in it.
        torch.load(given, map_location="cpu", weights_only=True, mmap=True)
    # torch raises what the file leads it to: RuntimeError, UnpicklingError, EOFError, ...
    except Exception as error:
        raise unreadable(given, error) from error
    return given


def _last_checkpoint(trainer: pl.Trainer) -> Path | None:
    files = [
        Path(path)
        for callback in trainer.checkpoint_callbacks
        for path in (getattr(callback, "last_model_path", ""), getattr(callback, "best_model_path", ""))
        if path and Path(path).exists()
    ]
    return max(files, key=lambda file: file.stat().st_mtime, default=None)


def _choice(plan: OptimizerPlan) -> Iterator[str]:
    """The explanation without profile, proposals and trials, which the search has just shown."""
    return takewhile(lambda line: line != "profile", plan.explain().splitlines())


def _short(path: Path) -> str:
    """Relative where that is shorter to read."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


@contextmanager
def _here_importable() -> Iterator[None]:
    """As with `python script.py`: modules in the current folder can be named in a config."""
    here = os.getcwd()  # noqa: PTH109  # sys.path holds strings
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


@contextmanager
def _passwords_unsaid() -> Iterator[None]:
    """What the parser prints (--help, --print_config) holds no password, not even one out of the environment."""
    said = io.StringIO()
    try:
        with redirect_stdout(said):
            yield
    finally:
        print(without_passwords(said.getvalue()), end="")


@contextmanager
def _sigint_restored() -> Iterator[None]:
    """Lightning ignores further Ctrl-C while it shuts down, and leaves it at that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _chatter_muted() -> Iterator[None]:
    """Lightning says nothing below a warning, and warnings are one line on stdout."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        # Advice on speed, and what only Lightning can mend.
        warnings.simplefilter("ignore", PossibleUserWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", message=r".*`tensorboardX` has been removed")
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
        warnings.showwarning = _one_line_warning
        try:
            for logger in loggers:
                logger.setLevel(logging.WARNING)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _one_line_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {' '.join(str(message).split())}")
