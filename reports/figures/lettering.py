"""How wide a text is, where it is broken or cut, and which font has its characters. Separate from canvas.py, which lays
figures out: names of rows and classes may be long, and in any writing.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

INCH = 72  # points
UNIT = 100  # points, at which letters are measured
SAFETY = 1.04
LONGEST = 400  # characters that are measured; a longer text is cut there first
NAME_POINTS = 200.0  # of a name at a tick; a longer one is cut
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
# Families that have what matplotlib's own DejaVu Sans has not, the first that is installed first.
FALLBACK = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK TC", "Noto Sans CJK KR", "Noto Sans JP", "Noto Sans SC",
    "Noto Sans KR", "Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback",
    "IPAexGothic", "IPAGothic", "NanumGothic", "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo",
    "Microsoft YaHei", "SimHei", "Yu Gothic", "Malgun Gothic", "Noto Sans", "Noto Sans Devanagari", "Noto Sans Bengali",
    "Noto Sans Tamil", "Noto Sans Thai", "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Symbols",
    "Noto Sans Symbols 2", "Noto Emoji", "Symbola", "Arial Unicode MS", "Unifont",
)  # fmt: skip
MOST_NAMED = 3
CJK = ((0x1100, 0x11FF), (0x2E80, 0xA4CF), (0xAC00, 0xD7FF), (0xF900, 0xFAFF), (0xFF00, 0xFFEF), (0x20000, 0x3FFFF))


def width(text: str, size: float) -> float:
    """Points that a line of text takes in a figure, at a font size in points; a little more, since letters are set on
    whole pixels."""
    shown = printable(text)
    families = tuple(_families(shown, _usual()))
    return SAFETY * size * sum(_advance(letter, families) for letter in shown)


def inches(texts: Iterable[str], size: float = 8) -> float:
    """Of the widest of some lines; 0 of none."""
    return max((width(text, size) for text in texts), default=0.0) / INCH


def fitted(text: str, size: float, points: float, lines: int = 1) -> str:
    """The text on at most so many lines that are no wider than `points`; what does not fit is left out of its middle:
    rows that differ often do so at an end."""
    text = printable(text)
    if len(text) > LONGEST:
        text = _cut(text, LONGEST)
    if lines == 1 and width(text, size) <= points:
        return text
    low, high = 1, len(text)  # characters that are kept: `low` is taken, whether it fits or not
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(wrapped(_cut(text, middle), size, points)) <= lines else (low, middle - 1)
    return "\n".join(wrapped(_cut(text, low), size, points))


def wrapped(text: str, size: float, points: float) -> list[str]:
    """Lines no wider than `points`, broken at spaces, and in a word only where that alone is too wide."""
    if width(text, size) <= points:
        return [text]
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if width(longer, size) <= points:
            lines[-1] = longer
            continue
        lines += [""] if lines[-1] else []
        for letter in word:
            if lines[-1] and width(lines[-1] + letter, size) > points:
                lines.append("")
            lines[-1] += letter
    return lines


def at_ticks(labels: Iterable[str], size: float = 8) -> list[str]:
    """Names of rows as they stand at ticks: a figure grows with them, but not without end."""
    return [fitted(label, size, NAME_POINTS) for label in labels]


def columns(labels: Sequence[str], size: float, points: float, most: int = 8) -> int:
    """The most columns of a legend whose entries fit side by side, on as few lines as they need."""
    for count in range(min(len(labels), most), 1, -1):
        # As matplotlib fills them (numpy.array_split): the first have one entry more where they are not equal.
        least, more = divmod(len(labels), count)
        ends = [i * least + min(i, more) for i in range(count + 1)]
        widest = [max(width(one, size) for one in labels[a:b]) for a, b in pairwise(ends)]
        # beside its text an entry has a handle, a gap and the space to the next: 2 + 0.8 + 2 of the font's size
        if sum(widest) + 4.8 * size * count < points:
            deep = -(-len(labels) // count)
            # 7 entries in 2 lines: 4 and 3, not 6 and 1; where fewer columns, of other entries, are no wider
            fewer = -(-len(labels) // deep)
            return count if fewer == count else columns(labels, size, points, fewer)
    return 1


def lettered(text: Text) -> None:
    """Give a text the fonts that have what its own has not; a text that needs none stays as it is."""
    own = text.get_fontfamily()
    needed = _families(text.get_text(), own)
    if needed != own:
        text.set_fontfamily(needed)


def undrawable(figure: Figure) -> set[str]:
    """The characters of a figure that no font here has: they come out as boxes."""
    from matplotlib.text import Text

    every = [(one.get_text(), one.get_fontfamily()) for one in figure.findobj(Text) if isinstance(one, Text)]
    return {letter for text, families in every for letter in _lacking(text, families)}


def boxes_said(letters: Collection[str], names: Iterable[str]) -> str:
    """One sentence: which names have characters that no font here has, and which font to install."""
    found = [name for name in dict.fromkeys(names) if set(name) & set(letters)]
    shown = ", ".join(printable(name, 60) for name in found[:MOST_NAMED])
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    which = f" in {shown}{more}" if found else ""
    some = "".join(sorted(letters)[:12]) + (ELLIPSIS if len(letters) > 12 else "")
    east = any(low <= ord(letter) <= high for letter in letters for low, high in CJK)
    font = "fonts-noto-cjk" if east else "fonts-noto-core"
    return (
        f"figures show boxes{which}: no font found here has {some} (apt-get install {font}; "
        f"then remove {_cache()} and report again)"
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without matplotlib's warning for each character that no font has: `boxes_said` says it once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from", category=UserWarning)
        yield


def _cut(text: str, kept: int) -> str:
    """So many characters of a text: two thirds from its beginning, one from its end, and an ellipsis between."""
    if kept >= len(text):
        return text
    behind = kept // 3
    return text[: kept - behind].rstrip() + ELLIPSIS + text[len(text) - behind :].lstrip()


def _families(text: str, own: Sequence[str]) -> list[str]:
    """The families of a text and, as far as they lack characters, those installed that have some of them."""
    found = list(own)
    for family in _installed() if not text.isascii() else ():
        lacking = _lacking(text, found)
        if not lacking:
            break
        if lacking & _letters(family):
            found.append(family)
    return found


def _lacking(text: str, families: Sequence[str]) -> set[str]:
    if text.isascii():
        return set()
    letters = {letter for letter in text if not letter.isspace() and letter.isprintable()}
    return letters.difference(*map(_letters, families))


def _installed() -> list[str]:
    """Those of FALLBACK that matplotlib finds: of others it would log that it does not."""
    from matplotlib.font_manager import fontManager

    there = {font.name for font in fontManager.ttflist}
    return [family for family in FALLBACK if family in there]


def _usual() -> list[str]:
    from matplotlib.font_manager import FontProperties

    return list(FontProperties().get_family())


@functools.cache
def _letters(family: str) -> frozenset[str]:
    """The characters of a family."""
    return frozenset(map(chr, _font(family).get_charmap()))


@functools.cache
def _advance(letter: str, families: tuple[str, ...]) -> float:
    """From a character to the next, of the font's size; a box where no font has it."""
    from matplotlib.ft2font import LoadFlags

    family = next((family for family in families if letter in _letters(family)), None)
    if family is None:
        return 1.15
    return float(_font(family).load_char(ord(letter), flags=LoadFlags.NO_HINTING).linearHoriAdvance) / 65536 / UNIT


@functools.cache
def _font(family: str) -> Any:
    from matplotlib.font_manager import FontProperties, findfont
    from matplotlib.ft2font import FT2Font

    font = FT2Font(findfont(FontProperties(family=[family])))
    font.set_size(UNIT, INCH)
    return font


def _cache() -> str:
    """Where matplotlib keeps what fonts there are: it does not look again by itself."""
    import matplotlib

    folder = Path(matplotlib.get_cachedir())
    home = Path.home()
    return f"{Path('~') / folder.relative_to(home) if folder.is_relative_to(home) else folder}/fontlist-*.json"
