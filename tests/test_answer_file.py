import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from table_files import cells, refusal, write_file

from catalog.answer_file import AnswerFile, check_class
from catalog.build_label_space import build_label_space
from catalog.table import read_table
from runtime.errors import UsageError


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[AnswerFile]:
    file = AnswerFile(tmp_path / "answers.csv")
    yield file
    file.close()


def test_labels_of_an_image_share_a_row_of_a_table_that_training_takes(answers: AnswerFile) -> None:
    for image, attribute, label in [
        ("a.png", "color", "Red"),
        ("b.png", "color", "Navy, Blue"),
        ("a.png", "kind", "x"),
        ("b.png", "kind", "=1+1"),
        ("'=c.png", "kind", "'=2"),
    ]:
        answers.put(image, attribute, label)
    table = read_table(answers.path)
    assert cells(table) == [["a.png", "Red", "x"], ["b.png", "Navy, Blue", "=1+1"], ["'=c.png", None, "'=2"]]
    assert build_label_space(table).classes == {"color": ("Navy, Blue", "Red"), "kind": ("'=2", "=1+1", "x")}


def test_the_first_label_of_a_cell_stays(answers: AnswerFile) -> None:
    assert answers.put("a.png", "color", "Red") == "Red"
    assert answers.put("a.png", "color", "Blue") == "Red"
    assert answers.get("a.png", "color") == "Red"


def test_what_is_taken_back_leaves_neither_a_row_nor_a_column_behind(answers: AnswerFile) -> None:
    answers.put("a.png", "color", "Red")
    answers.put("b.png", "kind", "x")
    answers.remove("b.png", "kind")
    answers.remove("b.png", "kind")
    assert answers.path.read_text() == "image_path,color\na.png,Red\n"
    assert not answers.has("b.png", "kind")


def test_a_table_of_the_user_keeps_what_it_has(tmp_path: Path) -> None:
    text = "id,image_path,Color \n7,a.png,\n8,b.png,Red\n9,c.png,\n"
    file = AnswerFile(write_file(tmp_path / "t.csv", text))
    assert file.get("b.png", "Color") == "Red"
    file.put("a.png", "Color", "Blue")
    file.put("d.png", "Color", "Red")
    file.remove("a.png", "Color")
    file.close()
    assert file.path.read_text() == "id,image_path,Color \n7,a.png,\n8,b.png,Red\n9,c.png,\n,d.png,Red\n"


def test_a_blank_column_of_the_user_stays_and_a_refused_file_leaves_no_lock(tmp_path: Path) -> None:
    file = AnswerFile(write_file(tmp_path / "t.csv", "image_path,color\na.png,\n"))
    file.put("a.png", "color", "Red")
    file.remove("a.png", "color")
    file.close()
    assert file.path.read_text() == "image_path,color\na.png,\n"
    assert refusal(AnswerFile, write_file(file.path, "color\n"))
    assert not list(tmp_path.glob(".*"))


def test_an_edit_beside_the_process_is_kept(answers: AnswerFile) -> None:
    answers.put("a.png", "color", "Red")
    write_file(answers.path, "image_path,color\na.png,Red\nb.png,Green\n")
    assert answers.put("b.png", "color", "Blue") == "Green"
    answers.put("c.png", "color", "Blue")
    assert answers.path.read_text() == "image_path,color\na.png,Red\nb.png,Green\nc.png,Blue\n"


def test_several_threads_lose_no_label_and_a_reader_sees_whole_files(answers: AnswerFile) -> None:
    def give(first: int) -> None:
        for number in range(first, 40, 4):
            answers.put(f"{number}.png", "color", f"class {number}")

    threads = [threading.Thread(target=give, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = answers.path.read_text().splitlines()
    assert sorted(lines[1:]) == sorted(f"{number}.png,class {number}" for number in range(40))


def test_another_process_is_refused_until_this_one_lets_go(answers: AnswerFile) -> None:
    assert "another process writes answers" in refusal(AnswerFile, answers.path)
    answers.close()
    again = AnswerFile(answers.path)
    again.close()
    assert not list(answers.path.parent.glob(".*"))


def test_a_label_that_cannot_be_written_is_no_label(answers: AnswerFile, monkeypatch: pytest.MonkeyPatch) -> None:
    answers.put("a.png", "color", "Red")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UsageError, match="No space left"):
        answers.put("b.png", "color", "Red")
    assert not answers.has("b.png", "color")
    assert answers.path.read_text() == "image_path,color\na.png,Red\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("color\nRed\n", "has no column image_path"),
        ("image_path,color\na.png,Red\na.png,Blue\n", "line 3: 'a.png' has color 'Blue', and 'Red' before: keep one"),
        ("image_path,color\na.png\n", "line 2: 1 cells, and the header has 2"),
        ('image_path,color\n"a.png,Red\n', "line 2: unexpected end of data"),
        (b"image_path,color\na.png,Gr\xfcn\n", "is not UTF-8"),
    ],
)
def test_a_faulty_table_is_refused(tmp_path: Path, text: str | bytes, words: str) -> None:
    assert words in refusal(AnswerFile, write_file(tmp_path / "t.csv", text))


@pytest.mark.parametrize(("text", "words"), [("  ", "is blank"), ("a|b", "holds '|'"), ("x" * 201, "201 characters")])
def test_no_class_is_made_of_blanks_or_separators(text: str, words: str) -> None:
    assert words in refusal(check_class, text)


def test_a_class_is_tidied_as_a_cell_is() -> None:
    assert check_class(" Navy\u00a0 Blue ") == "Navy Blue"


def test_rows_that_share_an_image_stay_and_all_get_its_label(tmp_path: Path) -> None:
    text = "sku,image_path,color\n1,a.png,\n2,b.png,Red\n3,a.png, \n"
    file = AnswerFile(write_file(tmp_path / "t.csv", text), ["color"])
    assert not file.has("a.png", "color")  # a cell of spaces has no label
    assert file.put("a.png", "color", "Blue") == "Blue"
    assert file.path.read_text() == "sku,image_path,color\n1,a.png,Blue\n2,b.png,Red\n3,a.png,Blue\n"
    file.remove("a.png", "color")
    assert file.path.read_text() == "sku,image_path,color\n1,a.png,\n2,b.png,Red\n3,a.png,\n"
    file.close()
