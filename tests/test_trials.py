"""The stages of a trial run one after the other, within one time limit, and an error of a stage becomes a sentence."""

from pathlib import Path

import pytest
import yaml

from runtime.errors import UsageError
from training.time_limit import OutOfTime
from training.trials import run_stages

# stands for train.py: writes its flags into its run's folder
SCRIPT = """
import pathlib, sys, time, yaml
flags = yaml.safe_load(pathlib.Path(sys.argv[2]).read_text())
print("starting")
if "error" in flags:
    raise SystemExit(flags["error"])
time.sleep(flags.get("sleep", 0))
run = pathlib.Path(flags["output"], flags["experiment"])
run.mkdir(parents=True)
(run / "last.pth.tar").write_text(yaml.safe_dump(flags))
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(SCRIPT)
    return tmp_path / "train.py"


def test_each_stage_starts_from_the_checkpoint_of_the_one_before(script: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    (folder / "old").mkdir(parents=True)
    last = run_stages(script, [{"lr": 1}, {"lr": 2, "initial-checkpoint": "x"}], folder, 60)
    first, second = (yaml.safe_load((folder / f"stage-{n}" / "last.pth.tar").read_text()) for n in (1, 2))
    assert last == folder / "stage-2"
    assert (first["lr"], first.get("initial-checkpoint")) == (1, None)
    assert (second["lr"], second["initial-checkpoint"]) == (2, str(folder / "stage-1" / "last.pth.tar"))
    assert not (folder / "old").exists()


def test_a_teacher_labels_images_for_the_next_stage_which_starts_from_its_own_weights(
    script: Path, tmp_path: Path
) -> None:
    (tmp_path / "inference.py").write_text(
        "import pathlib, sys; pathlib.Path(sys.argv[sys.argv.index('--probabilities') + 1]).write_text(repr(sys.argv))"
    )
    folder = tmp_path / "runs"
    student = {"lr": 2, "initial-checkpoint": "weights", "pseudo-labels": "x"}
    last = run_stages(script, [{"lr": 1}, student], folder, 60, ["table.csv", "-j", "3"])
    flags = yaml.safe_load((last / "last.pth.tar").read_text())
    assert flags["initial-checkpoint"] == "weights"
    words = Path(flags["pseudo-labels"]).read_text()
    assert "'table.csv', '-j', '3', '--checkpoint'" in words
    assert str(folder / "stage-1" / "last.pth.tar") in words
    (tmp_path / "inference.py").write_text("raise SystemExit('inference.py: error: no image')")
    with pytest.raises(UsageError, match="no image"):
        run_stages(script, [{"lr": 1}, student], folder, 60, ["table.csv"])


def test_the_stages_share_the_time(script: Path, tmp_path: Path) -> None:
    with pytest.raises(OutOfTime):
        run_stages(script, [{"lr": 1}, {"sleep": 60}], tmp_path / "runs", 3)
    assert (tmp_path / "runs" / "stage-1").exists()
    assert not (tmp_path / "runs" / "stage-2").exists()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("train.py: error: --lr is wrong\nsee train.py --help", "train.py: error: --lr is wrong"),
        ("RuntimeError: no memory", "RuntimeError: no memory"),
        (3, "starting"),
    ],
)
def test_the_sentence_of_a_failed_stage_is_kept(script: Path, tmp_path: Path, error: str | int, sentence: str) -> None:
    with pytest.raises(UsageError) as failed:
        run_stages(script, [{"error": error}], tmp_path / "runs", 60)
    assert str(failed.value) == sentence
