"""The house keeps its shape: imports go down, no circle, libraries stay in their rooms, files and functions stay small.

All of it reads syntax trees; only the tables of what is imported by name are imported.
"""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

# From the ground up: a file imports from its own room and from those before it in this list alone. README and
# CONTRIBUTING have them in the same order. `words` are the flat files of bench/, but for lineage.py, which stands above
# engines and data.
ROOMS: tuple[str, ...] = (
    "words",
    "detection",
    "engines",
    "store",
    "data",
    "evaluation",
    "lineage",
    "methods",
    "suite",
    "tracking",
    "plan",
    "run",
    "launch",
    "search",
    "contract_check",
    "reports",
    "cli",
)
FLAT = 15  # files at the top of bench/, at most; and rooms
# What may import a library; everything else in bench/, methods/ and reports/ may not.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "torchvision": ("bench.engines.torchvision",),
    "detectron2": ("bench.engines.detectron2",),
    "mlflow": ("bench.tracking.track", "bench.tracking.mirror", "bench.tracking.ui"),
    "optuna": ("bench.search",),
    "submitit": ("bench.launch.local", "bench.launch.slurm.slurm"),
    "lvis": ("bench.evaluation.official",),
    "pandas": ("reports",),
    "scipy": ("reports", "bench.engines.detr"),
    "seaborn": ("reports",),
    "matplotlib": ("reports", "bench.data.glyph_vocabulary"),  # the fonts that it ships are the glyphs
    "torch": (
        "bench.detection",
        "bench.data.loader",
        "bench.engines.torchvision",
        "bench.engines.detr",
        "bench.engines.detectron2",
        "bench.run",
        "bench.contract_check",
        "methods.parts",
    ),
    "jinja2": ("reports.page.render",),
    "typer": ("bench.cli",),
}
LINES_A_FILE, LINES_A_FUNCTION = 450, 80
PRODUCT = ("bench", "methods", "reports")


@dataclass(frozen=True)
class Module:
    """A file of the product and what it imports, wherever in the file the import stands."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def imports(self) -> set[str]:
        return {name for node in ast.walk(self.tree) for name in imported(node)}


def imported(node: ast.AST) -> Iterator[str]:
    """Dotted names that an import statement may load."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield inner if is_module(inner) else str(node.module)


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


@cache
def product() -> tuple[Module, ...]:
    found = []
    for package in PRODUCT:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found.append(Module(name, path, ast.parse(path.read_text(encoding="utf-8"), str(path))))
    assert len(found) > 60
    return tuple(found)


def room_of(module: str) -> str:
    """The room of a module of the product."""
    top, _, rest = module.partition(".")
    if top != "bench":
        return top
    inner = rest.partition(".")[0]
    if inner in ("", "__main__"):
        return "cli"
    if (ROOT / "bench" / inner).is_dir():
        return inner
    return "lineage" if inner == "lineage" else "words"


