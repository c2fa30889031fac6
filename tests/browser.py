"""Pages in headless Chromium, for tests, which are skipped without a browser or requirements-pages.txt."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
]
SCREENS = [(1280, "light"), (390, "dark")]  # width in CSS pixels, color scheme


@contextmanager
def open_browser() -> Iterator[Any]:
    """Yield a browser of playwright; skip the test without one."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=program, args=SWITCHES)


class Watched:
    """A page, with what it reports as errors and what it asks of the network.

    Attributes:
        page: playwright's page.
        faults: errors on the console, exceptions and dialogs.
        asked: addresses that it loaded.
    """

    def __init__(self, browser: Any, width: int = 1280, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.faults: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda line: self.faults.append(line.text) if line.type == "error" else None)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: self.faults.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def open(self, path: Path) -> Any:
        """Open a file; return the page."""
        self.page.goto(path.as_uri())
        return self.page

    def overflow(self) -> int:
        """Return how many CSS pixels the page is wider than the screen."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - innerWidth"))


def accessibility_faults(page: Any) -> list[str]:
    """Return what axe-core, the checker that browsers' own tools use too, finds wrong in what is shown now."""
    package = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    page.evaluate((files(package) / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 15, "axe-core checked next to nothing"
    return [f"{one['impact']}: {one['help']}: {one['nodes'][0]['html']}" for one in found["violations"]]
