"""Identity: canonical typed JSON, sha256 keys and parts. Separate because planning needs nothing else.

`part()` names code by a dotted reference plus settings. It reads the file's syntax tree for the version, the legal
settings and their defaults and imports nothing, so that planning needs no torch; `resolve` imports, in a job.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import UserError, unknown

PARTS_PACKAGE = "methods.parts"
TREE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Part:
    """A piece of code and its settings, as data: printable, hashable, diffable.

    Attributes:
        ref: "module:name"; a module without a dot lives in methods/parts.
        version: the part's VERSION, or the sha256 of the file where it lies outside this tree.
        settings: the settings with defaults filled in.
        later: the defaults of the settings that its code lists as LATER.
    """

    ref: str
    version: str
    settings: Mapping[str, Any]
    later: Mapping[str, Any] = field(default_factory=dict)

    @property
    def in_key(self) -> Mapping[str, Any]:
        """The settings without those added later that are their default: as in keys from before these were added.

        `resolve` leaves these out as well, and the code uses its own default.
        """
        if not self.later:
            return self.settings
        dropped = {
            n for n, default in self.later.items() if n in self.settings and same_in_key(self.settings[n], default)
        }
        return {name: value for name, value in self.settings.items() if name not in dropped}

    def to_json(self) -> dict[str, Any]:
        return {"part": self.ref, "version": self.version, "settings": canonical(self.in_key)}

    def __str__(self) -> str:
        return f"{self.ref}({', '.join(f'{k}={v}' for k, v in self.settings.items())})"


@dataclass(frozen=True)
class StageRef:
    """A setting that is the result of a stage: the name of the input of the stage that uses the part."""

    name: str

    def to_json(self) -> dict[str, Any]:
        return {"input": self.name}


class Fixed(dict[str, Any]):
    """A mapping that does not change any more, so that its canonical text is made once.

    Thousands of stages of a plan share one detector; without it `plan` spent most of its time on that text.
    """

    @functools.cached_property
    def text(self) -> str:
        return _text(dict(self))


@dataclass(frozen=True)
class Signature:
    """From the syntax tree of a part: its version, legal settings, defaults, first docstring line.

    later: settings added after stores were filled (LATER): in a key only where they are not their default.
    """

    version: str
    settings: tuple[str, ...]
    defaults: Mapping[str, Any]
    summary: str
    later: tuple[str, ...] = ()


def canonical(value: Any) -> Any:
    """JSON-like form in which equal meaning has equal text: 1 and 1.0 agree, tuples are lists, keys are sorted.

    Raises:
        TypeError: a value that has no canonical form.
    """
    if isinstance(value, bool) or value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            return {"float": str(value)}
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, Part | StageRef):
        return value.to_json()
    if isinstance(value, Mapping):
        return {str(k): canonical(value[k]) for k in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [canonical(v) for v in value]
    if hasattr(value, "in_key"):  # a section (bench.spec)
        return canonical(value.in_key())
    if hasattr(value, "model_dump"):
        return canonical(value.model_dump())
    raise TypeError(f"no canonical form for {type(value).__name__}: {value!r}")


def plain(value: Any) -> Any:
    """The inverse of `canonical` for numbers that JSON has no text for (inf, nan); parts stay mappings."""
    if isinstance(value, dict):
        return float(value["float"]) if set(value) == {"float"} else {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list) else value


def digest(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of a value."""
    return hashlib.sha256(_text(value).encode()).hexdigest()


def same_in_key(one: Any, other: Any) -> bool:
    """Whether two values are the same in a key: 1 and 1.0, a tuple and a list are; 1 and True are not."""
    return _text(one) == _text(other)


def _text(value: Any) -> str:
    """`json.dumps(canonical(value))` without spaces, in one walk."""
    kind = type(value)
    if kind is str:
        return _quoted(value)
    if kind is int:
        return int.__repr__(value)
    if value is None or kind is bool:
        return "null" if value is None else "true" if value else "false"
    if isinstance(value, Fixed):
        return value.text
    if isinstance(value, dict):
        return "{" + ",".join([f"{_quoted(str(k))}:{_text(value[k])}" for k in sorted(value, key=str)]) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join([_text(v) for v in value]) + "]"
    if isinstance(value, Part):
        settings = _text(value.in_key)
        return f'{{"part":{_quoted(value.ref)},"settings":{settings},"version":{_quoted(value.version)}}}'
    return json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


