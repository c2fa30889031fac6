"""app.py: its mistakes, and the page in a browser, which uploads a photograph, labels cells and reloads."""

import csv
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from browser import SCREENS, Watched, accessibility_faults, open_browser
from tiny_checkpoint import make_data, make_model, save_checkpoint

import app
from catalog.answer_file import AnswerFile
from catalog.queue_file import queue_roots, read_queue
from catalog.table import read_table
from options.app import parse_app_args
from runtime.errors import UsageError
from serving import MultiLabel
from serving.labeling_desk import LabelingDesk
from serving.promise import Promise
from serving.web_site import Site, make_site

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--checkpoint is missing"),
        (["--checkpoint", "a", "--answers", "b.csv"], "--answers needs --queue"),
        (["--checkpoint", "a", "--image-root", "b"], "--image-root needs --queue"),
        (["--checkpoint", "a", "--queue", "gone.csv"], "--queue: no such file: gone.csv"),
        (["--checkpoint", "a", "--queue", "q.txt"], "does not end in .csv"),
        (["--checkpoint", "a", "--port", "70000"], "70000 is not a port from 0 to 65,535"),
        (["--checkpoint", "a", "--no-abstain", "--precision", "0.9"], "--precision needs --abstain"),
    ],
)
def test_mistakes_are_one_sentence(mistake: Callable[..., str], words: list[str], message: str) -> None:
    assert message in mistake(*words, parse=parse_app_args)


def test_a_port_in_use_is_a_mistake() -> None:
    with app.open_port("127.0.0.1", 0) as place, pytest.raises(UsageError, match="cannot listen on --host 127"):
        app.open_port("127.0.0.1", place.getsockname()[1])
    with pytest.raises(UsageError, match="cannot listen on --host 192"):
        app.open_port("192.0.2.1", 0)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs starlette and uvicorn: pip install -r "):
        app.check_packages()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = make_data(tmp_path / "data")
    with (folder / "queue.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["rank", "image_path", "attribute", "guess_1", "probability_1", "guess_2", "probability_2"])
        for rank in range(4):
            writer.writerow([rank, f"images/val-{rank}.png", "color", "red", "0.6", HOSTILE, "0.3"])
    return folder


@pytest.fixture
def address(data: Path) -> Iterator[str]:
    """Return the address of a running server."""
    flags = {"attribute_weights": {}, "data_dir": str(data), "val_split": "val"}
    model = MultiLabel(save_checkpoint(data / "run" / "last.pth.tar", make_model(), args=flags), device="cpu")
    queue = data / "queue.csv"
    cells, answers = read_queue(queue), AnswerFile(data / "answers.csv")
    desk = LabelingDesk(cells, queue_roots(queue, None, cells), answers, model.label_space)
    site = make_site(Site(model, Promise(model, 0.5, None), None, desk), "127.0.0.1")
    with app.open_port("127.0.0.1", 0) as place:
        server = uvicorn.Server(uvicorn.Config(site, http="h11", ws="none", lifespan="off", log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
        thread.start()
        yield f"http://127.0.0.1:{place.getsockname()[1]}"
        server.should_exit = True
        thread.join()
    answers.close()


@pytest.fixture
def browser() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


def labels(data: Path) -> list[list[str]]:
    with (data / "answers.csv").open(newline="") as file:
        return list(csv.reader(file))


def test_a_browser_reads_a_photograph_labels_cells_and_reloads(browser: Any, address: str, data: Path) -> None:
    watched = Watched(browser)
    page, faults = watched.page, watched.faults
    page.goto(address)

    # a photograph, whose name is hostile
    content = (data / "images" / "val-0.png").read_bytes()
    page.set_input_files("#file", {"name": f"../{HOSTILE}.png", "mimeType": "image/png", "buffer": content})
    page.wait_for_selector("#attributes .attribute")
    assert page.locator("#attributes h3").all_inner_texts() == ["color", "size"]
    assert page.locator("#status").inner_text() == f"../{HOSTILE}.png"
    shown = "document.getElementById('canvas').toDataURL()"
    maps = []
    for line in page.locator(".attribute > ul > li:first-child button").all():
        line.click()
        assert line.get_attribute("aria-pressed") == "true"
        maps.append(page.evaluate(shown))
    assert len(maps) == 2
    assert maps[0] != maps[1]  # where it looked moves with the attribute

    # no image
    page.set_input_files("#file", {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": b"%!PS-Adobe-3.0 EPSF-3.0\n"})
    page.wait_for_selector("#error:not(:empty)")
    assert "it is EPS, a format that is not read" in page.locator("#error").inner_text()
    page.wait_for_selector("#answer", state="hidden")
    assert all("400" in fault for fault in faults), faults
    faults.clear()

    # three cells: a key, another class, which is taken back, a new class, and a key after a skipped cell
    def wait(count: int, row: int) -> None:
        page.get_by_text(f"{count} of 4 labeled").wait_for()
        page.get_by_text(f"images/val-{row}.png", exact=True).wait_for()

    page.click("#tab-queue")
    wait(0, 0)
    page.keyboard.press("1")
    wait(1, 1)
    page.keyboard.press("/")
    page.keyboard.type("green")
    page.keyboard.press("Enter")
    wait(2, 2)
    page.keyboard.press("u")
    wait(1, 1)
    assert labels(data) == [["image_path", "color"], ["images/val-0.png", "red"]]
    page.keyboard.press("2")
    page.wait_for_selector("#queue-error:not(:empty)")  # a new class is asked about
    page.keyboard.press("2")
    wait(2, 2)
    page.keyboard.press("s")
    wait(2, 3)
    page.keyboard.press("1")
    wait(3, 2)

    # what is left
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert page.locator("#count").inner_text() == "3 of 4 labeled"
    assert page.locator("#cell-name").inner_text() == "images/val-2.png"
    given = {"images/val-0.png": "red", "images/val-1.png": HOSTILE, "images/val-3.png": "red"}
    assert dict(labels(data)[1:]) == given
    assert read_table(data / "answers.csv").attributes == ("color",)
    assert not faults
    assert all(url.startswith((address, "data:")) for url in watched.asked)


def test_the_page_has_no_accessibility_fault_on_any_screen(browser: Any, address: str, data: Path) -> None:
    for width, scheme in SCREENS:
        watched = Watched(browser, width, scheme)
        page = watched.page
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        page.set_input_files("#file", data / "images" / "val-0.png")
        page.wait_for_selector("#attributes .attribute")
        assert accessibility_faults(page) == [], (width, scheme)
        page.click("#tab-queue")
        page.get_by_text("0 of 4 labeled").wait_for()
        assert accessibility_faults(page) == [], (width, scheme)
        assert watched.overflow() <= 0, (width, scheme)
        assert watched.faults == []
        page.close()
