"""YAML -> Suite. Separate from spec.py (the typed sections): it reads, puts layers together (bench/suite/layers.py) and
names the line of an error.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from bench.data.formats import FORMATS, SplitName
from bench.engines.contract import CLASSIFIER
from bench.engines.facts import facts, only_classifier
from bench.environment import masked
from bench.errors import UserError, unknown
from bench.key import Fixed, Part, module_version, part
from bench.method import Builder, Usual
from bench.spec import FIGURES, SEARCH_FIGURES, FolderData, GeneratedData, Schedule
from bench.stage import Stage
from bench.suite import yamlfile
from bench.suite.catalogue import discover, figure_files
from bench.suite.layers import MOVED, apply_set, merge, preset_named
from bench.suite.rows import MOST_ROWS, Row, check_control, check_rows, merged_schedule, rows_of_only
from bench.suite.search import Space, check_search
from bench.suite.sections import SCHEDULES, Sections, check_rate_groups, check_sections
from bench.suite.seeds import seeds_text
from bench.suite.tuning import Tuning, divided

_TORCHVISIONS = re.compile(r"[a-z0-9_]+-[0-9a-f]{8}\.pth")  # how torchvision names the files of its weights


@dataclass(frozen=True)
class Source:
    """Passed in from higher levels, so as not to import them: fingerprints of folder data, engine versions."""

    fingerprint: Callable[[FolderData, SplitName], str]
    engine_version: Callable[[str], int]


@dataclass(frozen=True)
class Suite:
    """A validated suite; also the `Plannable` that recipes are planned on."""

    name: str
    path: Path
    sections: Sections
    rows: tuple[Row, ...]
    document: yamlfile.Document
    source: Source
    notes: tuple[str, ...] = ()
    methods_path: tuple[Path, ...] = ()
    figures_path: tuple[Path, ...] = ()
    set_aside: tuple[Row, ...] = ()  # rows of the file that --only leaves out
    options: tuple[str, ...] = ()  # of the command line, those that change the table
    space: Space | None = None  # of `search:`
    division: Tuning | None = None
    """Of a search: it trains and measures on two parts of the training images, and val is not used."""

    @property
    def changed(self) -> bool:
        """Whether options have changed the file's table."""
        return bool(self.options)

    @property
    def heading(self) -> str:
        """The heading of its tables and caption of its figures: its name, and its title where it has one."""
        return f"{self.name}: {self.sections.title}" if self.sections.title else self.name

    def command(self, verb: str, store: Path, *more: str) -> str:
        """The command line for a command on this table in a store."""
        where = [] if str(store) == "store" else ["--store", str(store)]
        return shlex.join(["python", "-m", "bench", verb, str(self.path), *where, *map(masked, (*self.options, *more))])

    @property
    def controls(self) -> dict[str, str]:
        """Label of a row -> label of the one that it has to beat, where --only keeps both."""
        labels = {row.label for row in self.rows}
        pairs = ((row.label, row.against) for row in self.rows)
        return {label: control for label, control in pairs if control in labels and control not in (None, label)}

    @property
    def verb(self) -> str:
        """The command that brings a store to it."""
        return "run" if self.sections.search is None else "search"

    def options_without(self, *names: str) -> list[str]:
        """The options of the command line that change the table, those of these names left out."""
        pairs = zip(self.options[::2], self.options[1::2], strict=True)
        return [word for name, value in pairs if name not in names for word in (name, value)]

    def of(self, row: Row) -> Suite:
        """The suite of a row: with the row's own data and detector, where it has some."""
        own = {name: value for name in ("data", "detector") if (value := getattr(row, name)) is not None}
        return replace(self, sections=self.sections.model_copy(update=own)) if own else self

    def schedule_named(self, name: str, usual: Usual | None = None) -> Schedule:
        """The base schedule, as `usual` changes it, with the changes that `stages:` has under a name, if any."""
        base = self.sections.schedule
        changes = {} if name == "base" else self.sections.stages.get(name, {})
        if name == "tune" and not changes:
            changes = _tuned(base)
        where = f"{self.document.where('stages', name)} stages.{name}"
        return merged_schedule(base if usual is None else usual.of(base), changes, where)

    def schedule_changed(self, schedule: Schedule, own: Mapping[str, Any]) -> Schedule:
        """A schedule with the changes of a row."""
        changed = merged_schedule(schedule, own, f"{self.path} rows")
        check_rate_groups(changed, self.sections.detector.engine, f"{self.path} rows")
        return changed

    def check_schedules(self, asked: Collection[str]) -> None:
        """Refuse a name below `stages:` that no recipe of the suite uses.

        Raises:
            UserError: with the line.
        """
        legal = sorted({*SCHEDULES, *asked} - {"base"})
        for name in self.sections.stages:
            if name not in legal:
                where = f"{self.document.where('stages', name)} stages"
                raise unknown("schedule", name, legal, where=where, hint="a row's method asks for it by name")

    @property
    def measured_on(self) -> str:
        """The split that its rows are evaluated on, as it is called where one reads it."""
        return "val" if self.division is None else "tune"

    def start(self, seed: int) -> tuple[Stage, tuple[str, ...]] | None:
        """The trained baseline that a training without another begins from, and the groups that it takes of it.

        Raises:
            UserError: a group that one of the two engines lacks.
        """
        wanted = self.sections.detector.start
        if wanted is None:
            return None
        for group in wanted.groups:
            both = [name for name in self.below if name in self._before.below]
            if group not in both:
                where = f"{self.document.where('detector', 'start')} detector.start.groups"
                raise unknown("parameter group", group, both, where=where)
        return Builder(self._before, seed).train(), wanted.groups

    @cached_property
    def _before(self) -> Suite:
        """The suite of that baseline: a preset's settings on this suite's data."""
        wanted = self.sections.detector.start
        assert wanted is not None
        where = self.document.where("detector", "start")
        tree, documents = preset_named(wanted.preset, f"{where} detector.start.preset")
        own = {name: value for name, value in tree.items() if name in ("detector", "input", "schedule", "stages")}
        found = check_sections(own, documents[0])
        if found.detector.start is not None:
            what = f"preset '{wanted.preset}' itself begins from another model"
            raise UserError(what, where=f"{where} detector.start.preset", hint="name the preset that it begins from")
        schedule = found.schedule if wanted.steps is None else found.schedule.model_copy(update={"steps": wanted.steps})
        same = {"data": self.sections.data, "test": self.sections.test, "machine": self.sections.machine}
        return replace(self, sections=found.model_copy(update={**same, "schedule": schedule}))

    def data_stage(self, split: Literal["train", "val"], seed: int) -> Stage:
        """The data stage of a split; its key holds only what the split depends on.

        With a division: what a model is trained on in place of train, and what it is measured on in place of val.
        """
        if self.division is None:
            return self._whole_split(split, seed)
        side: Literal["rest", "tune"] = "rest" if split == "train" else "tune"
        if (side, seed) not in self._data_stages:
            self._data_stages[side, seed] = divided(self._whole_split("train", seed), side, self.division)
        return self._data_stages[side, seed]

    def _whole_split(self, split: Literal["train", "val"], seed: int) -> Stage:
        if (split, seed) not in self._data_stages:
            self._data_stages[split, seed] = self._data_stage(split, seed)
        return self._data_stages[split, seed]

    @cached_property
    def _data_stages(self) -> dict[tuple[str, int], Stage]:
        return {}

    def _data_stage(self, split: Literal["train", "val"], seed: int) -> Stage:
        data = self.sections.data
        form = FORMATS[data.name]
        spec = {"data": form.in_key(data, split), "split": split, "reader": module_version(form.version)}
        if isinstance(data, GeneratedData):
            return Stage("data", spec | {"seed": seed if data.seed == "follow" else data.seed})
        source = {"source": data.model_dump()}
        return Stage("data", spec | {"fingerprint": self._fingerprints[split]}, not_in_key=source)

    def train_spec(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """(what every train stage of this suite has in its key, what its job needs besides)."""
        return dict(self._train_spec), {"weights_path": str(self.weights_file) if self.weights_file else None}

    @cached_property
    def _train_spec(self) -> dict[str, Any]:
        s = self.sections
        return {
            "engine": Fixed(name=s.detector.engine, version=self.source.engine_version(s.detector.engine)),
            "detector": Fixed(s.detector.in_key()),
            "weights": self._weights_digest,
            "input": Fixed(s.input.in_key()),
            "augment": module_version("bench.data.augment"),
            "bins": list(s.test.bins),
            **s.machine.in_key(),
        }

    @property
    def groups(self) -> tuple[str, ...]:
        """Parameter groups of the engine that a stage may train."""
        return facts(self.sections.detector.engine).groups

    @property
    def below(self) -> tuple[str, ...]:
        """Those of them that are not of the classifier."""
        return tuple(group for group in self.groups if group != CLASSIFIER)

    @property
    def projector(self) -> tuple[str, ...]:
        """Those between the backbone and all that is not of one class."""
        return facts(self.sections.detector.engine).projector

    @property
    def head(self) -> tuple[str, ...]:
        """Those that make the features of RoIs or queries."""
        return facts(self.sections.detector.engine).head

    @property
    def judges(self) -> tuple[str, ...]:
        """The classifier, and what must learn with it."""
        return facts(self.sections.detector.engine).judges

    def classifier(self, wanted: Part | None) -> Part:
        """The engine's classifier in place of one that a recipe names, or names not."""
        ref, settings = (None, {}) if wanted is None else (wanted.ref, wanted.settings)
        found, own = facts(self.sections.detector.engine).classifier(self.sections.detector, ref, settings)
        return wanted if wanted is not None and found == ref else part(found, **own)

    def only_classifier(self, trainable: Sequence[str]) -> bool:
        """Whether a stage that trains these groups leaves everything below the classifier unchanged."""
        return only_classifier(trainable, self.groups)

    def evaluated(self, model: Stage, seed: int) -> Stage:
        """The evaluate stage of a model: predict on val (of a search: on `tune`), then AP and accuracy."""
        s = self.sections
        val = self.data_stage("val", seed)
        spec = self.test_spec() | {"postprocess": module_version(facts(s.detector.engine).postprocess)}
        predict = Stage("predict", spec, {"model": model, "val": val})
        protocol = {
            "max_detections": s.test.max_detections,
            "bins": list(s.test.bins),
            "evaluator": module_version("bench.evaluation.ap"),
        }
        return Stage("evaluate", protocol, {"predict": predict, "val": val, "train": self.data_stage("train", seed)})

    def test_spec(self) -> dict[str, Any]:
        """How images are read for a finished model: what predict and fit stages have in their keys."""
        return dict(self._test_spec)

    @cached_property
    def _test_spec(self) -> dict[str, Any]:
        s = self.sections
        return {
            "test": Fixed(s.test.in_key()),
            "input": Fixed(s.input.in_key(without=s.input.AUGMENTATION)),
            "precision": s.machine.precision,
            "augment": module_version("bench.data.augment"),
        }

    @cached_property
    def _fingerprints(self) -> dict[str, str]:
        data = self.sections.data
        assert isinstance(data, FolderData)
        splits: tuple[SplitName, SplitName] = ("train", "val")
        return {split: self.source.fingerprint(data, split) for split in splits}

    @cached_property
    def weights_file(self) -> Path | None:
        """The file that `detector.weights` names. A bare file name is also searched for in the usual folders.

        Raises:
            UserError: it was not found.
        """
        name = self.sections.detector.weights
        if name is None:
            return None
        places = [Path(name), *(folder / name for folder in self._weights_folders() if Path(name).name == name)]
        found = next((place for place in places if os.path.isfile(place)), None)
        if found is None:
            where = f"{self.document.where('detector', 'weights')} detector.weights {name}"
            looked = f"; looked in {', '.join(str(place.parent) for place in places)}" if len(places) > 1 else ""
            hint = "give a path, set BENCH_WEIGHTS to its folder, or null to train from scratch"
            if _TORCHVISIONS.fullmatch(name):
                hint = f"get https://download.pytorch.org/models/{name} into {places[-1].parent}, or {hint}"
            raise UserError(f"no such weights file{looked}", where=where, hint=hint)
        return found

    def _weights_folders(self) -> list[Path]:
        """$BENCH_WEIGHTS, a folder `weights` beside the data or one above, torch's own download cache."""
        own = os.environ.get("BENCH_WEIGHTS")
        data = self.sections.data
        beside = list(Path(data.path).resolve().parents)[:2] if isinstance(data, FolderData) else []
        home = Path(os.environ.get("TORCH_HOME") or Path.home() / ".cache" / "torch")
        return [*([Path(own)] if own else []), *(p / "weights" for p in beside), home / "hub" / "checkpoints"]

    @cached_property
    def _weights_digest(self) -> str | None:
        return None if self.weights_file is None else hashlib.sha256(self.weights_file.read_bytes()).hexdigest()


def load(
    path: Path,
    *,
    source: Source,
    preset: str | None = None,
    data: str | None = None,
    sets: Sequence[str] = (),
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    against: str | None = None,
) -> Suite:
    """Read, layer and check a suite.

    Args:
        path: the YAML file.
        source: fingerprints and engine versions, from the floors above.
        preset: replaces the file's preset and the sections that it defines.
        data: folder of LVIS-format data (or COCO: set data.name=coco).
        sets: "dotted.key=value" overrides, value in YAML.
        only: the rows to keep, see bench.suite.rows.rows_of_only.
        seeds: replaces the file's seeds.
        against: replaces the file's `against`, and that of every row.

    Raises:
        UserError: any error, with file:line, the legal values and a suggestion.
    """
    document = yamlfile.read(path).renamed(MOVED)
    tree = dict(document.value)
    rows = tree.pop("rows", None)
    named = preset or tree.get("preset")
    tree.pop("preset", None)
    extra = _paths(tree.pop("methods_path", []), "methods_path", document)
    figures_path = _paths(tree.pop("figures_path", []), "figures_path", document)
    base, presets = preset_named(named, "--preset" if preset else document.where("preset")) if named else ({}, ())
    document = replace(document, below=presets)
    notes = []
    if preset:
        aside = sorted(set(base) & set(tree))
        notes += [f"--preset {preset} replaces the file's {', '.join(aside)}"] if aside else []
        tree = {k: v for k, v in tree.items() if k not in base}
        document = replace(document, lines={at: n for at, n in document.lines.items() if not {*at[:1]} & {*base}})
    tree = merge(base, tree)
    tree["rows"] = rows if rows is not None else {}
    if data:
        section = tree.get("data")
        kept = (
            {k: section[k] for k in ("train", "val", "images") if k in section} if isinstance(section, Mapping) else {}
        )
        tree["data"] = {"name": "lvis", **kept, "path": data}
        published = tree.pop("compare_with", None)
        if published is not None:  # figures of a paper, measured on data that these are not
            notes.append(f"--data: without the columns of compare_with; --set compare_with={published} shows them")
    document = replace(document, given=frozenset(apply_set(tree, text, document) for text in sets))
    if seeds:
        tree["seeds"] = list(seeds)
    tree |= {"against": against} if against is not None else {}
    rows = tree.pop("rows")
    sections = check_sections(tree, document)
    if sections.detector.norm == "frozen" and sections.detector.weights is None:
        notes.append("detector.norm is frozen but there are no weights: nothing will have set its statistics")
    if sections.detector.norm == "batch" and sections.machine.tasks > 1:
        notes.append("detector.norm is batch: several processes (machine.tasks) train heads, but no whole detector")
    known = discover(extra)
    _check_figures(sections, figure_files(figures_path), document)
    checked = check_rows(rows, known, sections.schedule, sections.data, sections.detector, document, sections.against)
    checked = checked if against is None else tuple(replace(row, against=against) for row in checked)
    kept_rows = rows_of_only(checked, only, document)
    notes += check_control(sections.against, checked, kept_rows, document, option=against is not None)
    if len(kept_rows) * len(sections.seeds) > MOST_ROWS:
        what = f"{len(kept_rows):,} rows with {len(sections.seeds):,} seeds each are more than {MOST_ROWS:,}"
        raise UserError(what, where=document.where("seeds"), hint="choose rows or seeds: --only, --seeds")
    section, bins = sections.search, len(sections.test.bins) + 1
    space = check_search(section, kept_rows, sections.schedule, bins, document) if section else None
    kept_labels = {row.label for row in kept_rows}
    others = tuple(row for row in checked if row.label not in kept_labels)
    options = _as_words(preset, data, only, seeds, sets)
    return Suite(
        path.stem, path, sections, kept_rows, document, source, tuple(notes), extra, figures_path, others,
        options, space,
    )  # fmt: skip


def _as_words(
    preset: str | None, data: str | None, only: Sequence[str], seeds: Sequence[int], sets: Sequence[str]
) -> tuple[str, ...]:
    """Options that change the table, as on the command line."""
    given = [("--preset", preset), ("--data", data), *(("--only", text) for text in only)]
    given += [("--seeds", seeds_text(seeds)), *(("--set", text) for text in sets)]
    return tuple(word for name, value in given if value for word in (name, value))


def _tuned(base: Schedule) -> dict[str, Any]:
    """The default of `tune`: base rate / 100 for 10 / 12 of its length, x 0.1 after 7 of 10 epochs
    (released configurations of BAGS: lr 1e-4 after a base of 0.01)."""
    name = "steps" if base.steps is not None else "epochs"
    length = base.steps or base.epochs or 1
    return {name: max(1, round(length * 10 / 12)), "lr": base.lr / 100, "decay": "steps", "drops": [0.7]}


def _paths(value: Any, name: str, document: yamlfile.Document) -> tuple[Path, ...]:
    """Files and folders with more methods or figures, relative to the suite."""
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(p, str) for p in paths):
        allowed = "a .py file or a folder of them, or a list of these; relative to the suite"
        raise UserError(f"not a path: {value!r}", where=f"{document.where(name)} {name}", allowed=allowed)
    return tuple(document.path.parent / p for p in paths)


def _check_figures(sections: Sections, own: Mapping[str, Path], document: yamlfile.Document) -> None:
    """Every figure is of a kind that there is, and no file of an own one has the name of a search's."""
    for name, file in own.items() if sections.search else ():
        if name in SEARCH_FIGURES or name.split("_")[0] == "curve":
            what = f"the report of a search has a figure '{name}' already"
            raise UserError(what, where=str(file), hint="rename the file")
    for number, figure in enumerate(sections.figures):
        if figure.kind not in FIGURES and figure.kind not in own:
            at = f"{document.where('figures', number, 'kind')} figures.{number}.kind"
            raise unknown("figure", figure.kind, [*FIGURES, *own], where=at, hint="figures_path: names files with more")
