"""A LightningCLI that adds AutoOptimizer to any config."""

from __future__ import annotations

import argparse
import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from jsonargparse.typing import PositiveInt
from torch.optim import Optimizer

from optselect.callbacks import AutoOptimizer
from optselect.callbacks.lightning_names import AnyCallback, Lightning, installed, lightning_of, made_for
from optselect.errors import ConfigurationError, OptselectError, nearest
from optselect.files import write_whole
from optselect.recipes.cli.input_errors import readable
from optselect.recipes.cli.package import package_in
from optselect.recipes.cli.surroundings import passwords_hidden
from optselect.words import without_passwords

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
else:
    LightningCLI = object  # at run time that of the model's package, by `made_for`


def build_cli(command: str, callback: type[AutoOptimizer], arguments: list[str]) -> AutoCLI:
    """Build the trainer, model and data of a command line, with a `callback` among them.

    Raises an `OptselectError` for what cannot be built.
    """
    lightning = package_in(arguments)
    try:
        return made_for(lightning.LightningCLI, AutoCLI)(command, callback, arguments, lightning)
    except OptselectError:
        raise
    except argparse.ArgumentError as error:
        said = readable(str(error))
        raise ConfigurationError(f"{said}{_meant(said, command)}; see optselect {command} --help") from error
    # What constructors raise for arguments they cannot take.
    except (lightning.MisconfigurationException, TypeError, ValueError, OSError, ImportError) as error:
        kind = "" if isinstance(error, lightning.MisconfigurationException) else f"{type(error).__name__}: "
        raise ConfigurationError(
            f"{kind}{readable(str(error))}; mend the config, or see the traceback with -v"
        ) from error


def parser_of(command: str) -> LightningArgumentParser:
    """Return the parser of `fit`, `tune`, `worker` or `profile`, for what asks about its options."""
    try:
        lightning = installed()[0]
        made_for(lightning.LightningCLI, _ParserAsked)(command, AutoOptimizer, [], lightning)
    except _ParserAsked.Answer as answer:
        parser: LightningArgumentParser = answer.args[0]
    return parser