_quoted = json.encoder.encode_basestring_ascii


def part(ref: str, **settings: Any) -> Part:
    """Name a piece of code: `part("group_softmax:GroupSoftmax", beta=8)`. Imports nothing.

    Raises:
        UserError: no such file or name, or a setting that the part does not have.
    """
    signature = signature_of(ref)
    for name in settings:
        if name not in signature.settings:
            raise unknown("setting", name, signature.settings, where=ref)
    later = {name: signature.defaults[name] for name in signature.later}
    return Part(ref, signature.version, {**signature.defaults, **settings}, later)


def resolve(spec: Part | Mapping[str, Any], inputs: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
    """Import what a part names (a Part, or its JSON form) and return it with its settings.

    Args:
        spec: the part.
        inputs: values of the settings that are results of stages, by input name; parts inside get theirs too.
    """
    spec = canonical(spec) if isinstance(spec, Part) else spec
    ref, settings = spec["part"], spec["settings"]
    module, _, name = ref.partition(":")
    if module.endswith(".py"):
        loaded = _import_file(Path(module), spec.get("version"))
    else:
        loaded = importlib.import_module(module if "." in module else f"{PARTS_PACKAGE}.{module}")
    return getattr(loaded, name), dict(_filled(plain(settings), inputs or {}))


def _filled(value: Any, inputs: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        if set(value) == {"input"} and value["input"] in inputs:
            return inputs[value["input"]]
        return {name: _filled(inner, inputs) for name, inner in value.items()}
    return [_filled(inner, inputs) for inner in value] if isinstance(value, list) else value


@functools.cache
def module_version(module: str) -> int:
    """VERSION of a module, read from its syntax tree: part of the keys of stages that run its code.

    Raises:
        UserError: no such module, or none with a VERSION (one of an engine that is installed).
    """
    path = _file_of_module(module)
    if not path.is_file():
        raise UserError(f"no module {module}", where=str(path))
    version = _version(ast.parse(path.read_text(encoding="utf-8"), filename=str(path)))
    if version is None:
        raise UserError(f"module {module} has no VERSION", where=str(path), hint="write `VERSION = 1` in it")
    return int(version)


def signature_of(ref: str) -> Signature:
    """Version, settings and defaults of a part, read from the syntax tree of its file."""
    module, _, name = ref.partition(":")
    path = _file_of(module, ref)
    return _read(path, path.stat().st_mtime_ns, name, ref)


def methods_of(ref: str) -> frozenset[str]:
    """Names of the methods that the classes of a part's file define, read from its syntax tree."""
    tree = ast.parse(_file_of(ref.partition(":")[0], ref).read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return frozenset(node.name for one in classes for node in one.body if isinstance(node, ast.FunctionDef))


@functools.cache
def _read(path: Path, _mtime: int, name: str, ref: str) -> Signature:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, filename=str(path))
    nodes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)}
    if name not in nodes:
        raise unknown("part", name, [n for n in nodes if not n.startswith("_")], where=str(path))
    node = nodes[name]
    names, defaults = _settings(node, path)
    inside = path.is_relative_to(TREE)
    version = (_version(node) or _version(tree)) if inside else _digest_of_file(text)
    if version is None:
        raise UserError(
            f"part '{ref}' has no VERSION", where=str(path), hint="write `VERSION = 1` in its class or file"
        )
    later = _later(tree, node, path)
    summary = (ast.get_docstring(node) or "").split("\n")[0]
    return Signature(version, names, defaults, summary, tuple(n for n in names if n in later))


