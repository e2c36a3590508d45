"""The image browser: `images.html` beside the page of a report, and in a folder a thumbnail of each image and its
boxes, which the page loads when they are looked at.

A browser refuses to fetch a file for a page that is one itself, so boxes come as scripts. They hold numbers alone;
every name is in images.html, as escaped text. The page's policy runs its one script and what that script loads
(`strict-dynamic`), which it addresses by number; a script that stands in markup does not run.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image as PILImage

from bench.data.pixels import Bytes
from bench.errors import UserError, printable
from bench.evaluation.ap import Floats
from bench.evaluation.judged import Kind
from bench.stage import Stage
from bench.store.disk import make_folder, put
from bench.store.store import Store
from reports import detected
from reports.detected import Boxes, Seen, Shown
from reports.figures.canvas import bin_names
from reports.load import RowResult
from reports.page import MOST_IMAGES
from reports.page.render import filled

PAGE, FOLDER = "images.html", "report_images"
SIDE = 320  # pixels of a thumbnail's longer side
QUALITY = 85  # of its JPEG
NOT_JUDGED, BOX = 7, 8  # beside `Kind`: no number below 0 is needed; a box that is not missed
MISSED, ONLY_WRONG, UNCOUNTED = -1, -2, -3  # of a box, where a found one has the score of its detection
LONGEST, NAMED = 40, 3  # of a caption: characters of a name, and how many names
KINDS = {
    # What a detection or box is: class in the style sheet, name, short name on the picture, what it means.
    Kind.TRUE_POSITIVE: ("right", "true positive", "right", "IoU at least 0.5 with a box of its class"),
    Kind.CLASSIFICATION: ("class", "classification", "class", "IoU at least 0.5 with a box of another class"),
    Kind.LOCALISATION: ("place", "localisation", "place", "IoU 0.1 to 0.5 with a box of its class"),
    Kind.BOTH: ("both", "class and place", "both", "IoU 0.1 to 0.5 with a box of another class"),
    Kind.DUPLICATE: ("again", "duplicate", "again", "on a box that a better detection has found"),
    Kind.BACKGROUND: ("nothing", "background", "nothing", "IoU below 0.1 with every box"),
    Kind.MISSED: ("missed", "missed", "missed", "a box with no detection of its class, nor an error of class or place"),
    NOT_JUDGED: ("unjudged", "not judged", "?", "nobody has looked for its class in this image"),
    BOX: ("box", "ground truth", "box", "a box that is not missed"),
}  # fmt: skip


@dataclass(frozen=True)
class Class:
    """One class of the data, and the bin and frequency that it has in a val."""

    id: int
    name: str
    bin: int
    frequency: str


@dataclass(frozen=True)
class Thumbnail:
    """One image in the grid: number of its val, name of its file, what it shows, pixels of its thumbnail."""

    val: int
    name: str
    caption: str
    width: int
    height: int


@dataclass
class Browser:
    """What the page lists, by number.

    Attributes:
        title: of the suite.
        edges: of the instance bins.
        thumbnails: by number of the image.
        classes: by number, which the scripts use.
        runs: row -> (seed, number of the run, number of its val), by seed.
        vals, total: how many vals, and images of all of them.
    """

    title: str
    edges: tuple[int, ...]
    thumbnails: list[Thumbnail] = field(default_factory=list)
    classes: dict[Class, int] = field(default_factory=dict)
    runs: dict[str, list[tuple[int, int, int]]] = field(default_factory=dict)
    vals: int = 0
    total: int = 0

    def of_class(self, number: int, name: str) -> str | None:
        """The address of the images with a class, by its id and name; None for a class of no val that is shown."""
        found = next((n for one, n in self.classes.items() if (one.id, one.name) == (number, name)), None)
        return None if found is None else f"{PAGE}#class={found}"

    def of_row(self, label: str, group: str) -> str | None:
        """The address of what a row sees of a group of classes: AP (all), AP1.., APr, APc, APf."""
        if label not in self.runs:
            return None
        bin_ = "" if group == "AP" else f"&bin={group.removeprefix('AP')}"
        return f"{PAGE}#row={list(self.runs).index(label)}{bin_}"

    @property
    def page(self) -> str:
        """Name of its file."""
        return PAGE

    @property
    def listed(self) -> list[tuple[Class, int]]:
        """Classes with their numbers, by name."""
        return sorted(self.classes.items(), key=lambda pair: (pair[0].name.casefold(), pair[0].id, pair[0].bin))

    @property
    def bins(self) -> list[tuple[str, str]]:
        """(name in an address, text) of what can be chosen."""
        frequencies = {one.frequency for one in self.classes}
        named = [(str(i), f"AP{i}: {name} training instances") for i, name in enumerate(bin_names(self.edges), start=1)]
        words = {"r": "rare", "c": "common", "f": "frequent"}
        return named + [(letter, f"AP{letter}: {word}") for letter, word in words.items() if letter in frequencies]


def write_browser(
    rows: Sequence[RowResult], stages: Mapping[str, Stage], store: Store, out: Path, title: str,
    most: int = MOST_IMAGES, made: Callable[[int], None] = lambda _: None,
) -> tuple[Browser | None, list[str]]:  # fmt: skip
    """Write images.html and report_images/ into a folder. What a report before left in report_images/ is removed.

    Args:
        rows: one result per row and seed.
        stages: by key, among them all that evaluated `rows`.
        out: an existing folder.
        title: heading of the suite.
        most: images of each val, chosen by `detected.RULE`.
        made: is told that so many more images are written.

    Returns:
        (what the page lists, None where nothing can be shown; a sentence for each thing that cannot).

    Raises:
        UserError: a file cannot be written, or predictions were changed.
    """
    browser = Browser(title, tuple(rows[0].record.protocol.bins) if rows else ())
    lacking: list[str] = []
    by_val: dict[str, list[RowResult]] = {}
    for row in rows:
        by_val.setdefault(stages[row.record.evaluate_key].inputs["val"].key, []).append(row)
    for group in by_val.values():
        evaluates = [stages[row.record.evaluate_key] for row in group]
        try:
            val = detected.shown(store, evaluates[0], most)
        except UserError as error:
            record = group[0].record
            lacking.append(f"{record.row}, seed {record.seed}: its val cannot be read: {str(error).splitlines()[0]}")
            continue
        views = [detected.seen(store, stage, val) for stage in evaluates]
        lacking += [
            f"{row.record.row}, seed {row.record.seed}: its predictions are no longer in the store"
            for row, view in zip(group, views, strict=True) if view is None
        ]  # fmt: skip
        looked = [(row, view) for row, view in zip(group, views, strict=True) if view is not None]
        if looked:
            why = _write_val(browser, out / FOLDER, val, looked, made)
            lacking += [why] if why else []
    _clear(out / FOLDER, browser)
    if not browser.thumbnails:
        (out / PAGE).unlink(missing_ok=True)
        return None, [f"no {PAGE}: {lacking[0] if lacking else 'no row has a result'}"]
    put(out / PAGE, page_text(browser).encode())
    return browser, [f"{PAGE}: {text}" for text in lacking]


def page_text(browser: Browser) -> str:
    """images.html; the same images and rows give the same bytes."""
    return filled(
        "images", browser=browser, folder=FOLDER, kinds=[(int(kind), *of) for kind, of in KINDS.items()],
        best=detected.BEST_JUDGED, others=detected.BEST_OTHERS, rule=detected.RULE,
    )  # fmt: skip


def _write_val(
    browser: Browser, folder: Path, val: Shown, looked: Sequence[tuple[RowResult, list[Seen]]],
    made: Callable[[int], None],
) -> str:  # fmt: skip
    """The files of one val's images; "" or why some are not shown."""
    classes = [
        browser.classes.setdefault(Class(one.id, one.name, int(b) + 1, one.frequency), len(browser.classes))
        for one, b in zip(val.split.categories, val.bins, strict=True)
    ]
    first = len(browser.thumbnails)
    kept: list[int] = []
    why = ""
    for i, picture in detected.smaller(val, SIDE):
        if isinstance(picture, UserError):
            why = why or str(picture).splitlines()[0]
        else:
            for name in () if kept else ("boxes", "rows"):
                make_folder(folder / name)
            put(folder / f"{len(browser.thumbnails)}.jpg", _jpeg(picture))
            browser.thumbnails.append(_thumbnail(browser, val, i, picture))
            kept.append(i)
        made(1)
    if not kept:
        return f"the val images cannot be read: {why}"
    started = sum(map(len, browser.runs.values()))
    numbers = range(started, started + len(looked))
    for number, (row, _) in zip(numbers, looked, strict=True):
        browser.runs.setdefault(row.record.row, []).append((row.record.seed, number, browser.vals))
    for place, i in enumerate(kept, start=first):
        image, boxes = val.split.images[i], val.boxes[i]
        views = [[number, *_view(boxes, view[i], classes)] for number, (_, view) in zip(numbers, looked, strict=True)]
        truth = [[classes[k], *_corner(xywh)] for k, xywh in zip(boxes.label.tolist(), boxes.xywh, strict=True)]
        put(folder / "boxes" / f"{place}.js", _call("image", place, [image.width, image.height], truth, views))
    for number, (_, view) in zip(numbers, looked, strict=True):
        lines = [[place, *_met(val.boxes[i], view[i], classes)] for place, i in enumerate(kept, start=first)]
        put(folder / "rows" / f"{number}.js", _call("row", number, lines))
    browser.vals += 1
    browser.total += len(val.whole)
    left_out = len(val.split) - len(kept)
    return f"{left_out:,} of {len(val.split):,} images cannot be read and are left out: {why}" if left_out else ""


