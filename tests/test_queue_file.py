from pathlib import Path

import pytest
from PIL import Image
from table_files import refusal, write_file

from catalog.queue_file import find_image, queue_roots, read_queue

HEADER = "rank,image_path,attribute,guess_1,probability_1,guess_2,probability_2\n"


def test_a_queue_has_its_cells_in_order_and_each_once(tmp_path: Path) -> None:
    rows = (
        "1,a.png,color,Red,0.6,Blue,0.3\n2,a.png,kind,'=1+1,0.5,,\n3,b.png,color,Blue,,Red,1\n4,a.png,color,Blue,,,\n"
    )
    cells = read_queue(write_file(tmp_path / "q.csv", HEADER + rows))
    assert [(cell.image_path, cell.attribute) for cell in cells] == [
        ("a.png", "color"),
        ("a.png", "kind"),
        ("b.png", "color"),
    ]
    assert cells[0].guesses == (("Red", 0.6), ("Blue", 0.3))
    assert cells[1].guesses == (("=1+1", 0.5),)  # as fill.py --spreadsheet-safe writes it
    assert cells[2].guesses == (("Blue", None), ("Red", 1.0))


def test_a_queue_needs_no_guesses(tmp_path: Path) -> None:
    [cell] = read_queue(write_file(tmp_path / "q.csv", "image_path,attribute\na.png,color\n"))
    assert cell.guesses == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image_path,color\na.png,Red\n", "has no column 'attribute', so it is no queue"),
        ("image_path,attribute\na.png,\n", "q.csv line 2: attribute is blank"),
        (HEADER + "1,a.png,color,Red,often,,\n", "q.csv line 2: probability_1 'often' is no number from 0 to 1"),
    ],
)
def test_a_faulty_queue_is_refused_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    assert words in refusal(read_queue, write_file(tmp_path / "q.csv", text))


def test_images_are_found_beside_the_queue_or_in_the_named_folder(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "pictures" / "a.png")
    queue = write_file(tmp_path / "q.csv", "image_path,attribute\ngone.png,color\na.png,color\n")
    cells = read_queue(queue)
    assert "name the folder that its paths are relative to" in refusal(queue_roots, queue, None, cells)
    roots = queue_roots(queue, str(tmp_path / "pictures"), cells)
    assert find_image("a.png", roots) == str(tmp_path / "pictures" / "a.png")
    assert find_image("gone.png", roots) == ""
    assert queue_roots(queue, None, read_queue(write_file(queue, "image_path,attribute\npictures/a.png,color\n")))
