"""Words in pictures: length, lines, and characters without a glyph."""

from reports.figure_text import drawable, font_families


def test_words_are_shortened_and_put_on_one_line() -> None:
    assert drawable("two\n lines", font_families(), 20) == "two lines"
    assert drawable("a very long name indeed", font_families(), 11) == "a very lon…"


def test_characters_without_a_glyph_are_escaped() -> None:
    assert drawable("red \U0010fffd", font_families(), 20) == "red \\U0010fffd"


def test_the_first_font_is_the_one_that_matplotlib_ships() -> None:
    assert font_families()[0] == "DejaVu Sans"