def below(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


BENCH = [m for m in product() if below(m.name, "bench")]


def test_a_file_imports_from_its_room_and_rooms_below_it() -> None:
    wrong = []
    for module in product():
        own = ROOMS.index(room_of(module.name))
        ours = (name for name in module.imports if name.partition(".")[0] in PRODUCT and name != "bench")
        wrong += [f"{module.name} imports {name}" for name in sorted(ours) if ROOMS.index(room_of(name)) > own]
    assert not wrong


def test_every_room_is_there_and_listed() -> None:
    there = {path.name for path in (ROOT / "bench").iterdir() if (path / "__init__.py").is_file()}
    assert there | {"words", "lineage", "methods", "reports"} == set(ROOMS)


def test_the_top_of_the_house_is_seen_at_a_glance() -> None:
    flat = sorted(path.name for path in (ROOT / "bench").glob("*.py"))
    assert len(flat) <= FLAT, flat
    assert len([room for room in ROOMS if (ROOT / "bench" / room).is_dir()]) <= FLAT


def rooms_told(path: Path, row: str) -> list[str]:
    """The rooms in the order in which a document has them, one to a line that fits."""
    lines = path.read_text(encoding="utf-8").split("## Rooms", 1)[1].split("\n## ", 1)[0].splitlines()
    return [found.group(1) for line in lines if (found := re.match(row, line)) and found.group(1) in ROOMS]


@pytest.mark.parametrize(("document", "row"), [("CONTRIBUTING.md", r"\| `(\w+)` \|"), ("README.md", r"(\w+) +\S")])
def test_the_documents_tell_the_same_order(document: str, row: str) -> None:
    assert rooms_told(ROOT / document, row) == list(ROOMS)


# -- circles


def imports_by_name() -> dict[str, set[str]]:
    """What files import when they run, from the tables of what there is: file -> modules.

    Left out are names that users give (parts, files of methods, entry points): which code those are is not ours to say.
    """
    from bench.data.formats import FORMATS
    from bench.engines.facts import ENGINES
    from bench.launchers import LAUNCHERS
    from bench.stage import KINDS

    kinds = {kind.module or f"bench.run.{kind.name}" for kind in KINDS.values()}
    engines = {engine.module for engine in ENGINES.values()}
    readers = {form.module for form in FORMATS.values()}
    return {
        "bench.run.job": kinds,
        "bench.run.follow": {"bench.run.train"},
        "bench.run.model": engines,
        "bench.run.predict": {engine.postprocess for engine in ENGINES.values()},
        "bench.run.data": readers,
        "bench.launch.places": {place.module for place in LAUNCHERS.values()},
        "bench.contract_check.place": engines,
        "bench.cli.open": engines | readers,
    }


BY_USERS = {"bench.key", "bench.suite.catalogue", "bench.contract_check.probe"}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others."""
    sorter = graphlib.TopologicalSorter(graph)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        return [error.args[1]]
    return []


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}}) != []


def test_no_file_imports_itself_through_others() -> None:
    """Wherever in a file an import stands, and by name too."""
    names = {module.name for module in product()}
    by_name = imports_by_name()
    graph = {
        module.name: {name for name in module.imports | by_name.get(module.name, set()) if name in names}
        - {module.name}
        for module in product()
    }
    assert by_name.keys() <= names
    assert set().union(*by_name.values()) <= names
    assert circles(graph) == []


def test_whoever_imports_by_name_is_known() -> None:
    users = {
        m.name
        for m in product()
        if any(isinstance(n, ast.Attribute) and n.attr == "import_module" for n in ast.walk(m.tree))
    }
    assert users == imports_by_name().keys() | BY_USERS


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_stays_in_its_room(library: str) -> None:
    users = {m.name for m in product() if any(below(name, library) for name in m.imports)}
    strangers = {user for user in users if not any(below(user, room) for room in LIBRARIES[library])}
    assert not strangers
    assert users, f"nothing imports {library}: the room can go"


def is_recipe(name: str) -> bool:
    return below(name, "methods") and not below(name, "methods.parts") and name != "methods"


def test_recipes_see_no_engine_no_disk_and_no_cluster() -> None:
    legal = ("bench.method", "bench.stage", "bench.spec", "pydantic", "typing", "collections", "abc", "__future__")
    legal = (*legal, *(module.name for module in product() if is_recipe(module.name)))  # one may build on another
    for module in product():
        if is_recipe(module.name):
            strange = {name for name in module.imports if not any(below(name, ok) for ok in legal)}
            assert not strange, f"{module.name} imports {strange}"


def test_parts_see_the_seam_and_nothing_above() -> None:
    legal = (
        "bench.detection.boxes",
        "bench.detection.contract",
        "bench.detection.focal",
        "bench.detection.losses",
        "bench.data.split",
        "bench.data.views",
        "bench.errors",
        "bench.frequency",
        "bench.seeds",
        "bench.spec",
    )
    for module in product():
        if below(module.name, "methods.parts"):
            strange = {n for n in module.imports if below(n, "bench") and not any(below(n, ok) for ok in legal)}
            assert not strange, f"{module.name} imports {strange}"


def test_reports_never_run_anything() -> None:
    illegal = ("bench.run", "bench.launch", "bench.engines.torchvision", "bench.contract_check", "bench.tracking.track")
    for module in product():
        if below(module.name, "reports"):
            strange = {name for name in module.imports if any(below(name, bad) for bad in illegal)}
            assert not strange, f"{module.name} imports {strange}"


# -- no cases


def words_of(node: ast.AST) -> set[str]:
    names = [n for n in ast.walk(node) if isinstance(n, ast.Name | ast.Attribute)]
    return {n.id if isinstance(n, ast.Name) else n.attr for n in names}


def is_text(node: ast.AST) -> bool:
    return any(isinstance(n, ast.Constant) and isinstance(n.value, str) for n in ast.walk(node))


def cases(tree: ast.Module) -> Iterator[int]:
    """Lines where an engine or a method is compared with a text: `engine == "x"`, `row.method.name in ("x", "y")`."""
    watched = {"engine", "method", "engine_name", "method_name"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Match) and words_of(node.subject) & watched:
            yield node.lineno
        if not isinstance(node, ast.Compare):
            continue
        sides = [node.left, *node.comparators]
        if isinstance(node.ops[0], ast.In | ast.NotIn) and is_text(node.left):
            sides = sides[1:]  # `"method" in value` asks for a key
        if any(words_of(side) & watched for side in sides) and any(is_text(s) and not words_of(s) for s in sides):
            yield node.lineno


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("if engine == 'torchvision': pass", True),
        ("x = 1 if row.method.name in ('bags', 'rfs') else 2", True),
        ("if 'bags' != method.name: pass", True),
        ("match detector.engine:\n  case 'a': pass", True),
        ("if 'method' not in value: pass", False),
        ("if engine.name not in known: pass", False),
        ("if detector.trunk == 'small': pass", False),
    ],
)
def test_cases_are_found(code: str, found: bool) -> None:
    assert bool(list(cases(ast.parse(code)))) is found


def test_there_is_no_if_engine_and_no_if_method() -> None:
    house = [module for module in product() if not below(module.name, "reports")]
    assert not [f"{module.path}:{line}" for module in house for line in cases(module.tree)]


# -- one port for all queues

COMMANDS = ("cli", "launch.submission", "launch.loop", "launch.local", "launch.launcher")
WORDS_OF_ONE_QUEUE = re.compile(r"Slurm|SLURM_|sbatch\b|scancel|squeue|scontrol|sacct|(?<!--cluster )\bslurm\b")


def queue_cases(tree: ast.Module) -> Iterator[int]:
    """Lines where the kind of a cluster, or of a note, is compared with a text: `cluster.kind == "x"`."""
    for node in ast.walk(tree):
        sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
        sides += [node.subject] if isinstance(node, ast.Match) else []
        texts = isinstance(node, ast.Match) or any(is_text(side) and not words_of(side) for side in sides)
        owners = {word for side in sides if "kind" in words_of(side) for word in words_of(side)}
        if texts and owners & {"cluster", "_cluster", "note", "notes", "settings", "facts"}:
            yield node.lineno


def queue_words(module: Module) -> Iterator[str]:
    """Texts that name one queue. Docstrings count of the functions whose help they are: `command`, `stop_command`."""
    documented = [n for n in ast.walk(module.tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)]
    documented = [n for n in documented if isinstance(n, ast.Module) or not n.name.endswith("command")]
    silent = [n.body[0].value for n in documented if ast.get_docstring(n) and isinstance(n.body[0], ast.Expr)]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = WORDS_OF_ONE_QUEUE.search(node.value)
            if named and node not in silent:
                yield f"{module.path}:{node.lineno} {named[0]}"


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("if cluster.kind == 'slurm': pass", True),
        ("if self._cluster.kind in ('slurm', 'lsf'): pass", True),
        ("match note.kind:\n  case 'slurm': pass", True),
        ("x = [n for n in notes if note.kind != 'slurm']", True),
        ("if stage.kind == 'train': pass", False),
        ("if note.kind == cluster.kind: pass", False),
    ],
)
def test_cases_of_queues_are_found(code: str, found: bool) -> None:
    assert bool(list(queue_cases(ast.parse(code)))) is found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("no Slurm answers", True), ("or scancel 7", True), ("kind: slurm", True), ("SLURM_JOB_ID", True),
        ("bench run a.yaml --cluster slurm", False), ("asks.sbatch_options", False),
    ],
)  # fmt: skip
def test_words_of_one_queue_are_found(text: str, found: bool) -> None:
    module = Module("bench.cli.stop", Path("stop.py"), ast.parse(f'"""Docs: Slurm."""\nsay({text!r})'))
    assert bool(list(queue_words(module))) is found


def test_no_command_knows_a_queue() -> None:
    """Commands ask bench/launch/launcher.py, and take their words from bench/launchers.py."""
    commands = [m for m in BENCH if any(below(m.name, f"bench.{name}") for name in COMMANDS)]
    assert len(commands) > len(COMMANDS)
    illegal = ("bench.launch.slurm",)
    assert not [(m.name, name) for m in commands for name in m.imports if any(below(name, bad) for bad in illegal)]
    assert not [f"{m.path}:{line}" for m in BENCH for line in queue_cases(m.tree)]
    assert not [words for module in commands for words in queue_words(module)]


# -- size


def test_no_file_is_over_its_budget() -> None:
    files = [path for package in (*PRODUCT, "tests") for path in sorted((ROOT / package).rglob("*.py"))]
    long = {str(p): n for p in files if (n := len(p.read_text(encoding="utf-8").splitlines())) > LINES_A_FILE}
    assert not long


def test_no_function_is_over_its_budget() -> None:
    functions = [
        (f"{module.name}.{node.name}", (node.end_lineno or 0) - node.lineno + 1)
        for module in product()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert len(functions) > 300
    assert not [(name, lines) for name, lines in functions if lines > LINES_A_FUNCTION]


def test_every_file_says_what_it_is() -> None:
    silent = [str(module.path) for module in product() if not ast.get_docstring(module.tree)]
    assert not silent
