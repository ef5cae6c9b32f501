"""The code that a training runs, as a digest: of a user's own classes and functions, and of what these name."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import sys
import sysconfig
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

# Whatever a package brings is known by its version; and what optselect brings beside its recipes is its own affair.
_OTHERS = frozenset({"torch", "lightning", "lightning_fabric", "pytorch_lightning", "torchmetrics", "builtins"})
_MOST = 500


def code_digest(roots: Iterable[Any]) -> str:
    """Names the code of these classes and functions, of their base classes, and of what they call by name.

    Comments, docstrings, the place in the file and the rest of the file do not count; nor does what a class attribute
    is set to later. What is installed or Python's own is left out.
    """
    texts: dict[int, tuple[str, str]] = {}
    queue = list(roots)
    while queue and len(texts) < _MOST:
        found = queue.pop(0)
        if isinstance(found, type):
            queue += [base for base in found.__bases__ if id(base) not in texts]
        if id(found) in texts or not is_users_own(found):
            continue
        texts[id(found)] = found.__qualname__, _text(found)
        queue += [each for each in _named_by(found) if id(each) not in texts]
    return hashlib.sha256(repr(sorted(texts.values())).encode(errors="replace")).hexdigest()[:12]


def is_users_own(value: Any) -> bool:
    """Whether `value` is a class or a function that neither Python nor an installed package brings."""
    if not isinstance(value, type | FunctionType):
        return False
    module = value.__module__ or ""
    package = module.partition(".")[0]
    if package == "optselect":
        return module.startswith("optselect.recipes.")
    if package in _OTHERS or (package in sys.stdlib_module_names and package != "__main__"):
        return False
    return not _installed(getattr(sys.modules.get(module), "__file__", None) or "")


def _installed(file: str) -> bool:
    return bool({"site-packages", "dist-packages"} & set(Path(file).parts)) or (
        bool(file) and Path(file).is_relative_to(sysconfig.get_path("stdlib"))
    )


def _text(value: Any) -> str:
    """Its source without what does not run; its instructions where there is no source to be had."""
    if isinstance(value, FunctionType) and value.__name__ == "<lambda>":
        return _instructions(value.__code__)  # the source of a lambda is the whole line around it
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(value)))
    except (OSError, TypeError, SyntaxError, ValueError):
        return repr([_instructions(function.__code__) for function in _functions(value)])
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        documented = isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and isinstance(body, list) and ast.get_docstring(node, clean=False) is not None:  # type: ignore[arg-type]  # narrowed above
            node.body = body[1:] or [ast.Pass()]  # type: ignore[attr-defined]  # as above
    return ast.unparse(tree)


def _instructions(code: CodeType) -> str:
    constants = [_instructions(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts]
    return repr((code.co_code.hex(), constants, code.co_names, code.co_varnames, code.co_freevars))


def _functions(value: Any) -> list[FunctionType]:
    """Itself, or the methods of a class, without what decorates them."""
    held = vars(value).values() if isinstance(value, type) else (value,)
    found: list[FunctionType] = []
    for each in held:
        inner = each.fget if isinstance(each, property) else getattr(each, "__func__", each)
        inner = getattr(inner, "func", inner) if isinstance(inner, functools.cached_property) else inner
        inner = inspect.unwrap(inner) if callable(inner) else inner
        found += [inner] if isinstance(inner, FunctionType) else []
    return found


def _named_by(value: Any) -> Iterator[Any]:
    """Find the user's own classes and functions that the code of `value` names: globals, and those of their modules."""
    for function in _functions(value):
        names = list(_names(function.__code__))
        for name in names:
            named = function.__globals__.get(name)
            if isinstance(named, ModuleType):
                # `losses.focal(…)` names the module and the function one after the other.
                yield from (each for inner in names if is_users_own(each := vars(named).get(inner)))
            elif is_users_own(named):
                yield named
        cells = (cell for cell in function.__closure__ or () if cell != type(cell)())
        yield from (cell.cell_contents for cell in cells if is_users_own(cell.cell_contents))


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _names(each)
