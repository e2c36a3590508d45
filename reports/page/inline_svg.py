"""A figure's SVG as a part of an HTML page. Separate because a page with a content security policy takes no style of an
element, and two figures must not share the name of an element.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from reports.figures.canvas import CAPTION

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
# Elements of a drawing; whatever else a file holds (metadata, style sheets, scripts, foreign content) is left out.
KEPT = frozenset(
    ("svg", "g", "defs", "path", "use", "rect", "circle", "ellipse", "line", "polyline", "polygon", "clipPath", "image",
     "pattern", "text", "tspan", "linearGradient", "radialGradient", "stop", "title", "desc")
)  # fmt: skip
REFERENCE = re.compile(r"url\(#([^)]*)\)")
# matplotlib's style sheet, as attributes of the root.
JOINS = {"stroke-linejoin": "round", "stroke-linecap": "butt"}
# Of these matplotlib writes as style; each is an attribute of its own too.
PROPERTY = re.compile(r"(fill|stroke|opacity|stop|clip|font|text|color|visibility|image)(-[a-z]+)*")


def width_of(svg: bytes) -> float:
    """Points, of an SVG as matplotlib writes it."""
    found = re.search(rb'viewBox="[\d.]+ [\d.]+ ([\d.]+)', svg)
    return float(found[1]) if found else 0.0


def inlined(svg: bytes, prefix: str, label: str, described: str = "") -> str:
    """The markup of one `<svg>`, without a style sheet or style attributes, scripts, links and comments; and without
    its caption, which a page has as text.

    Args:
        svg: a file as matplotlib writes it.
        prefix: of all its ids; another one for each figure of a page.
        label: its name, for those who do not see it.
        described: id of the element of the page that says more.

    Raises:
        ElementTree.ParseError: no XML.
        KeyError: no viewBox.
    """
    root = ElementTree.fromstring(svg)
    foot = sum(_without_caption(group) for group in root.iter())
    _reduce(root)
    numbers: dict[str, str] = {}
    for element in root.iter():
        if "id" in element.attrib:
            numbers.setdefault(element.attrib["id"], f"{prefix}-{len(numbers)}")
    used = {name for element in root.iter() for name in _named(element.attrib)}
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{SVG}}}")
        element.attrib = _attributes(element.attrib, numbers, used)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    size = {"width": f"{width:.0f}", "height": f"{height - foot:.0f}"}
    root.attrib = {"viewBox": f"0 0 {size['width']} {size['height']}", **size, "role": "img", "aria-label": label}
    root.attrib |= {"aria-describedby": described} if described else {}
    for child in root:
        child.attrib = {**JOINS, **child.attrib}
    return ElementTree.tostring(root, encoding="unicode")


def _without_caption(parent: ElementTree.Element) -> float:
    """Points that the caption among an element's children took at the foot of the figure; it is removed, but for the
    letters that it was the first to draw: others refer to them."""
    for place, child in enumerate(list(parent)):
        name = child.attrib.get("id", "")
        if name.startswith(CAPTION) and name.removeprefix(CAPTION).isdigit():
            parent.remove(child)
            for letters in child.iter(f"{{{SVG}}}defs"):
                parent.insert(place, letters)
            return float(name.removeprefix(CAPTION))
    return 0.0


def _reduce(parent: ElementTree.Element) -> None:
    for child in list(parent):
        if not isinstance(child.tag, str) or child.tag.removeprefix(f"{{{SVG}}}") not in KEPT:
            parent.remove(child)
        else:
            child.tail = None
            _reduce(child)
    if parent.text and not parent.text.strip():
        parent.text = None


def _named(attributes: dict[str, str]) -> set[str]:
    """The ids that an element refers to."""
    found = {value[1:] for name, value in attributes.items() if name.endswith("href") and value.startswith("#")}
    return found.union(*(REFERENCE.findall(value) for value in attributes.values()))


def _attributes(given: dict[str, str], numbers: dict[str, str], used: set[str]) -> dict[str, str]:
    """With properties of its style as attributes, ids renamed, and links to nothing but itself and images inside."""
    found: dict[str, str] = {}
    for name, value in given.items():
        if name == "id":
            found |= {"id": numbers[value]} if value in used else {}
        elif name in ("href", f"{{{XLINK}}}href"):
            inside = value.startswith("#") and value[1:] in numbers
            found |= {"href": f"#{numbers[value[1:]]}"} if inside else {}
            found |= {"href": value} if value.startswith("data:image/png;base64,") else {}
        elif name == "style":
            pairs = (part.partition(":") for part in value.split(";"))
            found |= {n.strip(): v.strip() for n, _, v in pairs if PROPERTY.fullmatch(n.strip())}
        elif not name.startswith(("{", "on")):
            found[name] = value
    return {n: REFERENCE.sub(lambda m: f"url(#{numbers.get(m[1], '')})", v) for n, v in found.items()}
