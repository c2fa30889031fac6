"""Text in pictures: names of classes and attributes in any script, of any length, with any punctuation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

# Fonts for scripts that matplotlib's own font lacks; the machine may have some of them.
_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei"),
    *("PingFang SC", "Hiragino Sans", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Arial Unicode MS"),
    *("Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Bengali", "Noto Sans Tamil"),
)


@cache
def _font_families() -> tuple[str, ...]:
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return ("DejaVu Sans", *(family for family in _FONTS if family in installed))


def font_families() -> list[str]:
    """Return the fonts to try in order: matplotlib's own, then this machine's fonts for other scripts."""
    return list(_font_families())


def drawable(words: str, families: Sequence[str], length: int | None = None) -> str:
    r"""Return words on one line, cut to `length` characters, with \u escapes for characters that no font has."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    fonts = [get_font(findfont(FontProperties(family=family))) for family in families]
    words = " ".join(words.split())
    if length is not None and len(words) > length:
        words = words[: length - 1].rstrip() + "…"
    return "".join(
        char if any(font.get_char_index(ord(char)) for font in fonts) else char.encode("unicode_escape").decode()
        for char in words
    )
