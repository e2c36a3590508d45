"""What the documents say is true: links, commands, catalogues, the example of CONTRIBUTING, the packaging."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from bench.cli.app import app
from bench.cli.open import open_suite
from bench.contract_check.checks import CHECKS
from bench.contract_check.engine import ENGINE_CHECKS, OF_BASELINE
from bench.detection.contract import Context, HeadSpec, Taps, Targets
from bench.engines.facts import ENGINES
from bench.errors import UserError
from bench.plan import planning
from bench.plan.jobs import fused_groups
from bench.suite.catalogue import discover
from bench.suite.layers import PRESETS
from methods.parts.softmax import Softmax

TREE = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*TREE.glob("*.md"), *(f for d in ("docs", "methods", "suites") for f in (TREE / d).rglob("*.md"))])
SUITES = sorted((TREE / "suites").glob("*.yaml"))
COMMAND = re.compile(r"python -m bench [^`\n|]+")
ON_NO_INDEX = {"detectron2"}  # optional; the message that refuses it links upstream's installation
NOT_IMPORTED_BY_NAME = {"pillow": "PIL", "pyyaml": "yaml", "faster-coco-eval": "faster_coco_eval"}
BROUGHT_BY = {
    "sqlalchemy": "mlflow", "alembic": "mlflow", "pydantic_core": "pydantic",  # imported to name their errors
    "markupsafe": "jinja2",  # its type of text that is markup already
}  # fmt: skip
UNDECLARED = {"pycocotools", "cmaes"}  # lvis and Optuna's CMA-ES import them and do not say so


def text(name: str) -> str:
    return (TREE / name).read_text(encoding="utf-8")


def documented_commands() -> Iterator[tuple[str, str]]:
    """(document, command) of every complete `python -m bench ...` in the documents."""
    for document in DOCUMENTS:
        for found in COMMAND.findall(document.read_text(encoding="utf-8")):
            line = found.split(" #")[0].strip()
            if not re.search(r"\b(SUITE|NAME|DIR|FILE)\b", line):
                yield document.name, line


def blocks(document: str) -> dict[str, str]:
    """Title -> text of the code blocks that have a title."""
    return dict(re.findall(r"^```\w+ title=(\S+)\n(.*?)^```", text(document), re.MULTILINE | re.DOTALL))


def setup_lines() -> list[str]:
    return re.findall(r"^```\n(python3 -m venv .*?)\n```", text("README.md"), re.MULTILINE)


def parse(line: str) -> dict[str, Any]:
    """The values that the command line would hand to its function; fails as it would."""
    words = shlex.split(line)[3:]
    command: Any = typer.main.get_command(app)
    context = command.make_context("bench", list(words))
    while hasattr(command, "resolve_command"):
        name, command, words = command.resolve_command(context, list(words))
        context = command.make_context(name, list(words), parent=context)
    return dict(context.params)


def bench(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a documented command line, in a folder."""
    fixed = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(TREE), "COLUMNS": "200", "NO_COLOR": "1"}
    words = [sys.executable, *shlex.split(line)[1:]]
    return subprocess.run(words, capture_output=True, text=True, cwd=folder, env={**os.environ, **fixed, **environment})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(TREE)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:", "#")):
            assert (document.parent / target.split("#")[0]).exists(), target


@pytest.mark.parametrize(("document", "line"), sorted(set(documented_commands())))
def test_commands_are_understood(document: str, line: str) -> None:
    values = parse(line)
    preset = values.get("preset")
    assert preset is None or (PRESETS / f"{preset}.yaml").is_file()
    suite = values.get("suite")
    if suite is None or values.get("data") or not str(suite).startswith("suites/") or "bta=" in line:
        return
    options = {name: values[name] for name in ("preset", "sets", "only", "seeds") if values.get(name)}
    loaded = open_suite(TREE / suite, **options)
    assert planning.make(loaded).stages


def test_enough_commands_were_found() -> None:
    found = {parse(line).get("suite") is not None for _, line in documented_commands()}
    assert found == {True, False}
    assert len(set(documented_commands())) > 10


def test_the_error_that_the_readme_shows() -> None:
    shown = re.search(r"^\$ (python -m bench .*)\n(error: .*\n.*)\n```", text("README.md"), re.MULTILINE)
    assert shown is not None
    ended = bench(shown[1], TREE)
    assert (ended.returncode, ended.stderr.strip()) == (2, shown[2])


