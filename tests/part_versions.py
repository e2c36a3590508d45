"""Which code each part version stands for. Separate from the test because it is a command too.

A result in a store is found again by the VERSION of the parts that made it. If a part's code changes and its version
does not, old results pass for new ones. So part_versions.json keeps a digest of each part's code beside its version: of
its syntax tree without docstrings, comments, error messages and VERSION, together with all that it uses from its own
file, from other part files and from bench/frequency.py.

    python -m tests.part_versions [--update]
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
RECORD = Path(__file__).with_suffix(".json")
PARTS = "methods.parts"
FOLLOWED = (PARTS, "bench.frequency")  # modules whose code can change what a part computes


@dataclass(frozen=True)
class Entry:
    """A part's VERSION and the digest of the code it stands for."""

    version: str
    digest: str


def current(tree: Path = TREE) -> dict[str, Entry]:
    """ "module:name" -> version and digest of every part below `tree`."""
    modules = _Modules(tree)
    entries = {}
    for path in sorted((tree / PARTS.replace(".", "/")).glob("[a-z]*.py")):
        module = f"{PARTS}.{path.stem}"
        for name, node in modules.definitions(module).items():
            if name.startswith("_") or not isinstance(node, ast.ClassDef | ast.FunctionDef):
                continue
            version = _version(node) or _version(modules.tree(module))
            if version is not None:
                entries[f"{path.stem}:{name}"] = Entry(version, modules.digest(module, name))
    return entries


def recorded(path: Path = RECORD) -> dict[str, Entry]:
    """What part_versions.json says."""
    return {ref: Entry(**value) for ref, value in json.loads(path.read_text()).items()}


def complaints(was: Mapping[str, Entry], now: Mapping[str, Entry]) -> Iterator[str]:
    """One line for each part whose version no longer stands for the recorded code."""
    update = "run `python -m tests.part_versions --update`"
    for ref in sorted(was.keys() | now.keys()):
        if ref not in now:
            yield f"{ref}: recorded, but gone; {update}"
        elif ref not in was:
            yield f"{ref}: a new part; {update}"
        elif now[ref].version != was[ref].version:
            yield f"{ref}: VERSION {was[ref].version} became {now[ref].version}; {update}"
        elif now[ref].digest != was[ref].digest:
            yield (
                f"{ref}: its code (or code it uses) changed, its VERSION {now[ref].version} did not. "
                "If results can change, raise VERSION, so that no old result passes for a new one; "
                f"then (or if they cannot) {update}"
            )


class _Modules:
    """The syntax trees of the followed modules, read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._trees: dict[str, ast.Module] = {}

    def tree(self, module: str) -> ast.Module:
        if module not in self._trees:
            path = self._root / (module.replace(".", "/") + ".py")
            self._trees[module] = _Strip().visit(ast.parse(path.read_text(encoding="utf-8")))
        return self._trees[module]

    def definitions(self, module: str) -> dict[str, ast.stmt]:
        """Top-level name -> the statement that makes it."""
        made: dict[str, ast.stmt] = {}
        for node in self.tree(module).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                made[node.name] = node
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                made |= {t.id: node for t in targets if isinstance(t, ast.Name)}
            elif isinstance(node, ast.ImportFrom | ast.Import):
                made |= {alias.asname or alias.name: node for alias in node.names}
        return made

    def digest(self, module: str, name: str) -> str:
        """Of the definition and of all it reaches, in an order that does not depend on where they stand."""
        pending = [(module, name)]
        texts: dict[tuple[str, str], str] = {}
        while pending:
            where, what = pending.pop()
            node = self.definitions(where).get(what)
            if node is None or (where, what) in texts:
                continue
            if isinstance(node, ast.ImportFrom | ast.Import):
                source = getattr(node, "module", None) or ""
                original = next(a.name for a in node.names if (a.asname or a.name) == what)
                texts[where, what] = f"{source}:{original}"
                if source in FOLLOWED or source.startswith(f"{PARTS}."):
                    pending.append((source, original))
                continue
            texts[where, what] = ast.unparse(_without_version(node))  # unlike dump the same in every Python
            pending += [(where, n.id) for n in ast.walk(node) if isinstance(n, ast.Name)]
        whole = "\n".join(f"{key}: {text}" for key, text in sorted(texts.items()))
        return hashlib.sha256(whole.encode()).hexdigest()[:16]


class _Strip(ast.NodeTransformer):
    """Drops what cannot change a result: docstrings (all statements that are a lone string) and what an error says."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        lone = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if lone else node

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        return ast.Raise(exc=None, cause=None)


def _without_version(node: ast.stmt) -> ast.stmt:
    if not isinstance(node, ast.ClassDef):
        return node
    body = [statement for statement in node.body if not _is_version(statement)]
    return ast.ClassDef(node.name, node.bases, node.keywords, body, node.decorator_list)


def _is_version(statement: ast.stmt) -> bool:
    target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
    return isinstance(target, ast.Name) and target.id == "VERSION"


def _version(node: ast.ClassDef | ast.FunctionDef | ast.Module) -> str | None:
    values = [s.value for s in node.body if isinstance(s, ast.Assign | ast.AnnAssign) and _is_version(s)]
    return str(ast.literal_eval(values[0])) if values and values[0] is not None else None


def main(arguments: list[str]) -> int:
    """Compare, or with --update rewrite the record. Exit status 1 when they differ."""
    now = current()
    if arguments == ["--update"]:
        RECORD.write_text(json.dumps({ref: vars(entry) for ref, entry in now.items()}, indent=1, sort_keys=True) + "\n")
        print(f"{RECORD.name}: {len(now)} parts")
        return 0
    lines = list(complaints(recorded(), now))
    print("\n".join(lines) or f"{len(now)} parts as recorded")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
