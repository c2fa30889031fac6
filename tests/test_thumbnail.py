"""Small copies of images inside a page."""

import base64
import io
from pathlib import Path

import pytest
from drawn_photograph import photograph
from PIL import Image

from reports.thumbnail import SIDE, thumbnail


@pytest.mark.parametrize(("size", "shown"), [((1200, 1600), (84, 112)), ((40, 30), (40, 30)), ((3000, 2), (112, 1))])
def test_a_thumbnail_is_a_small_jpeg_that_is_never_enlarged(tmp_path: Path, size: tuple, shown: tuple) -> None:
    photograph(0, 1200, 1600).resize(size).save(tmp_path / "a.png")
    kind, _, data = thumbnail(str(tmp_path / "a.png")).partition(",")
    assert kind == "data:image/jpeg;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.size == shown
    assert max(image.size) <= SIDE
    assert len(data) < 9_000


def test_an_unreadable_image_has_no_thumbnail(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no image")
    assert thumbnail(str(tmp_path / "a.jpg")) == ""
    assert thumbnail(str(tmp_path / "none.jpg")) == ""
