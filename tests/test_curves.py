"""Pictures of a run from its summary.csv, also from one that lacks columns or values."""

from pathlib import Path

import pytest
from PIL import Image
from summary_files import write_summary

from reports.curves import attribute_curves, draw_curves, main
from reports.summary_file import Summary
from runtime.errors import UsageError


def assert_drawn(summary: Path, folder: Path) -> None:
    for path in draw_curves(summary, folder):
        with Image.open(path) as picture:
            assert picture.size == (1200, 750)
            assert len(set(picture.convert("L").tobytes())) > 20
    assert sorted(path.name for path in folder.iterdir()) == ["accuracy.png", "losses.png"]


def test_both_pictures_are_drawn_into_a_folder_that_is_created(tmp_path: Path) -> None:
    assert_drawn(write_summary(tmp_path / "summary.csv"), tmp_path / "new" / "folder")


def test_a_run_that_measured_its_representation_has_a_third_picture(tmp_path: Path) -> None:
    path = write_summary(tmp_path / "summary.csv", rows=5)
    header, *rows = path.read_text().splitlines()
    header += ",train_alignment,train_uniformity,train_contrastive_top1,train_effective_rank_z,eval_knn20,color_knn20"
    for last in (",0.5,-2,40,12,,", ",0.5,-2,40,12,70,90"):  # without and with accuracies of neighbors
        lines = [header, *(row + ",0.6,-1,30,20,," for row in rows[:-1]), rows[-1] + last]
        path.write_text("\n".join(lines) + "\n")
        paths = draw_curves(path, tmp_path / "out")
        assert [picture.name for picture in paths] == ["accuracy.png", "losses.png", "representation.png"]
        with Image.open(paths[2]) as picture:
            assert picture.size == (1200, 750)
            assert len(set(picture.convert("L").tobytes())) > 20


def test_one_epoch_is_enough(tmp_path: Path) -> None:
    assert_drawn(write_summary(tmp_path / "summary.csv", rows=1), tmp_path / "out")


def test_blank_nan_and_infinite_cells_are_skipped(tmp_path: Path) -> None:
    path = write_summary(tmp_path / "summary.csv", eval_loss="", eval_top1="nan", train_loss="inf", simclr_loss="")
    assert_drawn(path, tmp_path / "out")


@pytest.mark.parametrize(
    "attributes", [(), ("color",), tuple(f"a{i}" for i in range(30)), tuple(f"a{i}" for i in range(500))]
)
def test_any_number_of_attributes_is_drawn(tmp_path: Path, attributes: tuple[str, ...]) -> None:
    assert_drawn(write_summary(tmp_path / "summary.csv", attributes=attributes), tmp_path / "out")


def test_a_run_without_simclr_and_ema_has_no_such_columns(tmp_path: Path) -> None:
    path = write_summary(tmp_path / "summary.csv", simclr_loss="drop", ema_loss="drop", ema_top1="drop")
    assert_drawn(path, tmp_path / "out")


def test_the_accuracy_of_a_multi_valued_attribute_is_its_mean_average_precision() -> None:
    rows = [{"epoch": 0.0, "tags": 3.0, "tags_map": 60.0, "color": 50.0}]
    curves = attribute_curves(Summary(rows, ["color", "tags"]))
    assert [(curve.column, curve.label) for curve in curves] == [("color", "color"), ("tags_map", "tags, mAP")]


def test_odd_attribute_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    names = ("$x^$", "$", "_hidden", "颜色", "🙂", "größe\\", "long " * 20)
    path = write_summary(tmp_path / "summary.csv", attributes=names)
    assert_drawn(path, tmp_path / "out")


def test_a_picture_that_cannot_be_written_leaves_no_unfinished_file(tmp_path: Path) -> None:
    (tmp_path / "accuracy.png").mkdir()
    with pytest.raises(UsageError, match=r"cannot write .*accuracy\.png"):
        draw_curves(write_summary(tmp_path / "summary.csv"), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["accuracy.png", "summary.csv"]


def test_the_command_draws_beside_the_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(write_summary(tmp_path / "summary.csv"))])
    assert capsys.readouterr().out.split() == [str(tmp_path / "accuracy.png"), str(tmp_path / "losses.png")]


def test_the_command_names_a_missing_file_and_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([str(tmp_path / "summary.csv")])
    assert exit_.value.code == 2
    assert "summary.csv (No such file or directory): give the summary.csv" in capsys.readouterr().err
