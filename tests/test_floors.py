"""The house keeps its shape: imports go down, libraries stay in their rooms, files and functions stay small.

Everything here reads syntax trees; nothing is imported.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

# From the ground up. A module imports only from floors below its own; inside a package named here (and marked with a
# star) its files may import each other.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "seeds", "frequency", "launchers"),  # F0
    ("environment", "key", "suite.yamlfile", "detection.taps"),
    ("spec",),
    ("engines.contract", "data.formats"),
    ("engines.torchvision.facts",),
    ("stage", "suite.validation", "store.disk", "record", "engines.facts"),  # F1
    (
        "method",
        "store.done",
        "store.events",
        "store.lease",
        "run.snapshot",
        "tracking.mirror",
        "suite.clusters",
        "launch.submitted",
    ),
    ("suite.catalogue",),
    ("suite.rows", "launch.requests"),
    ("suite.suite", "store.store", "lineage"),  # F2
    ("plan.cost",),
    (
        "plan.planning",
        "detection*",
        "evaluation*",
        "tracking.track",
    ),  # F3: a job may bring its curves to a server itself
    ("data*", "plan.forecast", "launch.submission"),
    ("engines.torchvision*",),  # F4
    ("run*",),  # F5
    ("launch.slurm*",),
    ("launch.loop", "crosscheck", "contract_check*"),  # F6
    ("tracking.ui", "terminal*"),
    ("gc", "control"),
    ("commands",),  # F7
    ("upkeep",),
    ("cli",),
    ("__main__",),
)
# What may import a library; everything else in bench/, methods/ and reports/ may not.
ROOMS: dict[str, tuple[str, ...]] = {
    "torchvision": ("bench.engines.torchvision",),
    "detectron2": ("bench.engines.detectron2",),
    "mlflow": ("bench.tracking.track", "bench.tracking.mirror", "bench.tracking.ui"),
    "optuna": ("bench.search",),
    "submitit": ("bench.launch.local", "bench.launch.slurm.slurm"),
    "lvis": ("bench.evaluation.official",),
    "pandas": ("reports",),
    "scipy": ("reports",),
    "seaborn": ("reports",),
    "matplotlib": ("reports", "bench.data.glyph_vocabulary"),  # the fonts that it ships are the glyphs
    "torch": (
        "bench.detection",
        "bench.data.loader",
        "bench.engines.torchvision",
        "bench.run",
        "bench.contract_check",
        "methods.parts",
    ),
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


def floor_of(module: str) -> tuple[int, str]:
    """(number of the floor, entry of FLOORS) of a module of bench."""
    inner = module.removeprefix("bench").removeprefix(".")
    for number, entries in enumerate(FLOORS):
        for entry in entries:
            name = entry.removesuffix("*")
            if inner == name or (entry.endswith("*") and inner.startswith(f"{name}.")):
                return number, entry
    raise AssertionError(f"{module} is on no floor: add it to FLOORS in {__file__}")


def below(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


BENCH = [m for m in product() if below(m.name, "bench") and m.name not in ("bench", "bench.engines")]


@pytest.mark.parametrize("module", BENCH, ids=lambda m: m.name)
def test_a_file_imports_from_lower_floors_only(module: Module) -> None:
    floor, entry = floor_of(module.name)
    for name in sorted(module.imports):
        if not below(name, "bench") or name == "bench":
            continue
        other, entry_of_other = floor_of(name)
        inside = entry == entry_of_other and entry.endswith("*")
        assert other < floor or inside, f"{module.name} (floor {floor}) imports {name} (floor {other})"


def test_every_floor_exists() -> None:
    for entry in (entry.removesuffix("*") for entries in FLOORS for entry in entries):
        assert is_module(f"bench.{entry}"), f"FLOORS names bench.{entry}, which is not there"


@pytest.mark.parametrize("library", ROOMS)
def test_a_library_stays_in_its_room(library: str) -> None:
    users = {m.name for m in product() if any(below(name, library) for name in m.imports)}
    strangers = {user for user in users if not any(below(user, room) for room in ROOMS[library])}
    assert not strangers
    if library not in ("detectron2", "optuna", "pandas"):  # these rooms are not built yet, or stand empty
        assert users, f"nothing imports {library}: the room can go"


def test_recipes_see_no_engine_no_disk_and_no_cluster() -> None:
    legal = ("bench.method", "bench.stage", "bench.spec", "pydantic", "typing", "collections", "__future__")
    for module in product():
        if below(module.name, "methods") and not below(module.name, "methods.parts") and module.name != "methods":
            strange = {name for name in module.imports if not any(below(name, ok) for ok in legal)}
            assert not strange, f"{module.name} imports {strange}"


def test_parts_see_the_seam_and_nothing_above() -> None:
    legal = (
        "bench.detection.contract",
        "bench.data.split",
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
    illegal = (
        "bench.run",
        "bench.launch.loop",
        "bench.launchers",
        "bench.engines.torchvision",
        "bench.cli",
        "bench.tracking.track",
    )
    for module in product():
        if below(module.name, "reports"):
            strange = {name for name in module.imports if any(below(name, bad) for bad in illegal)}
            assert not strange, f"{module.name} imports {strange}"


def test_only_commands_look_up_at_the_reports() -> None:
    users = {m.name for m in BENCH if any(below(name, "reports") for name in m.imports)}
    assert users == {f"bench.cli.{name}" for name in ("open", "report", "run", "sync")}


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

COMMANDS = ("cli", "launch.loop", "launch.submission")
OF_ONE_QUEUE = ("slurm",)  # rooms of bench/launch
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
    illegal = tuple(f"bench.launch.{name}" for name in OF_ONE_QUEUE)
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