def _settings(node: ast.ClassDef | ast.FunctionDef, path: Path) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Names and defaults of a part's settings: the keyword-only parameters; arguments that a stage passes at run time
    are positional.

    Raises:
        UserError: a default that is to be computed: the file is not run.
    """
    function: ast.AST = node
    if isinstance(node, ast.ClassDef):
        methods = {n.name: n for n in node.body if isinstance(n, ast.FunctionDef)}
        function = methods.get("__init__", node)
    if not isinstance(function, ast.FunctionDef):
        return (), {}
    pairs = list(zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True))
    defaults: dict[str, Any] = {}
    for argument, default in pairs:
        try:
            defaults |= {} if default is None else {argument.arg: ast.literal_eval(default)}
        except ValueError:
            raise UserError(
                f"the default of '{argument.arg}' is not written out", where=f"{path}:{argument.lineno} {node.name}",
                allowed="numbers, texts, None, tuples, lists and dicts of them: planning reads a part, it runs none",
            ) from None  # fmt: skip
    return tuple(argument.arg for argument, _ in pairs), defaults


def _later(tree: ast.Module, node: ast.ClassDef | ast.FunctionDef, path: Path) -> frozenset[str]:
    """The names in LATER of a part's class, or else of its file: settings added after stores were filled.

    Raises:
        UserError: it is no tuple of names of settings with a default.
    """
    own = _assigned(node, "LATER")
    holder, value = (node.name, own) if own is not None else (path.name, _assigned(tree, "LATER"))
    if value is None:
        return frozenset()
    nodes = [node] if own is not None else [n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
    legal = {name for one in nodes for name in _settings(one, path)[1]}
    where, allowed = f"{path}:{value.lineno} LATER of {holder}", ", ".join(sorted(legal)) or "nothing"
    try:
        names = ast.literal_eval(value)
    except ValueError:
        names = None
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        raise UserError("not a tuple of names", where=where, allowed='e.g. LATER = ("temperature",)')
    for name in names:
        if name not in legal:
            raise UserError(f"'{name}' is no setting with a default", where=where, allowed=allowed)
    return frozenset(names)


def _version(node: ast.ClassDef | ast.FunctionDef | ast.Module) -> str | None:
    value = _assigned(node, "VERSION")
    return None if value is None else str(ast.literal_eval(value))


def _assigned(node: ast.ClassDef | ast.FunctionDef | ast.Module, name: str) -> ast.expr | None:
    """The value that a class or file assigns to a name at its top level."""
    for statement in node.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
            if isinstance(target, ast.Name) and target.id == name:
                return statement.value
    return None


def _file_of(module: str, ref: str) -> Path:
    if module.endswith(".py"):
        path = Path(module).resolve()
    elif "." in module:
        path = _file_of_module(module)
    else:
        path = TREE / PARTS_PACKAGE.replace(".", "/") / f"{module}.py"
    if not path.is_file():
        legal = sorted(p.stem for p in (TREE / PARTS_PACKAGE.replace(".", "/")).glob("[a-z]*.py"))
        raise unknown("part file", module, legal, where=ref)
    return path


def _file_of_module(module: str) -> Path:
    """Of a module of this tree, or of what is installed beside it; where there is none, where it would be."""
    path = TREE / (module.replace(".", "/") + ".py")
    if not path.is_file():
        try:
            spec = importlib.util.find_spec(module)  # imports the parent package only
        except ModuleNotFoundError:
            spec = None
        path = Path(spec.origin) if spec and spec.origin else path
    return path


def changed_since(ref: str) -> UserError:
    """The error for a part outside this tree whose file is not the one that was planned with."""
    return UserError(
        "this file has changed since the stage was planned", where=ref,
        hint="run the suite again: it plans with the file as it is now; or put the old file back",
    )  # fmt: skip


def _import_file(path: Path, version: str | None) -> Any:
    """The module of a file. What runs is the text that has the digest: not a compiled copy that lies beside the file,
    nor what the file holds a moment later.

    Raises:
        UserError: the file is outside this tree and has another digest than `version`.
    """
    text = path.read_text(encoding="utf-8")
    found = _digest_of_file(text)
    if version is not None and len(version) == len(found) and found != version:
        raise changed_since(str(path))
    name = f"bench_part_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}_{found}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None, path
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            exec(compile(text, str(path), "exec"), vars(module))
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _digest_of_file(text: str) -> str:
    """The version of a part outside this tree; those inside have a small whole number."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
