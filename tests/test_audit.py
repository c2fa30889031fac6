"""audit.py as a command: it finds what is planted, in any form of table, and leaves whole files or none."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from audit_case import PLANTED, plant
from drawn_photograph import photograph
from PIL import Image
from table_files import read_rows, write_table
from tiny_checkpoint import make_model, save_checkpoint

from audit import main

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plant(tmp_path_factory.mktemp("audit"))


def audit(output: Path, *words: object) -> list[dict[str, str]]:
    """Run the command with its decoding in this process, and return the rows of findings.csv."""
    main([*map(str, words), "-o", str(output), "-j", "0"])
    assert (output / "audit.html").stat().st_size < 2_000_000
    with (output / "findings.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def essence(findings: list[dict[str, str]]) -> set[tuple[str, ...]]:
    names = ("kind", "split", "image path", "attribute", "other image")
    return {tuple(one[name].removeprefix("images/") for name in names) for one in findings}


def test_everything_that_is_planted_is_found_and_nothing_else_about_images(planted: Path, tmp_path: Path) -> None:
    found = audit(tmp_path, planted, "--attributes", "color", "shape")
    of_labels = {"rare-class", "rare-combination", "absent-combination"}
    assert {one for one in essence(found) if one[0] not in of_labels} == PLANTED


def test_a_finding_names_the_line_of_its_row(planted: Path, tmp_path: Path) -> None:
    found = {(one["kind"], one["image path"]): one for one in audit(tmp_path, planted, "--attributes", "color")}
    lines = (planted / "val.csv").read_text().splitlines()
    copy = found["leakage-exact", "images/copy.jpg"]
    assert lines[int(copy["row"]) - 1].startswith("images/copy.jpg,")
    assert copy["detail"] == "has the pixels of train.csv line 3"
    assert copy["severity"] == "error"
    near = found["duplicate-near", "images/cropped.jpg"]["detail"]
    assert near.startswith("correlation 0.")
    assert near.endswith("it looks like train.csv line 8")


def test_the_terminal_says_what_was_found(planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audit(tmp_path, planted, "--attributes", "color", "shape")
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "41 rows with 39 images and 2 attributes: train.csv has 28, val.csv has 13."
    assert out[1].startswith("Found 6 errors, ")
    assert "        2  unreadable images" in out
    assert "  train line 22: images/broken.jpg" in "\n".join(out)
    assert out[-1] == f"Page: {tmp_path / 'audit.html'}  Findings: {tmp_path / 'findings.csv'}"


@pytest.mark.parametrize(("words", "status"), [([], 0), (["--strict"], 1)])
def test_only_strict_fails_on_leakage(planted: Path, tmp_path: Path, words: list[str], status: int) -> None:
    argv = [str(planted), "-o", str(tmp_path), "-j", "0", "--attributes", "color", *words]
    if status:
        with pytest.raises(SystemExit) as error:
            main(argv)
        assert error.value.code == status
    else:
        main(argv)
    assert (tmp_path / "findings.csv").is_file()


def test_strict_passes_where_nothing_leaks_and_all_is_readable(tmp_path: Path) -> None:
    for i in range(6):
        photograph(i).save(tmp_path / f"{i}.png")
    write_table(tmp_path / "train.csv", [{"image_path": f"{i}.png", "color": "ab"[i % 2]} for i in range(6)])
    assert essence(audit(tmp_path / "out", tmp_path, "--strict")) == {("rare-class", "train", "", "color", "")}


def test_a_group_in_two_splits_is_leakage(planted: Path, tmp_path: Path) -> None:
    found = audit(tmp_path, planted, "--group", "maker")
    leaks = [one for one in found if one["kind"] == "leakage-group"]
    assert {one["image path"] for one in leaks} == {
        f"images/{name}.jpg" for name in ("t0", "copy", "encoded", "mirrored")
    }
    assert leaks[0]["detail"] == "'m0' is also the group of train.csv line 2"
    assert not any(one["attribute"] == "maker" for one in found)


def test_a_column_that_is_an_id_is_a_finding_and_no_error(planted: Path, tmp_path: Path) -> None:
    rows = read_rows(planted / "train.csv")[:20]
    write_table(tmp_path / "train.csv", rows)
    (tmp_path / "images").symlink_to(planted / "images")
    found = audit(tmp_path / "out", tmp_path)
    assert [one["attribute"] for one in found if one["kind"] == "column"] == ["maker"]


def test_parquet_blank_cells_and_several_values_are_audited_as_training_reads_them(
    planted: Path, tmp_path: Path
) -> None:
    rows = read_rows(planted / "train.csv")
    tags = [["striped", "cotton"], ["cotton"], None, []] * 7
    table = pa.table(
        {
            "image_path": [f"{planted}/{row['image_path']}" for row in rows],
            "color": [row["color"] if i % 3 else None for i, row in enumerate(rows)],
            "tags": pa.array(tags, pa.list_(pa.string())),
        }
    )
    pq.write_table(table, tmp_path / "catalog.parquet")
    found = audit(tmp_path / "out", tmp_path / "catalog.parquet")
    repeated = next(one for one in found if one["kind"] == "duplicate-file")
    assert (repeated["split"], repeated["row"]) == ("catalog", "22")
    assert repeated["detail"] == "is the file of catalog.parquet row 5"
    contradictions = [one for one in found if one["kind"] == "contradiction" and one["attribute"] == "tags"]
    assert contradictions[0]["detail"].startswith("'striped|cotton' here, and 'cotton' in ") or contradictions
    page = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    assert "tags (several values)" in page
    assert essence(audit(tmp_path / "again", tmp_path)) == essence(found)  # the folder's only table


def test_cells_with_a_separator_are_audited_value_by_value(
    planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tags = ["striped;cotton", "cotton", "", ";"]
    rows = [
        {
            "image_path": f"{planted}/{row['image_path']}",
            "tags": tags[number % 4],
            "maker": "a;b" if number < 2 else "c",
        }
        for number, row in enumerate(read_rows(planted / "train.csv"))
    ]
    write_table(tmp_path / "train.csv", rows)
    write_table(tmp_path / "val.csv", [row | {"tags": "wool" if row["tags"] else ""} for row in rows[:4]])
    found = audit(tmp_path / "out", tmp_path, "--separator", ";", "--group", "maker")
    page = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    assert "tags (several values)" in page
    assert [one["detail"] for one in found if one["kind"] == "unseen-class"]
    assert any("a;b" in one["detail"] for one in found if one["kind"] == "leakage-group")
    audit(tmp_path / "whole", tmp_path)
    assert "tags (several values)" not in (tmp_path / "whole" / "audit.html").read_text(encoding="utf-8")


def test_images_inside_a_parquet_table_are_audited(planted: Path, tmp_path: Path) -> None:
    rows = [row for row in read_rows(planted / "train.csv") if "broken" not in row["image_path"]]
    images = [{"bytes": (planted / row["image_path"]).read_bytes(), "path": row["image_path"]} for row in rows]
    pq.write_table(pa.table({"image": images, "color": [row["color"] for row in rows]}), tmp_path / "train.parquet")
    kinds = {one["kind"] for one in audit(tmp_path / "out", tmp_path)}
    assert "unreadable" not in kinds
    assert {"duplicate-exact", "duplicate-near"} <= kinds


def test_a_model_has_nothing_to_compare_where_no_image_is_readable(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_text("no image")
    write_table(tmp_path / "train.csv", [{"image_path": name, "color": "red"} for name in ("a.jpg", "b.jpg")])
    checkpoint = save_checkpoint(tmp_path / "model.pth.tar", make_model())
    found = audit(tmp_path / "out", tmp_path, "--checkpoint", checkpoint, "--device", "cpu")
    assert sum(one["kind"] == "unreadable" for one in found) == 2


def test_a_model_finds_similar_images_that_are_no_near_duplicates(planted: Path, tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "model.pth.tar", make_model())
    words = ("--checkpoint", checkpoint, "--embedding-similarity", "0.5", "--device", "cpu")
    found = audit(tmp_path / "out", planted, "--attributes", "color", *words)
    similar = [one for one in found if one["kind"] in ("leakage-similar", "duplicate-similar")]
    assert similar
    assert similar[0]["detail"].startswith("similarity ")
    assert PLANTED - {one for one in PLANTED if "shape" in one} <= essence(found)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["DATA/nowhere"], "no such image, folder or table: DATA/nowhere"),
        (["DATA/images"], "DATA/images has no train.csv, train.tsv or train.parquet: no tables in DATA/images"),
        (["DATA/images/t0.jpg"], "DATA/images/t0.jpg: neither a folder nor a table"),
        (["DATA", "DATA/train.csv"], "DATA/train.csv is named twice: name each table once"),
        (["DATA", "--group", "makr"], "train.csv has no column 'makr', which --group names; did you mean 'maker'?"),
        (["DATA", "--multi-valued", "tags"], "has no attribute 'tags', which --multi-valued names"),
        (["DATA", "--group", "maker", "--attributes", "maker"], "--group maker is among --attributes"),
        (["DATA", "--use-ema"], "--use-ema needs --checkpoint"),
        (["DATA", "--checkpoint", "none.pth.tar"], "--checkpoint: no such file: none.pth.tar"),
    ],
)
def test_a_mistake_is_one_sentence(planted: Path, tmp_path: Path, words: list[str], sentence: str) -> None:
    argv = [word.replace("DATA", str(planted)) for word in words]
    done = subprocess.run(
        [sys.executable, ROOT / "audit.py", *argv, "-o", tmp_path / "out", "-j", "0"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert sentence.replace("DATA", str(planted)) in done.stderr
    assert "Traceback" not in done.stderr
    assert not any((tmp_path / "out").glob("*"))


def test_the_command_imports_no_torch_without_a_checkpoint() -> None:
    code = "import sys, audit; print(sorted({'torch', 'timm', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_ctrl_c_leaves_no_file_and_no_process(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "big.png", compress_level=0)
    for i in range(600):  # more than one process gets at a time
        os.link(tmp_path / "big.png", tmp_path / f"{i}.png")
    write_table(tmp_path / "train.csv", [{"image_path": f"{i}.png", "color": "ab"[i % 2]} for i in range(600)])
    words = [sys.executable, str(ROOT / "audit.py"), str(tmp_path), "-o", str(tmp_path / "out"), "-j", "2"]
    with subprocess.Popen(words, stdout=-1, stderr=-1, text=True, start_new_session=True) as process:
        while not (tmp_path / "out").is_dir():
            time.sleep(0.05)
        time.sleep(2)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "audit.py: interrupted"
    assert "Traceback" not in err
    assert not any((tmp_path / "out").iterdir())
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