def _view(boxes: Boxes, view: Seen, classes: Sequence[int]) -> tuple[list[float], list[list[float]]]:
    """What became of each box, and the detections: class, x, y, width, height, score, kind, box."""
    states: list[float] = []
    for counts, score, missed in zip(boxes.counts.tolist(), view.found_by.tolist(), view.missed.tolist(), strict=True):
        found = not math.isnan(score)
        states.append(UNCOUNTED if not counts else round(score, 3) if found else MISSED if missed else ONLY_WRONG)
    columns = (view.label.tolist(), view.xywh, view.score.tolist(), view.kind.tolist(), view.box.tolist())
    return states, [
        [classes[k], *_corner(xywh), round(score, 3), NOT_JUDGED if kind < 0 else kind, box]
        for k, xywh, score, kind, box in zip(*columns, strict=True)
    ]


def _met(boxes: Boxes, view: Seen, classes: Sequence[int]) -> list[float]:
    """class, kind, best score, and again: what a filter finds in an image. An error is met under its own class and
    under that of the box it concerns; a box has score 1."""
    best: dict[tuple[int, int], float] = {}
    columns = (view.label.tolist(), view.kind.tolist(), view.score.tolist(), view.box.tolist())
    for k, kind, score, box in zip(*columns, strict=True):
        for label in {k, int(boxes.label[box]) if box >= 0 else k}:
            at = (classes[label], NOT_JUDGED if kind < 0 else kind)
            best[at] = max(best.get(at, 0.0), round(score, 3))
    for k, missed in zip(boxes.label.tolist(), view.missed.tolist(), strict=True):
        best[classes[k], int(Kind.MISSED) if missed else BOX] = 1.0
    return [number for (k, kind), score in sorted(best.items()) for number in (k, kind, score)]


