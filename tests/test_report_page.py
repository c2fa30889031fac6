"""The pages of report.py: whole, small, without network, sortable, and without any markup from the user's names."""

import base64
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from page_reader import Reader, read_page
from report_case import class_results, run_results, set_results

from reports.comparison_page import ComparedRun, difference, write_comparison
from reports.run_page import RunReport, write_run_page
from reports.run_record import RunRecord, read_record, record_lines
from reports.run_results import RunResults
from reports.summary_file import Summary

NAMES = [
    "<script>alert(1)</script>",
    "</script><b>",
    '"><img src=x onerror=alert(1)>',
    "' onload='alert(1)",
    "a\u202eb\x1b",
]
DRAWN = {"viewbox", "d", "x", "y", "transform", "clip-path", "width", "height", "fill", "stroke-width", "rx", "ry"}
OTHERS = frozenset(DRAWN | {"stroke-dasharray", "aria-hidden", "data-matrix", "data-hint", "value", "hidden", "color"})


def report(results: RunResults | None, **changes: object) -> RunReport:
    rows = [
        {"epoch": float(epoch), "simclr_loss": 4.0 - epoch, "classification_loss": 1.0, "eval_top1": 50.0 + epoch,
         "ema_top1": 40.0 + epoch, "eval_knn20": 45.0, "train_contrastive_top1": 60.0, "color": 40.0}
        for epoch in range(3)
    ]  # fmt: skip
    facts = [("command", "python train.py DATA"), ("commit", "abc")]
    made = RunReport("mine", "model_best.pth.tar", results, Summary(rows, ["color"]), facts, [("Label.", "python x")])
    return replace(made, **changes)  # type: ignore[arg-type]


def written(path: Path, made: RunReport) -> tuple[str, Reader, dict]:
    """Write a page; return its text, its reader and its data."""
    write_run_page(path, made)
    text = path.read_text(encoding="utf-8")
    reader = read_page(text, scripts=2, others=OTHERS)
    [data] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return text, reader, json.loads(data)


def test_a_page_of_141_classes_and_3000_images_is_below_2_mb_and_loads_nothing(tmp_path: Path) -> None:
    classes = [f"Color number {i} of a catalog" for i in range(141)]
    parts = [class_results("color", classes, 3000), class_results("kids", ["no", "yes"], 3000, seed=1)]
    text, reader, data = written(tmp_path / "report.html", report(run_results(parts, 3000, 800)))
    assert len(text.encode()) < 2_000_000
    policy = next(one["content"] for one in reader.named("meta") if one.get("http-equiv"))
    assert str(policy).startswith("default-src 'none'; img-src data:;")
    assert len(data["matrices"][0]["names"]) == 141
    assert len(data["map"]["x"]) >= 400
    shown = " ".join(reader.texts)
    assert re.search(r"Color number \d+ of a catalog is called Color number \d+ of a catalog \d+ times", shown)
    assert "calibrated" in shown
    assert all(attributes["alt"] is not None for attributes in reader.named("img"))


def test_the_matrix_of_the_script_has_every_count(tmp_path: Path) -> None:
    one = class_results("color", "abcdefg", 500)
    _, _, data = written(tmp_path / "report.html", report(run_results([one], 500, 50)))
    matrix = data["matrices"][0]
    assert matrix["images"] == sorted(matrix["images"], reverse=True)
    counted = np.zeros((7, 7), int)
    for row, column, count in matrix["cells"]:
        counted["abcdefg".index(matrix["names"][row]), "abcdefg".index(matrix["names"][column])] = count
    expected = np.zeros((7, 7), int)
    np.add.at(expected, (one.truth[~one.outside], one.predicted[~one.outside]), 1)
    assert (counted == expected).all()


def test_the_map_has_a_label_and_a_prediction_for_each_point_and_a_picture_in_its_place(tmp_path: Path) -> None:
    one = class_results("color", "abc", 60)
    results = run_results([one], 60, 60)
    _, reader, data = written(tmp_path / "report.html", report(results))
    points = data["map"]
    colors = points["attributes"][0]
    place = {int(row): place for place, row in enumerate(one.rows)}
    for row in range(60):
        label = place.get(row, -1)
        expected = "abc"[one.truth[label]] if label >= 0 and one.truth[label] >= 0 else None
        shown = colors["names"][colors["labels"][row]] if colors["labels"][row] >= 0 else None
        assert shown == expected
        assert bool(colors["right"][row]) == (label >= 0 and bool(one.right[label]))
    sprite = next(one for one in reader.named("img") if one.get("id") == "sprite")
    assert str(sprite["src"]).startswith("data:image/jpeg;base64,")
    assert base64.b64decode(str(sprite["src"]).partition(",")[2])[:2] == b"\xff\xd8"
    assert points["columns"] == 8