class AutoCLI(LightningCLI):
    """Any module and data by import path, AutoOptimizer under `auto:`, the user's own under `optimizer:`."""

    auto: AutoOptimizer

    def __init__(self, command: str, callback: type[AutoOptimizer], arguments: list[str], lightning: Lightning) -> None:
        self._trains = command == "fit"
        self._command = command
        self._callback = callback
        self._lightning = lightning
        super().__init__(
            args=arguments,
            run=False,
            save_config_callback=_ConfigSaved if self._trains else None,  # type: ignore[arg-type]  # as a callback
            # Not a random one: weights are part of the study's name, so the same line would not go on.
            seed_everything_default=0,
            # Lightning would build the `optimizer:` once; each trial needs a fresh one.
            auto_configure_optimizers=False,
            parser_kwargs={
                "prog": f"optselect {command}",
                "usage": _USAGE[command],
                "exit_on_error": False,
                "description": _DESCRIPTION,
                # OPTSELECT_TRAINER__MAX_EPOCHS=3, and above all OPTSELECT_AUTO__STORAGE, which no `ps` shows.
                "default_env": True,
                "env_prefix": "OPTSELECT",
            },
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Take AutoOptimizer's arguments, those of an optimizer of the user's own, and what `fit` takes besides."""
        # As add_lightning_class_args does it, but for sub_configs: with them a plan or a storage that is a
        # file of JSON or YAML would be taken for the arguments of its class.
        parser.callback_keys.append("auto")
        parser.add_class_arguments(self._callback, "auto", instantiate=True, sub_configs=False)
        parser.add_optimizer_args((Optimizer,))
        parser.add_lr_scheduler_args(self._lightning.LRSchedulerTypeTuple)
        if self._command == "tune":
            parser.add_argument("--workers", type=PositiveInt, default=1, help="processes that share the search")
        if self._command == "worker":
            parser.add_argument("--storage", type=str | None, default=None, help="where the search is kept")
            parser.add_argument("--study", type=str | None, default=None, help="its name there; found without it")
        if self._trains:
            parser.add_argument("--plan", type=str | None, default=None, help="a plan.json; nothing is searched")
            parser.add_argument("--ckpt_path", type=str | None, default=None, help="a checkpoint to go on from")
            parser.add_argument(
                "--weights_only",
                type=bool | None,
                default=None,
                help="as Trainer.fit takes it: whether a checkpoint may hold nothing but tensors and builtins",
            )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Read the command line, the config and the environment."""
        # Lightning's own warns when sys.argv is not empty, which it never is here.
        # --help begins with what is ours; the trainer's and the classes' arguments are known from elsewhere.
        groups: Any = parser._action_groups  # noqa: SLF001  # argparse has no order of its own
        groups.sort(key=lambda group: any(each.dest.startswith("trainer.") for each in group._group_actions))  # noqa: SLF001
        own = [group for group in groups if any(each.dest.startswith("auto.") for each in group._group_actions)]  # noqa: SLF001
        groups[2:] = [*own, *(group for group in groups[2:] if group not in own)]
        with passwords_hidden():
            self.config = parser.parse_args(args)

    def before_instantiate_classes(self) -> None:
        """Put `--plan`, `--storage` and `--study` where AutoOptimizer takes them."""
        if not self._trains:
            # Nothing is trained, so nothing is to appear where trainings are logged.
            self.config.trainer.logger = False
        elif self.config.plan is not None:
            self.config.auto.plan = self.config.plan
        if self._command == "worker":
            for name, value in (("storage", self.config.storage), ("study_name", self.config.study)):
                if value is not None:
                    self.config.auto[name] = value

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Build the trainer. Raises `ConfigurationError` for one that has an AutoOptimizer already."""
        given = self.config_init.trainer.callbacks
        if any(isinstance(each, AutoOptimizer) for each in (given if isinstance(given, list) else [given])):
            raise ConfigurationError(
                "trainer.callbacks has an AutoOptimizer, and optselect adds one; remove it there and put its "
                "arguments under auto:"
            )
        # A logger that takes everything: modules may call self.logger.experiment.
        return super().instantiate_trainer(
            **kwargs if self._trains else {**kwargs, "logger": self._lightning.DummyLogger()}
        )

    def instantiate_classes(self) -> None:
        """Give the module the optimizer of the config, where there is one; Lightning has a hook for it since 2.6."""
        super().instantiate_classes()
        self.auto = self.config_init.auto
        if self.config.optimizer:
            own = functools.partial(
                _configured, self.model, self.config.optimizer.as_dict(), _as_dict(self.config.lr_scheduler)
            )
            vars(self.model)["configure_optimizers"] = own


class _ConfigSaved(AnyCallback):
    """The whole config beside the plan of a run, without passwords."""

    def __init__(self, parser: LightningArgumentParser, config: Any) -> None:
        self.parser = parser
        self.config = config

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # Without a logger there is no folder of the run's own, and a config.yaml that lies there is the user's.
        if not trainer.is_global_zero or not trainer.loggers or trainer.log_dir is None:
            return
        target = Path(trainer.log_dir) / "config.yaml"
        if not target.exists():
            write_whole(target, without_passwords(self.parser.dump(self.config)))


_USAGE = {
    "fit": "optselect fit --config FILE [--plan FILE] [--ckpt_path FILE] [--auto.KEY VALUE] [--trainer.KEY VALUE] …",
    "tune": "optselect tune --config FILE [--workers N] [--auto.KEY VALUE] [--trainer.KEY VALUE] …",
    "worker": "optselect worker --config FILE [--storage URL] [--study NAME] [--auto.KEY VALUE] …",
    "profile": "optselect profile --config FILE [--auto.monitor NAME] [--trainer.KEY VALUE] …",
}
_DESCRIPTION = (
    "FILE is a config of LightningCLI: model: and data: by import path, trainer: and auto: as below. "
    "optselect cp digits my.yaml gives one to start from."
)


def _meant(said: str, command: str) -> str:
    """Say which option was meant by one that there is none of, or that a config is passed by --config."""
    if "required: model" in said:
        return "; pass --config FILE"
    found = re.search(r"unrecognized arguments: (\S+)", said)
    if found is None:
        return ""
    given = found[1].partition("=")[0]
    if not given.startswith("-"):
        return f". Did you mean '--config {given}'?" if given.endswith((".yaml", ".yml", ".json")) else ""
    options = [each for action in parser_of(command)._actions for each in action.option_strings]  # noqa: SLF001
    within = [each for each in options if each.rpartition(".")[2] == given.lstrip("-")]
    return f".{nearest(given, within or options)}".rstrip(".") if not within else f". Did you mean {within[0]!r}?"


class _ParserAsked(AutoCLI):
    """Stops where the parser is whole: LightningCLI goes on in its constructor."""

    class Answer(Exception):  # noqa: N818  # no error: the way out of a constructor
        """Carries the parser."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> NoReturn:
        raise self.Answer(parser)


def _configured(module: pl.LightningModule, optimizer: dict[str, Any], scheduler: dict[str, Any] | None) -> Any:
    lightning = lightning_of(module)
    built = lightning.instantiate_class(module.parameters(), optimizer)
    return lightning.LightningCLI.configure_optimizers(
        module, built, lightning.instantiate_class(built, scheduler) if scheduler is not None else None
    )


def _as_dict(namespace: Any) -> dict[str, Any] | None:
    return namespace.as_dict() if namespace else None
