"""The text of code that can change a result, the same wherever the code stands. Separate from code_versions.py, which
says what code that is.

Left out: docstrings, comments, messages of errors, annotations, VERSION. Independent of where a module lies: an import
from our own packages is no text, and `module.name` of one is `name`; so moving or renaming a module changes nothing.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

OURS = ("bench", "methods", "reports")
WORDS_ONLY = ("__future__", "typing", "collections.abc")  # libraries of annotations


@dataclass(frozen=True)
class Code:
    """One file, normalised.

    Attributes:
        body: its statements, VERSION among them.
        definitions: name -> the statements that make it; "(statements)" are those that make no name.
        ours: name -> (module, name there) of what it imports from our own packages.
    """

    body: list[ast.stmt]
    definitions: Mapping[str, list[ast.stmt]]
    ours: Mapping[str, tuple[str, str]]
    _known: dict[str, list[tuple[str, str, list[str]]]] = field(default_factory=dict)

    def texts(self, name: str) -> list[tuple[str, str, list[str]]]:
        """(name, text, names it uses) of each statement that makes this name; "(imports)" for other packages' names."""
        if name not in self._known:
            self._known[name] = [
                (
                    "(imports)" if isinstance(node, ast.Import | ast.ImportFrom) else name,
                    ast.unparse(_without_version(node)),  # unlike dump the same in every Python
                    [n.id for n in ast.walk(node) if isinstance(n, ast.Name)],
                )
                for node in self.definitions.get(name, ())
            ]
        return self._known[name]

    @classmethod
    @functools.cache
    def of(cls, text: str, modules: frozenset[str]) -> Code:
        """Of a file's text; `modules`: the names of all modules of ours."""
        strip = _Strip(modules)
        tree = ast.parse(text)
        for node in ast.walk(tree):
            strip.note(node)
        tree = strip.visit(tree)
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        foreign = [one for one in strip.foreign if _names(one)[0].split(".")[0] in used]  # not by annotations alone
        made: dict[str, list[ast.stmt]] = {}
        for statement in (*foreign, *tree.body):
            for name in _names(statement):
                if name not in ("VERSION", "__all__"):
                    made.setdefault(name, []).append(statement)
        return cls(tree.body, made, strip.ours)


def modules(root: Path) -> frozenset[str]:
    """Dotted names of all our modules and packages below a folder."""
    files = [path.relative_to(root).with_suffix("") for name in OURS for path in (root / name).rglob("*.py")]
    return frozenset(".".join(path.parts).removesuffix(".__init__") for path in files)


def reached(
    start: Iterable[tuple[str, str]], codes: Mapping[str, Code], follow: Callable[[str], str | None]
) -> Iterator[tuple[str, str]]:
    """(name, text) of definitions and of all that they use, each once; "(imports)" are those from other packages.

    Args:
        start: (file, name) of the first ones.
        codes: file -> code.
        follow: module -> the file in which a name imported from it is followed, or None.
    """
    pending, seen = list(start), set()
    while pending:
        file, name = pending.pop()
        if (file, name) in seen:
            continue
        seen.add((file, name))
        code = codes[file]
        if name in code.ours and name not in code.definitions:
            module, original = code.ours[name]
            other = follow(module)
            pending += [] if other is None else [(other, original)]
        for label, text, uses in code.texts(name):
            yield label, text
            pending += [(file, one) for one in uses]


def digest_of(texts: Iterable[str]) -> str:
    """Of several definitions of one name, in an order that does not depend on their files."""
    return hashlib.sha256("\n".join(sorted(set(texts))).encode()).hexdigest()[:12]


def is_named(statement: ast.stmt, name: str) -> bool:
    """Whether a statement assigns to this name."""
    target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
    return isinstance(target, ast.Name) and target.id == name


def _names(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.ClassDef | ast.FunctionDef):
        return [statement.name]
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in statement.names]
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        names = [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
        return names or ["(statements)"]
    return ["(statements)"]


class _Strip(ast.NodeTransformer):
    """Drops what cannot change a result. `note` every node first: it learns what names mean."""

    def __init__(self, known: frozenset[str]) -> None:
        self._known = known
        self._modules: dict[str, str] = {}  # name in the file -> module of ours
        self._renamed: dict[str, str] = {}  # name in the file -> name where it comes from
        self.ours: dict[str, tuple[str, str]] = {}
        self.foreign: list[ast.stmt] = []

    def note(self, node: ast.AST) -> None:
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                self._note_one(node.module, alias)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                self.foreign.append(ast.Import([alias]))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in self._modules:
            self.ours.setdefault(node.attr, (self._modules[node.value.id], node.attr))

    def _note_one(self, module: str, alias: ast.alias) -> None:
        bound = alias.asname or alias.name
        if module.split(".")[0] not in OURS:
            if module not in WORDS_ONLY:
                self.foreign.append(ast.ImportFrom(module, [alias], 0))
        elif f"{module}.{alias.name}" in self._known:
            self._modules[bound] = f"{module}.{alias.name}"
        else:
            self.ours[alias.name] = (module, alias.name)
            if bound != alias.name:
                self._renamed[bound] = alias.name

    def visit_Import(self, node: ast.Import) -> None:
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id in self._modules:
            return ast.Name(node.attr, node.ctx)
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self._renamed.get(node.id, node.id), node.ctx)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        lone = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if lone else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        kind = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return ast.Raise(exc=None if kind is None else self.visit(kind), cause=None)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id.endswith("Error"):
            return ast.Call(node.func, [], [])
        return self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> ast.Assert:
        return ast.Assert(self.visit(node.test), None)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(node.arg)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.body = [_field(one) if isinstance(one, ast.AnnAssign) else one for one in node.body]
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        return None if node.value is None else ast.Assign([self.visit(node.target)], self.visit(node.value), lineno=0)


def _field(node: ast.AnnAssign) -> ast.stmt:
    """A field of a dataclass: its name, place and default count, and that it is one."""
    given = [] if node.value is None else [node.value]
    return ast.Expr(ast.Call(ast.Name("field", ast.Load()), [node.target, *given], []))


def _without_version(node: ast.stmt) -> ast.stmt:
    if not isinstance(node, ast.ClassDef):
        return node
    body = [statement for statement in node.body if not is_named(statement, "VERSION")]
    return ast.ClassDef(node.name, node.bases, node.keywords, body, node.decorator_list)