def test_hostile_names_are_text_everywhere(tmp_path: Path) -> None:
    parts = [replace(class_results("x", NAMES, 80, skill=0), name=NAMES[1]), set_results(NAMES[0], NAMES, 80)]
    results = run_results(parts, 80, 30, names=f"{NAMES[2]}/{{}}.jpg")
    made = report(results, title=NAMES[0], checkpoint=NAMES[1], facts=[(NAMES[2], NAMES[3])], notes=(NAMES[0],))
    text, reader, data = written(tmp_path / "report.html", made)
    shown = "".join(reader.texts)
    assert all(name in shown for name in NAMES[:4])
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert data["matrices"][0]["names"][0] in ("a\\u202eb\\x1b", *NAMES)
    runs = [ComparedRun(name, results, None, {"lr": name}) for name in NAMES[:2]]
    write_comparison(tmp_path / "comparison.html", runs)
    read_page((tmp_path / "comparison.html").read_text(encoding="utf-8"), others=OTHERS)


def test_a_page_stays_small_whatever_the_tables_hold(tmp_path: Path) -> None:
    classes = ["&" * 500 + str(i) for i in range(200)]
    parts = [replace(class_results("x", classes, 300, seed=i), name=f"{'<' * 300}{i}") for i in range(5)]
    text, _, _ = written(tmp_path / "report.html", report(run_results(parts, 300, 300)))
    assert len(text.encode()) < 2_000_000


def test_a_run_without_labels_has_curves_and_a_map(tmp_path: Path) -> None:
    nothing = replace(run_results([], 40, 20), heads_trained=False)
    text, reader, _ = written(tmp_path / "report.html", report(nothing))
    assert 'id="training"' in text
    assert 'id="map"' in text
    assert 'id="scores"' not in text
    blind = replace(run_results([class_results("color", "abc", 40)], 40, 20), heads_trained=False)
    text, reader, data = written(tmp_path / "report.html", report(blind))
    assert "Labels have not trained its head" in " ".join(reader.texts)
    assert data["matrices"] == [None]
    text, _, _ = written(tmp_path / "report.html", report(None, summary=None))
    assert 'id="use"' in text


def test_two_runs_are_compared_image_by_image(tmp_path: Path) -> None:
    first = class_results("color", "abc", 400)
    better = replace(first, predicted=np.where(np.arange(len(first)) % 4 == 0, first.truth, first.predicted))
    better.predicted[better.outside] = first.predicted[first.outside]
    found = difference(first, better)
    assert found.lost == 0
    assert found.gained == better.right.sum() - first.right.sum()
    assert found.points == 100 * found.gained / found.images
    assert 0 < found.low < found.points < found.high
    runs = [ComparedRun(name, run_results([one], 400, 9), None, {"lr": lr, "output": lr})
            for name, one, lr in (("old", first, 1), ("new", better, 2))]  # fmt: skip
    write_comparison(tmp_path / "page.html", runs)
    reader = read_page((tmp_path / "page.html").read_text(encoding="utf-8"), others=OTHERS)
    shown = "".join(reader.texts)
    assert f"new is better than old by {found.points:.1f} points" in shown
    assert f"Only new is right ({found.gained})" in shown
    assert "Flags that differ" in shown
    write_comparison(tmp_path / "page.html", [runs[0], replace(runs[0], name="again")])
    assert "no difference shows between again and old (+0.0;" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_record_of_a_run_grows_by_sessions_and_survives_damage(tmp_path: Path) -> None:
    facts = {"command": "python train.py DATA", "device": "H200", "processes": 2, "versions": {"torch": "2"}}
    RunRecord(tmp_path, facts).write()
    second = RunRecord(tmp_path, facts | {"command": "python train.py --resume", "commit": "abc"})
    second.start -= 7200
    second.write()
    lines = dict(record_lines(read_record(tmp_path)))
    assert lines["command"] == "python train.py DATA ; then python train.py --resume"
    assert lines["time and device"] == "2.0 hours on H200"
    assert lines["device hours"] == "4.00, on 2 devices"
    assert lines["commit"] == "abc"
    for damage in ("[", "[]", '{"sessions": 3}', '{"sessions": [1]}', "[" * 100_000):
        (tmp_path / "run.json").write_text(damage)
        assert record_lines(read_record(tmp_path)) == []