def _corner(xywh: Floats) -> list[float]:
    return [round(value, 1) for value in xywh.tolist()]


def _call(name: str, *values: object) -> bytes:
    """A script that hands numbers to the page, and holds nothing else."""
    return f"bench.{name}({json.dumps(values, separators=(',', ':'), allow_nan=False)[1:-1]});\n".encode()


def _jpeg(picture: Bytes) -> bytes:
    file = io.BytesIO()
    PILImage.fromarray(picture).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def _thumbnail(browser: Browser, val: Shown, i: int, picture: Bytes) -> Thumbnail:
    names = Counter(val.split.categories[k].name for k in val.boxes[i].label.tolist())
    said = [_short(name) + (f" \N{MULTIPLICATION SIGN} {n}" if n > 1 else "") for name, n in names.most_common(NAMED)]
    more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    height, width = picture.shape[:2]
    return Thumbnail(browser.vals, val.split.images[i].file_name, ", ".join(said + more) or "no box", width, height)


def _short(name: str) -> str:
    text = printable(name)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"


def _clear(folder: Path, browser: Browser) -> None:
    """Away with what an earlier report wrote under names that this one has not; other files stay."""
    runs = sum(map(len, browser.runs.values()))
    for name, suffix, number in (("", "jpg", len(browser.thumbnails)), ("boxes", "js", len(browser.thumbnails)),
                                 ("rows", "js", runs)):  # fmt: skip
        for path in (folder / name).iterdir() if (folder / name).is_dir() else ():
            if re.fullmatch(rf"[0-9]+\.{suffix}", path.name) and int(path.stem) >= number:
                path.unlink()
