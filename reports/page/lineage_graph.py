"""The stages that a row's model is made of, as a small drawing. Separate from page.py because it is geometry: which box
stands where.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

WIDTH, HEIGHT, ACROSS, DOWN, EDGE = 150, 40, 40, 16, 4  # px
CHAIN = ("train", "patch", "predict", "evaluate")  # kinds that stand in the first line; what they take stands below


@dataclass(frozen=True)
class Box:
    """One stage: its kind, key (64 digits), what it is called beside its kind, and input name -> key, of those that are
    drawn."""

    kind: str
    key: str
    name: str
    inputs: tuple[tuple[str, str], ...]


def drawn(boxes: Sequence[Box], label: str) -> str:
    """An `<svg>`: from left to right what is made from what; a box has the kind, the name, and six digits of the key.

    Args:
        boxes: inputs before what is made from them.
        label: for those who do not see it.
    """
    places = _places(boxes)
    wide = max((column for column, _ in places.values()), default=0) + 1
    high = max((line for _, line in places.values()), default=0) + 1
    size = (wide * (WIDTH + ACROSS) - ACROSS + 2 * EDGE, high * (HEIGHT + DOWN) - DOWN + 2 * EDGE)
    view = f"0 0 {size[0]} {size[1]}"
    root = ElementTree.Element("svg", viewBox=view, width=str(size[0]), height=str(size[1]), role="img")
    root.set("aria-label", label)
    for box in boxes:
        for _, source in box.inputs:
            if source in places:
                ElementTree.SubElement(root, "path", {"class": "edge", "d": _curve(places[source], places[box.key])})
    for box in boxes:
        x, y = _corner(places[box.key])
        shape = {"x": str(x), "y": str(y), "width": str(WIDTH), "height": str(HEIGHT), "rx": "4"}
        ElementTree.SubElement(root, "rect", {"class": "box", **shape})
        what = f"{box.kind} {box.name}".strip()
        for text, down, style in ((_cut(what), 17, "kind"), (box.key[:6], 33, "key")):
            place = {"class": style, "x": str(x + WIDTH // 2), "y": str(y + down), "text-anchor": "middle"}
            ElementTree.SubElement(root, "text", place).text = text
    return ElementTree.tostring(root, encoding="unicode")


def _places(boxes: Sequence[Box]) -> dict[str, tuple[int, int]]:
    """Key -> column and line. A stage stands right of all that it is made from; in a column the chain stands first."""
    columns: dict[str, int] = {}
    for box in boxes:
        columns[box.key] = max((columns[key] + 1 for _, key in box.inputs if key in columns), default=0)
    taken: set[tuple[int, int]] = set()
    places: dict[str, tuple[int, int]] = {}
    for box in boxes:
        line = 0 if box.kind in CHAIN else 1
        while (columns[box.key], line) in taken:
            line += 1
        places[box.key] = (columns[box.key], line)
        taken.add(places[box.key])
    return places


def _corner(place: tuple[int, int]) -> tuple[int, int]:
    return EDGE + place[0] * (WIDTH + ACROSS), EDGE + place[1] * (HEIGHT + DOWN)


def _curve(source: tuple[int, int], target: tuple[int, int]) -> str:
    (x0, y0), (x1, y1) = _corner(source), _corner(target)
    x0, y0, y1 = x0 + WIDTH, y0 + HEIGHT // 2, y1 + HEIGHT // 2
    turn = x1 - ACROSS  # level below the boxes between, then up
    return f"M{x0} {y0}H{turn}C{turn + ACROSS // 2} {y0} {x1 - ACROSS // 2} {y1} {x1} {y1}"


def _cut(text: str, most: int = 22) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
