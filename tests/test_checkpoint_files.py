import os
from pathlib import Path

import pytest

from runtime.errors import UsageError
from serving.checkpoint_files import find_checkpoints, is_several, matches, names_below, stem


def make_run(folder: Path) -> Path:
    """Lay out a run like timm's saver: last and model_best are hard links to numbered checkpoints."""
    folder.mkdir(parents=True)
    for epoch in (2, 10):
        (folder / f"checkpoint-{epoch}.pth.tar").write_text(str(epoch))
    os.link(folder / "checkpoint-10.pth.tar", folder / "last.pth.tar")
    os.link(folder / "checkpoint-2.pth.tar", folder / "model_best.pth.tar")
    for name in ("tmp.pth.tar", "recovery_tmp.pth.tar", "summary.csv", "args.yaml"):
        (folder / name).write_text(name)
    return folder


def test_a_file_is_returned_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "weights[1].bin").touch()
    assert find_checkpoints(str(tmp_path / "weights[1].bin")) == [tmp_path / "weights[1].bin"]
    assert not is_several(str(tmp_path / "weights[1].bin"))


def test_a_file_with_several_names_is_scored_once_under_the_one_with_its_epoch(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert find_checkpoints(str(run)) == [run / "checkpoint-2.pth.tar", run / "checkpoint-10.pth.tar"]
    assert is_several(str(run))


def test_folders_are_searched_with_their_subfolders(tmp_path: Path) -> None:
    make_run(tmp_path / "output" / "train" / "a")
    make_run(tmp_path / "output" / "train" / "b")
    assert len(find_checkpoints(str(tmp_path / "output"))) == 4


def test_a_pattern_means_files_or_folders(tmp_path: Path) -> None:
    make_run(tmp_path / "a1")
    make_run(tmp_path / "a2")
    make_run(tmp_path / "b")
    assert find_checkpoints(str(tmp_path / "a*" / "last*")) == [
        tmp_path / "a1" / "last.pth.tar",
        tmp_path / "a2" / "last.pth.tar",
    ]
    assert len(find_checkpoints(str(tmp_path / "a*"))) == 4
    assert len(find_checkpoints(str(tmp_path / "b" / "*"))) == 2  # only checkpoints among the files
    assert len(find_checkpoints(str(tmp_path / "**" / "model_best.pth.tar"))) == 3


@pytest.mark.parametrize(
    ("text", "words"), [("nothing", "no checkpoint at"), ("*.pt", "no checkpoint at"), ("", "is called")]
)
def test_finding_nothing_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        find_checkpoints(str(tmp_path / text))


@pytest.mark.parametrize(
    ("arch", "pattern", "same"),
    [
        ("efficientnet_b0", "efficientnet_b0", True),
        ("efficientnet_b0", "efficientnet_*", True),
        ("efficientnet_b0", "resnet*", False),
        ("efficientnet_b0.ra_in1k", "efficientnet_b0", True),
        ("efficientnet_b0", "efficientnet_b0.ra_in1k", True),
        ("efficientnet_b0.ra_in1k", "efficientnet_b0.ra4_e3600_r224_in1k", False),
        ("efficientnet_b0", "efficientnet", False),
    ],
)
def test_an_architecture_matches_by_name_or_pattern(arch: str, pattern: str, same: bool) -> None:
    assert matches(arch, pattern) == same


def test_checkpoints_of_different_runs_have_different_names(tmp_path: Path) -> None:
    files = [tmp_path / "a" / "last.pth.tar", tmp_path / "b" / "last.pth.tar"]
    assert names_below(files) == ["a-last", "b-last"]
    assert names_below(files[:1]) == ["last"]
    assert stem(tmp_path / "model_best.pth.tar") == "model_best"
    assert stem(tmp_path / "weights.pth") == "weights"
