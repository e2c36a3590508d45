"""Which methods there are: those of methods/, of entry points, of a suite's own files. Separate from bench/method.py,
which methods import, because it imports them.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.errors import UserError, unknown
from bench.method import Method
from bench.spec import FIGURES


def discover(extra: Sequence[Path] = ()) -> dict[str, type[Method]]:
    """All methods by name: methods/*.py, entry points "longtail_bench.methods", and files of a suite's methods_path.

    Raises:
        UserError: a file that cannot be imported, or two methods of one name.
    """
    import methods

    found: dict[str, type[Method]] = {}
    for module in pkgutil.iter_modules(methods.__path__):
        if not module.ispkg:
            collect(importlib.import_module(f"methods.{module.name}"), found)
    for entry in importlib.metadata.entry_points(group="longtail_bench.methods"):
        collect(sys.modules[entry.load().__module__], found)
    for path in extra:
        for file in sorted(path.glob("*.py")) if os.path.isdir(path) else [path]:
            collect(imported(file), found)
    return found


def method_named(name: str, known: Mapping[str, type[Method]], where: str) -> type[Method]:
    """The method class of a name, or the error that lists what there is."""
    if name not in known:
        raise unknown("method", name, known, where=where, hint="see: python -m bench methods")
    return known[name]


def collect(module: Any, found: dict[str, type[Method]]) -> None:
    """Add the methods that a module defines.

    Raises:
        UserError: one without a name or a plan, or of another's name.
    """
    for value in vars(module).values():
        if not (inspect.isclass(value) and issubclass(value, Method) and value.__module__ == module.__name__):
            continue
        file = str(inspect.getsourcefile(value))
        name = getattr(value, "name", None)
        if inspect.isabstract(value) and name is None:
            continue  # a base class of several methods
        if not isinstance(name, str) or inspect.isabstract(value):
            lacking = "plan" if isinstance(name, str) else "name"
            raise UserError(f"method class {value.__name__} has no {lacking}", where=file, hint="see: CONTRIBUTING.md")
        if found.get(name, value) is not value:
            raise UserError(f"two methods are called '{name}'", where=file)
        found[name] = value


def imported(file: Path, what: str = "method") -> Any:
    """A file of methods, or of what else a suite brings, as a module.

    Args:
        what: it has; also of the setting that names it, `methods_path`.

    Raises:
        UserError: no such file, or it cannot be imported.
    """
    spec = importlib.util.spec_from_file_location(f"bench_{what}_{file.stem}", file)
    if spec is None or spec.loader is None or not os.path.isfile(file):
        raise UserError(f"no such {what} file", where=str(file), hint=f"{what}s_path: a .py file or a folder of them")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"cannot be imported: {type(error).__name__}: {error}", where=str(file)) from error
    return module


def figure_files(extra: Sequence[Path]) -> dict[str, Path]:
    """Kind of figure -> the file of a suite's figures_path that draws it: the name of the file, without .py. Nothing is
    imported.

    Raises:
        UserError: no such file; one that has the name of a kind that there is; two of one name.
    """
    found: dict[str, Path] = {}
    for path in extra:
        for file in sorted(path.glob("*.py")) if os.path.isdir(path) else [path]:
            if not os.path.isfile(file) or file.suffix != ".py":
                hint = "figures_path: a .py file or a folder of them"
                raise UserError("no such figure file", where=str(file), hint=hint)
            if file.stem in FIGURES:
                raise UserError(f"there is a figure '{file.stem}' already", where=str(file), hint="rename the file")
            if found.get(file.stem, file) != file:
                raise UserError(f"two figures are called '{file.stem}'", where=f"{file}, {found[file.stem]}")
            found[file.stem] = file
    return found
