"""The pages for people, in a browser: no error, network or accessibility fault; tables, matrices and the map react."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from audit_case import plant
from browser import SCREENS, Watched, accessibility_faults, open_browser
from report_case import class_results, run_results, set_results
from test_report_page import report

from audit import main as audit
from reports.comparison_page import ComparedRun, write_comparison
from reports.run_page import write_run_page

CLASSES = [f"Color {i:03}" for i in range(141)]
IMAGES = 2000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def run_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the report of a run with an attribute of 141 classes, one of 7, and one with several values."""
    parts = [
        class_results("color", CLASSES, IMAGES),
        class_results("size", "abcdefg", IMAGES, seed=1),
        set_results("tags", ["striped", "cotton", "blue"], IMAGES, seed=2),
    ]
    path = tmp_path_factory.mktemp("run") / "report.html"
    write_run_page(path, report(run_results(parts, IMAGES, 300)))
    return path


@pytest.fixture(scope="module")
def pages(run_page: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    runs = [
        ComparedRun(name, run_results([class_results("color", "abc", 400, skill=skill)], 400, 9), None, {"lr": skill})
        for name, skill in (("old", 1.0), ("new", 3.0))
    ]
    write_comparison(folder / "comparison.html", runs)
    planted = plant(folder / "planted")
    audit([str(planted), "-o", str(folder / "audit"), "-j", "0", "--attributes", "color", "shape"])
    return {"run": run_page, "comparison": folder / "comparison.html", "audit": folder / "audit" / "audit.html"}


def open_all(page: Any) -> None:
    """Open all that is folded, so that the checker sees it."""
    page.evaluate("document.querySelectorAll('details').forEach(function (one) { one.open = true; })")


@pytest.mark.parametrize("name", ["run", "comparison", "audit"])
def test_a_page_has_no_fault_on_any_screen(browser: Any, pages: dict[str, Path], name: str) -> None:
    for width, scheme in SCREENS:
        watched = Watched(browser, width, scheme)
        page = watched.open(pages[name])
        open_all(page)
        page.wait_for_timeout(200)
        assert watched.overflow() <= 0, (width, scheme)
        assert accessibility_faults(page) == [], (width, scheme)
        assert watched.faults == []
        assert {url for url in watched.asked if not url.startswith("data:")} == {pages[name].as_uri()}
        page.close()


def test_the_checker_of_accessibility_finds_a_fault(browser: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<html><title>t</title><main><h1>t</h1><p style='color:#ccc;background:#fff'>pale</p><ul><li>x</ul>"
        "<button></button><img src='data:,'><table><tr><th>a<td>b</table><a href='#x'>to</a></main>"
    )
    found = " ".join(accessibility_faults(Watched(browser).open(bad)))
    assert all(words in found for words in ("critical", "serious", "pale", "<img"))


def test_a_table_of_classes_sorts_by_pointer_and_by_keyboard(browser: Any, run_page: Path) -> None:
    page = Watched(browser).open(run_page)
    open_all(page)
    table = page.locator("table", has=page.locator("th button", has_text="Class")).first
    names = [head.inner_text() for head in table.locator("th").all()]

    def column(place: int) -> list[str]:
        cells = table.locator(f"tbody tr > :nth-child({place + 1})")
        return cells.evaluate_all("all => all.map(one => one.getAttribute('data-sort') || one.textContent)")

    rows = sorted(column(0))
    assert set(rows) == set(CLASSES)
    for place in range(len(names)):
        button = table.locator("th").nth(place).locator("button")
        button.click()
        assert table.locator("th").nth(place).get_attribute("aria-sort") == "ascending"
        up = column(place)
        button.focus()
        page.keyboard.press("Enter")
        assert table.locator("th").nth(place).get_attribute("aria-sort") == "descending"
        assert table.locator("[aria-sort]").count() == 1
        down = column(place)
        assert sorted(column(0)) == rows  # no row is lost
        if place:
            numbers = [float(one) for one in up if one.replace(".", "").lstrip("-").isdigit()]
            assert numbers == sorted(numbers)
        else:
            assert up == rows
        assert sorted(down) == sorted(up)
        assert down[0] == up[-1]


def test_a_confusion_matrix_says_the_cell_under_the_pointer_and_at_the_keys(browser: Any, run_page: Path) -> None:
    page = Watched(browser).open(run_page)
    matrix = page.locator(".matrix").nth(1)  # 7 named classes
    matrix.scroll_into_view_if_needed()
    canvas, words = matrix.locator("canvas"), matrix.locator(".readout")
    hint = words.inner_text()
    canvas.focus()
    page.keyboard.press("ArrowDown")
    first = words.inner_text()
    assert first != hint
    assert first.startswith("Label ")
    assert " images (" in first
    page.keyboard.press("ArrowRight")
    assert words.inner_text() != first
    page.keyboard.press("ArrowLeft")
    assert words.inner_text() == first
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.7)
    assert words.inner_text() not in (first, hint)
    assert words.inner_text().startswith("Label ")


