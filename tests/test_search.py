"""search.py and its Index: exact answers, filters as a loop, and one sentence for a mistake."""

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from original_checkpoint import save_as_original
from PIL import Image
from table_files import read_rows, write_table
from tiny_checkpoint import CLASSES, make_data, make_model, save_checkpoint

import embed
import search
from catalog.label_space import LabelSpace
from runtime.errors import UsageError
from serving.search import Index
from timm.models.multi_label import create_multi_label_model

ROWS = 23
BROKEN = 5


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_data(tmp_path_factory.mktemp("search"), ROWS)
    (folder / "images" / f"val-{BROKEN}.png").write_text("no picture")
    save_checkpoint(folder / "model.pth.tar", make_model())
    run_embed(folder / "val.csv", "--checkpoint", folder / "model.pth.tar", "-o", folder / "index")
    return folder


@pytest.fixture
def index(place: Path) -> Index:
    return Index(place / "index", device="cpu")


def run_embed(*argv: object) -> None:
    embed.main([*map(str, argv), "--device", "cpu", "-j", "0", "-b", "8"])


def refusal(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """Search for something wrong; return the one sentence."""
    with pytest.raises(SystemExit) as end:
        search.main([*map(str, argv), "--device", "cpu"])
    assert end.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(lines) == 1
    return lines[0].removeprefix("search.py: error: ")


def expected_rows(index: Index, vector: Any, top: int, excluded: set[int]) -> list[int]:
    products = index.embeddings.astype(np.float64) @ np.asarray(vector, np.float64)
    order = sorted(range(len(index)), key=lambda row: (-products[row], row))
    return [row for row in order if row not in excluded | {BROKEN}][:top]


def test_the_answers_are_the_most_similar_rows_without_the_image_itself(index: Index, place: Path) -> None:
    image = place / "images" / "val-3.png"
    hits = index.search(image, top=6).to_pydict()
    expected = expected_rows(index, index.embeddings[3].astype(np.float32), 6, {3})
    assert hits["image_path"] == [f"images/val-{row}.png" for row in expected]
    assert hits["query"] == [str(image)] * 6
    assert hits["rank"] == [1, 2, 3, 4, 5, 6]
    assert "model" not in vars(index)  # its row is stored
    kept = index.search(image, top=1, keep_query=True).to_pydict()
    assert kept["image_path"] == ["images/val-3.png"]
    assert kept["similarity"] == [pytest.approx(1, abs=1e-3)]


def test_a_new_image_is_embedded_by_the_model_of_the_index(index: Index, place: Path, tmp_path: Path) -> None:
    shutil.copy(place / "images" / "val-3.png", tmp_path / "copy.png")
    with Image.open(tmp_path / "copy.png") as image:
        pixels = np.asarray(image)
    in_memory = index.search([pixels, tmp_path / "copy.png", "images/val-3.png"], top=4, keep_query=True).to_pydict()
    assert in_memory["query"] == [None] * 4 + [str(tmp_path / "copy.png")] * 4 + ["images/val-3.png"] * 4
    assert in_memory["image_path"][:4] == in_memory["image_path"][4:8] == in_memory["image_path"][8:]
    assert in_memory["image_path"][0] == "images/val-3.png"
    vector = index.model.embed(pixels, normalize=True)[0]
    expected = [f"images/val-{row}.png" for row in expected_rows(index, vector, 4, set())]
    assert in_memory["image_path"][:4] == expected


def test_an_image_that_was_changed_since_is_embedded_again(place: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(place, tmp_path / "copy"))
    run_embed(copy / "images", "--checkpoint", copy / "model.pth.tar", "-o", copy / "other")
    index = Index(copy / "other", device="cpu")
    shutil.copy(copy / "images" / "val-4.png", copy / "images" / "val-3.png")
    later = (copy / "other" / "index.json").stat().st_mtime + 10
    os.utime(copy / "images" / "val-3.png", (later, later))
    assert index.search(copy / "images" / "val-3.png", top=1)["image_path"][0].as_py().endswith("val-4.png")


def test_filters_leave_what_a_loop_leaves(index: Index, place: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    table, guesses = read_rows(place / "val.csv"), index.rows.to_pydict()
    colors = [row["color"] or guesses["color:predicted"][i] for i, row in enumerate(table)]
    sizes = [row["size"] or guesses["size:predicted"][i] for i, row in enumerate(table)]
    fits = [i for i in range(ROWS) if colors[i] == "red" and sizes[i] != "M" and i != BROKEN]
    assert 0 < len(fits) < 10
    hits = index.search("images/val-0.png", where=["color=red", "size!=M"], top=50).to_pydict()
    assert hits["image_path"] == [
        f"images/val-{row}.png"
        for row in expected_rows(index, index.embeddings[0], 50, {0, *range(ROWS)} - {*fits} | {0})
    ]
    labeled = sum(row["color"] == "red" for i, row in enumerate(table) if i != BROKEN)
    reds = sum(color == "red" for i, color in enumerate(colors) if i != BROKEN)
    assert f"color=red: {reds} of 23 images ({labeled} by label, {reds - labeled} by prediction)" in caplog.messages
    assert caplog.messages[-1] == f"Only {len(hits['rank'])} images fit, and 50 were asked for"


def test_rows_in_several_parts_are_one_index(
    index: Index, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.index_rows._ROWS", 5)
    run_embed(place / "val.csv", "--checkpoint", place / "model.pth.tar", "-o", tmp_path / "parts")
    parts = Index(tmp_path / "parts", device="cpu")
    assert parts.rows["color:predicted"].num_chunks > 1
    for where in ([], ["color!=red", "size:probability>=0.1"]):
        found, expected = (one.search("images/val-0.png", where=where, top=9) for one in (parts, index))
        assert found.to_pydict() == expected.to_pydict()


def test_the_files_have_one_content(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["images/val-0.png", "images/val-1.png", "--index", str(place / "index"), "--top", "3", "--device", "cpu"]
    for name in ("hits.csv", "hits.json", "hits.html", "hits.png"):
        search.main([*words, "-o", str(tmp_path / "new" / name)])
    search.main(words)
    shown = capsys.readouterr().out.splitlines()[4:]
    with (tmp_path / "new" / "hits.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    objects = json.loads((tmp_path / "new" / "hits.json").read_text())
    assert len(rows) == len(objects) == 6
    page = (tmp_path / "new" / "hits.html").read_text()
    assert page.count("data:image/jpeg") == 8
    for row, entry in zip(rows, objects, strict=True):
        assert {name: str(entry[name]) for name in ("query", "rank", "image_path", "similarity")} == {
            name: row[name] for name in ("query", "rank", "image_path", "similarity")
        }
        for name in CLASSES:
            assert entry["labels"].get(name, "") == row[name]
            (guess,) = entry["predictions"][name]
            assert (guess["class"], str(guess["probability"])) == (row[f"{name}:predicted"], row[f"{name}:probability"])
        assert row["image_path"] in page
    assert shown[0] == "Similar to images/val-0.png:"
    assert [line.split()[2] for line in shown if not line.startswith("Similar")] == [row["image_path"] for row in rows]
    with Image.open(tmp_path / "new" / "hits.png") as sheet:
        assert sheet.size[0] > 400


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["images/val-0.png", "--index", "PLACE/none"], "there is no index PLACE/none: make one with embed.py"),
        (["images/val-0.png", "--index", "PLACE/images"], "PLACE/images is no index, as it has no index.json"),
        (["images/val-99.png"], "has no row of that path; did you mean 'images/val-9.png'?"),
        ([f"images/val-{BROKEN}.png"], "could not be read when it was embedded"),
        (["PLACE/model.pth.tar"], "none of the 1 images could be read"),
        (["images/\udcff.png"], "no such image: images/\\udcff.png, and PLACE/index has no row of that path"),
        (["images/val-0.png", "--where", "color=rde"], "'color' has no class 'rde'; did you mean 'red'?"),
        (["images/val-0.png", "--where", "colr=red"], "no attribute 'colr'; did you mean 'color'?"),
        (
            ["images/val-0.png", "--where", "color=red", "--where", "color!=red"],
            "no image of PLACE/index fits color=red and color!=red: leave a filter out",
        ),
        (["PLACE/new.png", "--checkpoint", "PLACE/none.pth.tar"], "is not there: name its place as --checkpoint"),
        (
            ["PLACE/new.png", "--checkpoint", "PLACE/other.pth.tar"],
            "did not make the index PLACE/index, or was changed since: name the file that did as --checkpoint",
        ),
    ],
)
def test_a_mistake_is_one_sentence(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    Image.new("RGB", (40, 30), "red").save(place / "new.png")
    save_checkpoint(place / "other.pth.tar", make_model(seed=1))
    words = [word.replace("PLACE", str(place)) for word in words]
    index = [] if "--index" in words else ["--index", place / "index"]
    assert sentence.replace("PLACE", str(place)) in refusal(capsys, *words, *index, "-o", tmp_path / "hits.csv")
    assert not any(tmp_path.iterdir())


def test_a_moved_checkpoint_is_found_by_its_new_name(place: Path, tmp_path: Path) -> None:
    shutil.copy(place / "model.pth.tar", tmp_path / "model_best.pth.tar")
    index = Index(place / "index", checkpoint=tmp_path, device="cpu")
    assert len(index.search(Image.new("RGB", (40, 30), "red"), top=2)) == 2


@pytest.mark.parametrize(("name", "value"), [("crop_pct", {}), ("interpolation", "x"), ("std", [0, 0, 0])])
def test_a_preprocessing_that_cannot_be_is_one_sentence(place: Path, tmp_path: Path, name: str, value: Any) -> None:
    shutil.copytree(place / "index", tmp_path / "index")
    info = json.loads((tmp_path / "index" / "index.json").read_text())
    info["preprocessing"][name] = value
    (tmp_path / "index" / "index.json").write_text(json.dumps(info))
    index = Index(tmp_path / "index", device="cpu")
    assert len(index.search("images/val-0.png", top=2)) == 2  # the stored embedding needs none
    with pytest.raises(UsageError, match=r"index\.json is damaged: no image can be prepared as its preprocessing says"):
        index.search(Image.new("RGB", (40, 30), "red"), top=2)


def test_hostile_names_change_no_answer_and_no_page(tmp_path: Path) -> None:
    name = "<script>$x^2$ =1+1 \u202e\u4e2d.png"
    make_data(tmp_path, 3)
    (tmp_path / "images" / "val-0.png").rename(tmp_path / "images" / name)
    rows = read_rows(tmp_path / "val.csv")
    rows[0]["image_path"] = f"images/{name}"
    write_table(tmp_path / "val.csv", [row | {"a<b>=c": "=cmd|'x'!A0"} for row in rows])
    save_checkpoint(tmp_path / "m.pth.tar", make_model())
    run_embed(tmp_path / "val.csv", "--checkpoint", tmp_path / "m.pth.tar", "-o", tmp_path / "index")
    words = ["images/val-1.png", "--index", str(tmp_path / "index"), "--where", "a<b>=c==cmd|'x'!A0", "--device", "cpu"]
    for file in ("h.csv", "h.json", "h.html", "h.png"):
        safe = ["--spreadsheet-safe"] if file == "h.csv" else []
        search.main([*words, "-o", str(tmp_path / file), *safe])
    page = (tmp_path / "h.html").read_text(encoding="utf-8")
    assert "<script>$x" not in page
    assert "&lt;script&gt;$x" in page
    assert "\u202e" not in page
    assert name in {
        Path(one["image_path"]).name for one in json.loads((tmp_path / "h.json").read_text(encoding="utf-8"))
    }
    assert "'=cmd|" in (tmp_path / "h.csv").read_text(encoding="utf-8")


def test_multi_valued_attributes_and_checkpoints_of_the_original_work(tmp_path: Path) -> None:
    make_data(tmp_path, 6)
    rows = read_rows(tmp_path / "val.csv")
    write_table(
        tmp_path / "tags.csv",
        [{"image_path": row["image_path"], "tags": ["a;b", "b", "", ";"][i % 4]} for i, row in enumerate(rows)],
    )
    torch.manual_seed(0)
    space = LabelSpace({"tags": ("a", "b", "c")}, {"tags"}, ";")
    model = create_multi_label_model("test_efficientnet", space, image_size=(3, 32, 32), projection_dim=8)
    save_checkpoint(tmp_path / "m.pth.tar", model, thresholds={"tags": 0.5})
    run_embed(tmp_path / "tags.csv", "--checkpoint", tmp_path / "m.pth.tar", "-o", tmp_path / "i", "--projection")
    index = Index(tmp_path / "i", device="cpu")
    found = index.search("images/val-2.png", where=["tags:given=b"]).to_pydict()
    assert {*found["image_path"]} == {f"images/val-{i}.png" for i in (0, 1, 4, 5)}
    assert {*index.search("images/val-2.png", where=["tags:given!=b"])["image_path"].to_pylist()} == {
        "images/val-3.png"
    }
    with pytest.raises(UsageError, match="itself fits: leave a filter out"):
        index.search("images/val-3.png", where=["tags:given!=b"])
    search.main(["images/val-2.png", "--index", str(tmp_path / "i"), "-o", str(tmp_path / "h.json"), "--device", "cpu"])
    entries = json.loads((tmp_path / "h.json").read_text())
    assert {entry["image_path"]: entry["labels"].get("tags") for entry in entries}["images/val-0.png"] == ["a", "b"]
    assert all(0.5 <= one["probability"] <= 1 for entry in entries for one in entry["predictions"]["tags"])

    save_as_original(make_model(), tmp_path / "original.pth.tar")
    run_embed(tmp_path / "val.csv", "--checkpoint", tmp_path / "original.pth.tar", "-o", tmp_path / "o")
    assert len(Index(tmp_path / "o").search("images/val-0.png", where=["color=red"])) >= 1
