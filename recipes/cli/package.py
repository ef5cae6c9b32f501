"""Which of Lightning's two packages a command line is about: the one that its model is a class of."""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from optselect.callbacks.lightning_names import Lightning, installed, mixed, package_of
from optselect.errors import ConfigurationError

_SECTIONS = ("model", "data")


def package_in(arguments: Sequence[str]) -> Lightning:
    """Find the package of the model, or else of the data, in LightningCLI's `arguments`, configs and environment.

    LightningCLI itself is of one package and refuses what comes from the other, so it has to be known before. What
    cannot be found here is left for it to complain about. Raises `ConfigurationError` where model and data are of
    different packages.
    """
    paths = _class_paths(arguments)
    found = {what: package for what in _SECTIONS if (package := _package(paths.get(what))) is not None}
    if len(set(map(id, found.values()))) > 1:
        model, data = (f"{what}: {paths[what]}" for what in _SECTIONS)
        raise ConfigurationError(mixed(model, found["model"], data, found["data"]))
    return next(iter(found.values()), installed()[0])


def _class_paths(arguments: Sequence[str]) -> dict[str, str]:
    """Find the class that each section names; what comes later counts."""
    paths: dict[str, str] = {}
    for option, value in _options(arguments):
        if option == "config":
            content = _content(value, Path())
            sections = content if isinstance(content, Mapping) else {}
            folder = Path(value).parent
        else:
            sections, folder = {option.removesuffix(".class_path"): value}, Path()
        for what in sections.keys() & set(_SECTIONS):
            if (path := _class_path(sections[what], folder)) is not None:
                paths[what] = path
    return paths


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pair each option with the word that follows it, those of the environment first."""
    for name, value in os.environ.items():
        if name.startswith("OPTSELECT_"):
            yield name.removeprefix("OPTSELECT_").lower().replace("__", "."), value
    for word, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if word.startswith("-"):
            name, given, value = word.lstrip("-").partition("=")
            yield {"c": "config"}.get(name, name), value if given else following


def _class_path(value: Any, folder: Path) -> str | None:
    """Read what a section names: as a path, as a mapping with one, or as a file that holds either."""
    if isinstance(value, str):
        value = _content(value, folder)
    if isinstance(value, Mapping):
        value = value.get("class_path")
    return value if isinstance(value, str) else None


def _content(given: str, folder: Path) -> Any:
    """Read a file, or the text itself: LightningCLI takes both."""
    try:
        file = folder / given
        return yaml.safe_load(file.read_text(encoding="utf-8") if file.is_file() else given)
    except (OSError, UnicodeError, yaml.YAMLError):
        return None


def _package(path: str | None) -> Lightning | None:
    try:
        found = pkgutil.resolve_name(path) if path is not None else None
    except Exception:  # noqa: BLE001  # whatever the user's module raises: LightningCLI imports it again, and says it
        return None
    return package_of(found) if isinstance(found, type) else None