def test_a_confusion_matrix_of_141_classes_is_drawn_in_several_orders(browser: Any, run_page: Path) -> None:
    page = Watched(browser).open(run_page)
    matrix = page.locator(".matrix").first
    canvas, words, choice = (matrix.locator(name) for name in ("canvas", ".readout", "select"))
    values = choice.locator("option").evaluate_all("all => all.map(one => one.value)")
    assert len(values) > 1
    hint = words.inner_text()
    canvas.focus()
    page.keyboard.press("ArrowDown")
    assert words.inner_text().startswith("Label Color ")
    drawn = "canvas => canvas.toDataURL()"
    before = canvas.evaluate(drawn)
    choice.select_option(values[1])
    assert words.inner_text() == hint
    assert canvas.evaluate(drawn) != before


def test_the_map_shows_the_image_under_the_pointer_and_at_the_keys(browser: Any, run_page: Path) -> None:
    page = Watched(browser).open(run_page)
    plane, lines = page.locator(".map canvas.plane"), page.locator(".map .lines")
    plane.scroll_into_view_if_needed()
    lines.locator("div").first.wait_for()  # the first image, once the pictures are decoded
    picture = page.locator(".map canvas.picture")
    drawn = "canvas => canvas.toDataURL()"
    seen = {lines.inner_text(): picture.evaluate(drawn)}
    plane.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft"):
        page.keyboard.press(key)
        seen[lines.inner_text()] = picture.evaluate(drawn)
    box = plane.bounding_box()
    for share in (0.3, 0.5, 0.7):
        page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] * share)
        seen[lines.inner_text()] = picture.evaluate(drawn)
    assert len(seen) >= 4
    assert len(set(seen.values())) >= 4  # the picture changes with the words
    assert all("color: " in text and "tags: " in text for text in seen)


def test_the_map_is_colored_by_any_attribute_and_shows_one_group_alone(browser: Any, run_page: Path) -> None:
    page = Watched(browser).open(run_page)
    plane, by = page.locator(".map canvas.plane"), page.locator(".map select.by")
    legend = page.locator(".map .legend button")
    drawn = "canvas => canvas.toDataURL()"
    values = by.locator("option").evaluate_all("all => all.map(one => one.value)")
    looks = set()
    for value in values:
        by.select_option(value)
        assert legend.count() >= 1
        looks.add(plane.evaluate(drawn))
    assert len(looks) == len(values) >= 4
    whole = plane.evaluate(drawn)
    legend.first.click()
    assert legend.first.get_attribute("aria-pressed") == "true"
    assert plane.evaluate(drawn) != whole
    legend.first.click()
    assert legend.first.get_attribute("aria-pressed") == "false"
    assert plane.evaluate(drawn) == whole
