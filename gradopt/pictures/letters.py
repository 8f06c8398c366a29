"""Fonts that have the letters of a text, and what is written in place of letters that none of them has."""

from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import ImageFont

OWN = ""
"""Pillow's own font: it is always there, and has the letters of ASCII alone."""

DEJAVU = "DejaVuSans.ttf"
"""The font of matplotlib's charts, which comes with it: European and Arabic letters, and signs of mathematics."""

FACES = (
    *("NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "NotoSansCJKjp-Regular.otf", "NotoSansCJKkr-Regular.otf"),
    *("wqy-microhei.ttc", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf", "DroidSansFallback.ttf", "unifont.ttf"),
    *("NotoSansDevanagari-Regular.ttf", "NotoSansHebrew-Regular.ttf", "NotoSansThai-Regular.ttf", "FreeSans.ttf"),
    *("Arial Unicode.ttf", "PingFang.ttc", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc"),
    *("msyh.ttc", "YuGothM.ttc", "malgun.ttf", "Nirmala.ttf", "segoeui.ttf"),
)
"""Files of fonts with other letters, as Linux, macOS and Windows have them; the first that is found and has them."""

NO_LETTER = "\U0010ffff"
"""No font has it: what is drawn for it, a box, is drawn for every letter that is missing."""


def legible(text: str, first: str = OWN) -> tuple[str, str]:
    r"""The text as it can be drawn, and the file of the font that has the most of it. A letter that it lacks is written
    as Python writes it: `\u8d28`.

    Args:
        first: The font to be taken if it has all letters.
    """
    if text.isascii() and text.isprintable():
        return text, first
    best, most = first, -1
    for file in _files(first):
        number = sum(_has(file, letter) for letter in text)
        if number > most:
            best, most = file, number
        if number == len(text):
            break
    return "".join(one if _has(best, one) else one.encode("unicode_escape").decode() for one in text), best


@cache
def font(file: str, size: float) -> Any:
    """A font that `legible` named, its letters so many pixels high."""
    return ImageFont.truetype(file, size) if file else ImageFont.load_default(size)


def _files(first: str) -> Iterator[str]:
    yield first
    for name in (DEJAVU, *FACES):
        found = _found(name)
        if found is not None and found != first:
            yield found


@cache
def _found(name: str) -> str | None:
    """The file of an installed font."""
    try:
        return str(ImageFont.truetype(name, 10).path)
    except OSError:
        return dejavu() if name == DEJAVU else None


def dejavu() -> str | None:
    """The file of DejaVu that comes with matplotlib; None without that."""
    spec = find_spec("matplotlib")  # which need not be imported for it
    file = None if spec is None or spec.origin is None else Path(spec.origin).parent / "mpl-data/fonts/ttf" / DEJAVU
    return None if file is None or not file.is_file() else str(file)


@cache
def _has(file: str, letter: str) -> bool:
    if not letter.isprintable():
        return False
    mask, none = (font(file, 20).getmask(one) for one in (letter, NO_LETTER))
    return (mask.size, bytes(mask)) != (none.size, bytes(none))
