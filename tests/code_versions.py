"""Which code each version stands for: the table, and the record that shows when code changed under a version.

A result in a store is found again by the versions of the code that made it: of its stage kind, of the engine, of
reader, augmentation, post-processing and evaluator, of its parts. If such code changes and its version does not, old
results pass for new ones. So code_versions.json keeps, beside each version, a digest of every definition that the
version stands for (normalised, see tests/code_text.py: words, annotations and the place of a module are no change).
Separate from the test because it is a command too.

    python -m tests.code_versions [--update]

Where files are moved or split, STANDS_FOR and NO_RESULT have the new paths; no digest changes by that alone.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.engines.facts import ENGINES
from bench.stage import KINDS
from tests.code_text import Code, digest_of, is_named, modules, reached

TREE = Path(__file__).resolve().parent.parent
RECORD = Path(__file__).with_suffix(".json")
PARTS = "methods/parts"
PARTS_USE = ("bench/frequency.py",)  # beside other parts: code that can change what a part computes

# Version -> the files whose code it stands for; "file.py:one two" is these two definitions and what they use of the
# file. "kind K" is KINDS of bench/stage.py, "engine E" the version in bench/engines/facts.py, any other name
# the VERSION of its first file. Code that several versions name (seeds.py) can change what all of them stand for: raise
# those whose results change. Every stage has those of the stages before it in its key, too: what changes data or
# weights (split.py, contract.py) need not stand behind whatever reads them.
STANDS_FOR: Mapping[str, tuple[str, ...]] = {
    "glyphs": (
        "bench/data/glyphs.py", "bench/data/glyph_render.py", "bench/data/glyph_vocabulary.py",
        "bench/data/glyph_codepoints.json", "bench/frequency.py:lvis_frequency", "bench/seeds.py",
    ),
    "folder": (
        "bench/data/folder.py", "bench/data/lvis.py", "bench/data/coco.py", "bench/data/entries.py",
        "bench/data/values.py", "bench/data/areas.py", "bench/data/names.py", "bench/data/quick.py",
        "bench/data/summaries.py", "bench/frequency.py:lvis_frequency",
    ),
    "division": ("bench/data/division.py", "bench/seeds.py"),
    # How a batch is made of images: exactly the stages that read images have this version in their keys.
    "augment": (
        "bench/data/augment.py", "bench/data/loader.py", "bench/data/views.py", "bench/data/ahead.py", "bench/seeds.py",
    ),
    "postprocess": ("bench/detection/postprocess.py",),
    "evaluator": ("bench/evaluation/ap.py", "bench/evaluation/accuracy.py", "bench/frequency.py:instance_bin"),
    "engine torchvision": (
        "bench/engines/torchvision/facts.py", "bench/engines/torchvision/build.py",
        "bench/engines/torchvision/detector.py",
        "bench/engines/torchvision/heads.py", "bench/engines/torchvision/proposals.py",
        "bench/engines/torchvision/trunks.py", "bench/engines/torchvision/weights.py",
        "bench/detection/boxes.py", "bench/detection/sampling.py", "bench/detection/grouped.py",
        "bench/detection/contract.py",
        "bench/detection/taps.py", "bench/seeds.py",
    ),
    "engine detr": (
        "bench/engines/detr/facts.py", "bench/engines/detr/build.py", "bench/engines/detr/detector.py",
        "bench/engines/detr/weights.py", "bench/engines/detr/network.py", "bench/engines/detr/attention.py",
        "bench/engines/detr/matching.py",
        "bench/engines/torchvision/trunks.py", "bench/engines/torchvision/weights.py",
        "bench/detection/boxes.py", "bench/detection/focal.py", "bench/detection/grouped.py",
        "bench/detection/contract.py",
        "bench/detection/taps.py", "bench/seeds.py",
    ),
    "engine detectron2": (
        "bench/engines/detectron2/facts.py", "bench/engines/detectron2/build.py",
        "bench/engines/detectron2/detector.py", "bench/engines/detectron2/network.py",
        "bench/engines/detectron2/weights.py", "bench/engines/detectron2/pickles.py",
        "bench/engines/torchvision/trunks.py", "bench/engines/torchvision/weights.py",
        "bench/detection/boxes.py", "bench/detection/sampling.py", "bench/detection/grouped.py",
        "bench/detection/contract.py",
        "bench/detection/taps.py", "bench/seeds.py",
    ),
    "kind data": ("bench/run/data.py", "bench/data/split.py", "bench/data/pixels.py",
                  "bench/frequency.py:ClassStatistics"),
    "kind train": (
        "bench/run/train.py", "bench/run/loop.py", "bench/run/step.py", "bench/run/optimiser.py",
        "bench/run/learner.py", "bench/run/distributed.py", "bench/run/model.py", "bench/detection/losses.py",
        "bench/run/checkpoint.py", "bench/detection/per_head.py",
        "bench/engines/facts.py:only_classifier", "bench/lineage.py:rest_of training_of",
        "bench/seeds.py",
    ),
    "kind fit": ("bench/run/fit.py", "bench/run/model.py", "bench/detection/boxes.py:iou"),
    "kind patch": ("bench/run/patch.py", "bench/run/model.py", "bench/detection/per_head.py"),
    "kind features": ("bench/run/features.py", "bench/run/model.py"),
    "kind predict": (
        "bench/run/predict.py", "bench/run/features.py", "bench/run/model.py", "bench/lineage.py:trunk_of rest_of",
    ),
    "kind evaluate": (
        "bench/run/evaluate.py", "bench/evaluation/stored.py", "bench/data/split.py", "bench/record.py:points",
    ),
}  # fmt: skip

# Files that a job imports and that change no result, and why: they stand under no version.
NO_RESULT: Mapping[str, str] = {
    "bench/data/kinds.py": "what is said of faults and mends",
    "bench/data/formats.py": "which reader there is, whose version is in the key; what is in the key is in the key",
    "bench/engines/contract.py": "the form of an engine's facts",
    "bench/engines/installed.py": "which engines there are; an engine's version is in the key",
    "bench/launchers.py": "where jobs run",
    "bench/store/below.py": "opens files of a store; what is in them is made elsewhere",
    "bench/store/disk.py": "writes and reads files whole; what is in them is made elsewhere",
    "bench/store/done.py": "says what is finished, by digests of the outputs",
    "bench/environment.py": "what a job ran on, for the record",
    "bench/errors.py": "messages",
    "bench/store/events.py": "progress, for people",
    "bench/key.py": "what it makes is in the key itself (tests/golden, tests/test_key.py)",
    "bench/store/form.py": "refuses what is no key and no stage",
    "bench/store/lease.py": "who works on a stage",
    "bench/store/own.py": "whose processes and submissions these are",
    "bench/tracking/mirror.py": "copies finished results to a tracking server",
    "bench/tracking/place.py": "where a tracker's files lie",
    "bench/tracking/curves.py": "curves for a tracking server",
    "bench/run/follow.py": "how the other processes of a job follow the first",
    "bench/run/job.py": "which stages run when; each gives what it gives alone (tests/end_to_end/test_fusing.py)",
    "bench/run/loading.py": "how many threads make batches, whose results are the same (tests/run/test_workers.py)",
    "bench/run/memory.py": "measures memory",
    "bench/run/external_parts.py": "refuses parts whose file has changed",
    "bench/run/work.py": "what a stage is handed: folders, stop flag, progress, device",
    "bench/run/world.py": "how processes talk; several give what one gives (tests/run/test_distributed.py)",
    "bench/run/snapshot.py": "copies the code for queued jobs",
    "bench/engines/sections.py": "its values are in the key (tests/test_settings.py)",
    "bench/spec.py": "its values are in the key, or have no effect on a result (tests/test_settings.py)",
    "bench/stage.py": "what it makes is the key (tests/golden)",
    "bench/store/store.py": "where stages lie",
    "bench/store/roots.py": "what gc keeps",
    "bench/tracking/stages.py": "sends to a tracking server",
}


@dataclass(frozen=True)
class Entry:
    """A version and the code it stands for: name of each definition -> digest."""

    version: str
    code: Mapping[str, str]


def current(tree: Path = TREE, table: Mapping[str, tuple[str, ...]] = STANDS_FOR) -> dict[str, Entry]:
    """Version and code of each line of the table, and of each part ("part module:name"), below `tree`."""
    codes = _Codes(tree)
    found = {name: Entry(_version_of(name, files, codes), codes.of_files(files)) for name, files in table.items()}
    for path in sorted((tree / PARTS).glob("[a-z]*.py")):
        file = path.relative_to(tree).as_posix()
        for name, nodes in codes[file].definitions.items():
            node = nodes[0]
            if name.startswith("_") or not isinstance(node, ast.ClassDef | ast.FunctionDef):
                continue
            version = _version(node.body) or _version(codes[file].body)
            if version is not None:
                found[f"part {path.stem}:{name}"] = Entry(version, codes.of_part(file, name))
    return found


def recorded(path: Path = RECORD) -> dict[str, Entry]:
    """What code_versions.json says."""
    return {name: Entry(**value) for name, value in json.loads(path.read_text()).items()}


def complaints(was: Mapping[str, Entry], now: Mapping[str, Entry]) -> Iterator[str]:
    """One line for each version that no longer stands for the recorded code."""
    update = "run `python -m tests.code_versions --update`"
    for name in sorted(was.keys() | now.keys()):
        if name not in now:
            yield f"{name}: recorded, but gone; {update}"
        elif name not in was:
            yield f"{name}: new; {update}"
        elif now[name].version != was[name].version:
            yield f"{name}: VERSION {was[name].version} became {now[name].version}; {update}"
        elif now[name].code != was[name].code:
            before, after = was[name].code, now[name].code
            changed = [one for one in sorted({*before, *after}) if before.get(one) != after.get(one)]
            shown = ", ".join([*changed[:6], f"{len(changed) - 6} more"] if len(changed) > 6 else changed)
            yield (
                f"{name}: its code changed ({shown}), its version {now[name].version} did not. If results can change, "
                f"raise it ({_where(name)}), so that no old result passes for a new one; then (or if they cannot) "
                f"{update}"
            )


class _Codes(dict[str, Code]):
    """The files of a tree by path, each read once."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root, self._modules = root, modules(root)

    def __missing__(self, file: str) -> Code:
        self[file] = Code.of((self._root / file).read_text(encoding="utf-8"), self._modules)
        return self[file]

    def of_files(self, files: tuple[str, ...]) -> dict[str, str]:
        texts: dict[str, list[str]] = {}
        for entry in files:
            file, _, names = entry.partition(":")
            if not file.endswith(".py"):
                texts[Path(file).name] = [(self._root / file).read_text(encoding="utf-8")]
                continue
            wanted = names.split() or list(self[file].definitions)
            for name, text in reached([(file, one) for one in wanted], self, lambda source: None):
                texts.setdefault(name, []).append(text)
        return {name: digest_of(found) for name, found in sorted(texts.items())}

    def of_part(self, file: str, name: str) -> dict[str, str]:
        """Of the definition and of all it reaches in its own file, in other parts and in PARTS_USE."""

        def follow(module: str) -> str | None:
            path = module.replace(".", "/") + ".py"
            return path if path.startswith(f"{PARTS}/") or path in PARTS_USE else None

        start = [(file, name), (file, "LATER")]
        texts: dict[str, list[str]] = {}
        for one, text in reached(start, self, follow):
            texts.setdefault(one, []).append(text)
        return {one: digest_of(found) for one, found in sorted(texts.items())}


