"""The page of an audit: whole, small, without network, and without any markup from the user's names."""

import csv
import io
from pathlib import Path

import pytest
from audit_case import HOSTILE, plant
from drawn_photograph import photograph
from page_reader import Reader, read_page
from table_files import write_table

from audit import main
from reports.page_style import SCRIPT, STYLE, cell, escape, number, page

NAMES = [HOSTILE, '"><img src=x onerror=alert(1)>', "' onload='alert(1)", "</style><b>", "=1+2", "&lt;b&gt;"]


def check(text: str) -> Reader:
    """Check a page, which has no script and style but the shared ones."""
    reader = read_page(text)
    assert [one for one in reader.texts if "alert" in one and one in (SCRIPT, STYLE)] == []
    return reader


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = plant(tmp_path_factory.mktemp("page"))
    main([str(folder), "-o", str(folder / "out"), "-j", "0", "--attributes", "color", "shape", "--rare", "3"])
    return folder / "out" / "audit.html"


def test_the_page_is_whole_and_loads_nothing(planted: Path) -> None:
    reader = check(planted.read_text(encoding="utf-8"))
    assert sum(1 for _ in reader.named("img")) > 20
    policy = next(one["content"] for one in reader.named("meta") if one.get("http-equiv"))
    assert str(policy).startswith("default-src 'none'; img-src data:;")
    assert next(reader.named("html"))["lang"] == "en"
    assert all(attributes["alt"] is not None for attributes in reader.named("img"))


def test_the_page_has_each_kind_with_its_count_and_advice(planted: Path) -> None:
    text = planted.read_text(encoding="utf-8")
    assert '<h3 id="leakage-near">Leakage: nearly the same image in two splits (2)</h3>' in text
    assert '<h3 id="contradiction">Labels of duplicates that contradict each other (2)</h3>' in text
    assert text.index('id="unreadable"') < text.index('id="contradiction"') < text.index('id="gray"')


def test_hostile_names_are_text_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "<b>data"
    folder.mkdir()
    image = folder / '"><svg onload=alert(1)>\x1b[2J\u202ec.png'
    photograph(0).save(image)
    header = '<img src=x onerror="alert(2)">'
    rows = [
        {"image_path": image.name, header: name, "other": NAMES[(i + 1) % 6], "group": name}
        for i, name in enumerate(NAMES * 3)
    ]
    write_table(folder / "train.csv", rows)
    write_table(folder / "val.csv", rows[:4])
    main([str(folder), "-o", str(tmp_path / "out"), "-j", "0", "--group", "group"])
    reader = check((tmp_path / "out" / "audit.html").read_text(encoding="utf-8"))
    shown = "".join(reader.texts)
    assert all(name in shown for name in NAMES)
    assert '"><svg onload=alert(1)>\\x1b[2J\\u202ec.png' in shown
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    found = list(csv.DictReader(io.StringIO((tmp_path / "out" / "findings.csv").read_text(encoding="utf-8"))))
    assert {one["image path"] for one in found} >= {image.name}


def test_a_page_stays_small_whatever_the_tables_hold(tmp_path: Path) -> None:
    photograph(0).save(tmp_path / "a.jpg")
    rows = [
        {
            "image_path": "a.jpg",
            **{f"{'<' * 300}{column}": f"{'&' * 500}{(i * 7 + column) % 90}" for column in range(12)},
        }
        for i in range(400)
    ]
    write_table(tmp_path / "train.csv", rows)
    write_table(tmp_path / "val.csv", rows)
    main([str(tmp_path), "-o", str(tmp_path / "out"), "-j", "0"])
    text = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    assert len(text.encode()) < 2_000_000
    check(text)


def test_words_are_cut_and_escaped() -> None:
    assert escape("<b>\n&\"'") == "&lt;b&gt;\\n&amp;&quot;&#x27;"
    assert len(escape("x" * 1000)) == 160
    assert cell("<", "long", "a") == '<td class=long data-head="a">&lt;</td>'
    assert number(1234) == '<td class="number" data-sort="1234">1,234</td>'
    check(page("<t>", "<h1>a</h1>", "<p>b</p>", "<p>c</p>"))
