"""Which folder a resumed run continues in, and where --resume auto looks."""

from collections.abc import Callable
from pathlib import Path

import pytest

from options.run_folder import auto_folder, resumed_folder
from options.train import parse_train_args


@pytest.mark.parametrize(
    ("folder", "output", "experiment", "continues"),
    [
        ("out/mine", "", "", True),
        ("out/mine", "out", "", True),
        ("out/mine", "out", "mine", True),
        ("out/mine-1", "out", "mine", True),
        ("out/mine", "", "mine", True),
        ("out/mine", "elsewhere", "", False),
        ("out/mine", "out", "other", False),
        ("out/sub/mine", "out", "sub/mine", True),
        ("out/sub/mine", "", "sub/mine", True),
        ("out/sub/mine", "out", "mine", False),
        ("out/sub/mine", "out", "other/mine", False),
        ("out/mine", "", "a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/mine", False),
    ],
)
@pytest.mark.parametrize("left", ["summary.csv", "args.yaml"])
def test_a_run_continues_in_its_folder_unless_the_flags_name_another(
    folder: str, output: str, experiment: str, continues: bool, left: str, tmp_path: Path
) -> None:
    place = tmp_path / folder
    place.mkdir(parents=True)
    named = f"{tmp_path / output}" if output else ""
    checkpoint = f"{place / 'recovery-0-1.pth.tar'}"
    assert resumed_folder(checkpoint, named, experiment) is None  # a folder without a run
    (place / left).write_text("")  # args.yaml alone: killed in the first epoch
    assert resumed_folder(checkpoint, named, experiment) == (place if continues else None)
    assert resumed_folder("", named, experiment) is None


def test_auto_looks_in_the_folder_of_the_experiment_or_of_the_saved_flags(tmp_path: Path) -> None:
    def folder(*words: object) -> Path | None:
        return auto_folder(parse_train_args(["data", "--resume", "auto", *map(str, words)]))

    assert folder("--experiment", "mine") == Path("output/train/mine")
    assert folder("--experiment", "mine", "--output", tmp_path) == tmp_path / "mine"
    run = tmp_path / "mine-1"
    run.mkdir()
    (run / "args.yaml").write_text(f"experiment: mine\noutput: {tmp_path}")
    assert folder("-c", run / "args.yaml") == tmp_path / "mine"  # the file alone may be a recipe
    (run / "summary.csv").write_text("")
    assert folder("-c", run / "args.yaml") == run
    assert folder("-c", run / "args.yaml", "--experiment", "other") == tmp_path / "other"
    (run / "args.yaml").write_text("epochs: 3")
    assert folder("-c", run / "args.yaml") == run


def test_auto_without_a_folder_says_what_names_one(mistake: Callable[..., str]) -> None:
    sentence = "--resume auto needs --experiment NAME, the name of the run's folder, or -c FOLDER/args.yaml of a run: "
    assert mistake("data", "--resume", "auto").startswith(sentence)