def _version_of(name: str, files: tuple[str, ...], codes: _Codes) -> str:
    word, _, which = name.partition(" ")
    if word == "kind":
        return str(KINDS[which].version)
    if word == "engine":
        return str(ENGINES[which].version)
    version = _version(codes[files[0]].body)
    assert version is not None, f"{files[0]} has no VERSION"
    return version


def _where(name: str) -> str:
    word = name.partition(" ")[0]
    if word == "part":
        return "VERSION in its class or file"
    if word == "kind":
        return "KINDS in bench/stage.py"
    return "its version in bench/engines/facts.py" if word == "engine" else f"VERSION in {STANDS_FOR[name][0]}"


def _version(body: list[ast.stmt]) -> str | None:
    values = [s.value for s in body if isinstance(s, ast.Assign | ast.AnnAssign) and is_named(s, "VERSION")]
    return str(ast.literal_eval(values[0])) if values and values[0] is not None else None


def main(arguments: list[str]) -> int:
    """Compare, or with --update rewrite the record. Exit status 1 when they differ."""
    now = current()
    if arguments == ["--update"]:
        RECORD.write_text(
            json.dumps({name: vars(entry) for name, entry in now.items()}, indent=1, sort_keys=True) + "\n"
        )
        print(f"{RECORD.name}: {len(now)} versions")
        return 0
    lines = list(complaints(recorded(), now))
    print("\n".join(lines) or f"{len(now)} versions as recorded")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