@pytest.mark.parametrize("suite", SUITES, ids=lambda s: str(s.stem))
def test_suites_load_plan_and_ask_a_question(suite: Path) -> None:
    loaded = open_suite(suite)
    plan = planning.make(loaded)
    assert {row.label for row in plan.rows} == {row.label for row in loaded.rows}
    comment = "".join(line[1:] for line in suite.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
    assert "?" in comment
    listed = re.search(rf"\[{re.escape(suite.name)}\]\({re.escape(suite.name)}\)", text("suites/README.md"))
    assert listed, f"suites/README.md does not list {suite.name}"


def test_presets_are_listed() -> None:
    listed = set(re.findall(r"\]\(_presets/([\w-]+)\.yaml\)", text("suites/README.md")))
    assert listed == {file.stem for file in PRESETS.glob("*.yaml")}


def test_two_commands_set_everything_up() -> None:
    lines = setup_lines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt -e ")
    assert "bench run suites/table1.yaml" in lines[0]
    assert ".[dev]" in lines[1]
    assert "-m pytest" in lines[1]


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = TREE / ".ci/run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    extract = next(line for line in script.read_text().splitlines() if line.startswith("tests="))
    found = subprocess.run(["bash", "-c", f'{extract}; echo "$tests"'], cwd=TREE, capture_output=True, text=True)
    assert found.stdout.strip() == setup_lines()[1].split("&&")[-1].strip()


def test_methods_are_all_in_the_catalogue() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \|.*\[[\w.]+\]\(([\w.]+)\) \|$", text("methods/README.md"), re.MULTILINE))
    files = {name: Path(inspect.getfile(method)).name for name, method in discover().items()}
    assert listed == files


def test_the_engines_that_a_method_runs_on() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| (yes|no) \|", text("methods/README.md"), re.MULTILINE))
    detr = ENGINES["detr"]
    assert listed == {name: "no" if detr.lacking(kind.needs) else "yes" for name, kind in discover().items()}
    assert not any(ENGINES["torchvision"].lacking(kind.needs) for kind in discover().values())


def test_parts_are_all_in_the_catalogue() -> None:
    listed = set(re.findall(r"`(\w+)`", text("methods/README.md").split("(parts/):")[1]))
    assert listed >= {file.stem for file in (TREE / "methods/parts").glob("[a-z]*.py")}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """The folder that CONTRIBUTING's example lives in."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for title, content in blocks("CONTRIBUTING.md").items():
        (folder / title).write_text(content, encoding="utf-8")
    return folder


def test_the_example_is_in_the_house_style(mine: Path) -> None:
    if importlib.util.find_spec("ruff") is None:
        pytest.skip("ruff is not installed")
    for words in (["check"], ["format", "--check"]):
        settings = ["--config", str(TREE / "pyproject.toml"), str(mine)]
        ended = subprocess.run([sys.executable, "-m", "ruff", *words, *settings], capture_output=True, text=True)
        assert ended.returncode == 0, ended.stdout


def test_the_example_is_planned_as_said(mine: Path) -> None:
    plan = planning.make(open_suite(mine / "adjusted.yaml"))
    trained = [stage for stage in plan.stages.values() if stage.kind == "train"]
    assert sorted(stage.spec["phase"] for stage in trained) == [0, 1, 1]
    assert [len(group) for group in fused_groups(plan, set(plan.stages))] == [2]


def test_the_example_computes_what_it_says(mine: Path) -> None:
    spec = importlib.util.spec_from_file_location("adjusted_parts", mine / "adjusted_parts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    head = HeadSpec(2, 4, (1, 1, 1), (8, 2), (8, 2), 10, (8, 2), (8, 2))
    taps = Taps(torch.zeros(1, 4))
    targets = Targets(torch.tensor([1]), torch.tensor([0]), [torch.tensor([1])], [torch.tensor([])], taps)
    context = Context(0, 0.0, torch.Generator())

    def loss(tau: float) -> float:
        classifier = module.AdjustedSoftmax(head, tau=tau)
        return float(classifier.loss(torch.zeros(1, 3), targets, context)["classification"].detach())

    # Logits 0; offsets 0, log(2/8), 0: p = (1/4) / (1 + 1/4 + 1) = 1/9.
    assert loss(1.0) == pytest.approx(float(torch.tensor(9.0).log()))
    plain = Softmax(head).loss(torch.zeros(1, 3), targets, context)["classification"]
    assert loss(0.0) == pytest.approx(float(plain.detach()))


@pytest.mark.slow
def test_the_example_runs(mine: Path, tmp_path: Path) -> None:
    found = [line for _, line in documented_commands() if "mine/" in line and "--seeds" not in line]
    lines = list(dict.fromkeys(found))
    wanted = {"check": "targets", "adjusted.yaml": "suite", "logit_adjusted": "path"}
    names = [next(name for word, name in wanted.items() if word in line) for line in lines]
    assert names == ["path", "targets", "suite", "suite"]
    assert all(parse(line)[name] for name, line in zip(names, lines, strict=True))
    for line in lines:
        ended = bench(line, tmp_path, BENCH_STORE=str(tmp_path / "store"))
        assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
        if "check" in line:
            assert "11 passed, 0 failed, 1 skipped" in ended.stdout
    row = next(line for line in ended.stdout.splitlines() if line.startswith("adjusted  "))
    assert re.search(r"\d+\.\d", row), ended.stdout


@pytest.mark.slow
def test_the_example_is_found_once_it_is_installed(mine: Path, tmp_path: Path) -> None:
    """What `pip install` makes of the pyproject.toml: the entry points beside the package, on the path."""
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    made = tmp_path / f"{project['name']}-{project['version']}.dist-info"
    made.mkdir()
    (made / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()) for group, points in groups]
    (made / "entry_points.txt").write_text("".join(lines))
    line = next(line for _, line in documented_commands() if line.endswith("check logit_adjusted"))
    ended = bench(line, tmp_path, PYTHONPATH=f"{TREE}{os.pathsep}{tmp_path}")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "logit_adjusted on torchvision" in ended.stdout


def test_the_checks_are_listed_as_they_are() -> None:
    table = text("CONTRIBUTING.md").split("| check | the promise |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [check.name for check in CHECKS]


def test_the_checks_of_an_engine_are_listed_as_they_are() -> None:
    table = text("CONTRIBUTING.md").split("| check | the promise |")[2].split("\n\n")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE) == [check.name for check in ENGINE_CHECKS]
    following = text("CONTRIBUTING.md").split("| check | the promise |")[2].split("\n\n")[1]
    assert tuple(re.findall(r"`(\w+)`", following))[: len(OF_BASELINE)] == OF_BASELINE


def test_an_edit_of_the_examples_part_is_another_stage(mine: Path) -> None:
    before = planning.make(open_suite(mine / "adjusted.yaml")).stages
    part = mine / "adjusted_parts.py"
    part.write_text(part.read_text().replace("tau: float = 1.0", "tau: float = 1.5"))
    os.utime(part, ns=(1, 1))
    after = planning.make(open_suite(mine / "adjusted.yaml")).stages
    changed = [stage.kind for key, stage in after.items() if key not in before]
    assert changed == ["train", "predict", "evaluate"]


def test_what_is_imported_is_declared() -> None:
    project = tomllib.loads(text("pyproject.toml"))["project"]
    optional = project["optional-dependencies"]["official"]
    declared = {re.split(r"[<>=!~\[]", d)[0].lower() for d in [*project["dependencies"], *optional]}
    importable = {NOT_IMPORTED_BY_NAME.get(name, name) for name in declared}
    ours = {"bench", "methods", "reports"}
    imported = set()
    for file in (f for folder in ours for f in (TREE / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            imported |= {name.split(".")[0] for name in names}
    foreign = imported - ours - set(sys.stdlib_module_names)
    assert foreign <= importable | BROUGHT_BY.keys() | ON_NO_INDEX
    assert set(BROUGHT_BY.values()) <= importable
    unused = importable - foreign - UNDECLARED
    assert not unused


def test_constraints_hold_versions_and_nothing_else() -> None:
    lines = [line for line in text("constraints.txt").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.!]+", line) for line in lines), "no hosts, paths or +builds"
    pinned = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in lines}
    project = tomllib.loads(text("pyproject.toml"))["project"]
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    names = {re.sub(r"[-_.]+", "-", re.split(r"[<>=!~\[]", d)[0]).lower() for d in wanted}
    assert names - {"longtail-bench"} <= pinned


def test_the_licence_is_whole() -> None:
    words = text("LICENSE").split()
    assert len(words) == 1581  # as apache.org's LICENSE-2.0.txt
    assert words[:2] == ["Apache", "License"]


def test_a_missing_methods_file_is_the_users_error(mine: Path) -> None:
    (mine / "adjusted.py").unlink()
    with pytest.raises(UserError, match="no such method file"):
        open_suite(mine / "adjusted.yaml")


def test_documents_name_no_machine() -> None:
    for file in [*DOCUMENTS, TREE / "pyproject.toml", TREE / ".ci/run"]:
        assert not re.search(r"/(?:work|root|home)/", file.read_text(encoding="utf-8")), file
