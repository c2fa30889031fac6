"""Each command that uses a trained model takes the folder of its run, as well as the file in it."""

from pathlib import Path
from types import ModuleType

import pytest
from tiny_checkpoint import make_data, make_model, save_checkpoint

import audit
import embed
import export
import fill
import inference
import refit

CPU = ("--device", "cpu", "-j", "0")
# each command, its words with RUN, DATA and OUT, and the file that it leaves in OUT
COMMANDS: dict[str, tuple[ModuleType, list[str], str]] = {
    "audit.py": (audit, ["DATA", "--checkpoint", "RUN", "-o", "OUT", *CPU], "audit.html"),
    "embed.py": (embed, ["DATA/val.csv", "--checkpoint", "RUN", "-o", "OUT", *CPU], "index.json"),
    "export.py": (export, ["RUN", "--format", "timm", "--images", "DATA/val.csv", "-o", "OUT"], "config.json"),
    "fill.py": (
        fill,
        ["DATA/val.csv", "--checkpoint", "RUN", "--holdout", "DATA/train.csv", "-o", "OUT/filled.csv", *CPU],
        "filled.csv",
    ),
    "inference.py": (inference, ["DATA/val.csv", "--checkpoint", "RUN", "-o", "OUT/labels.csv", *CPU], "labels.csv"),
    "refit.py": (refit, ["RUN", "DATA", "-o", "OUT/refitted.pth.tar", *CPU], "refitted.pth.tar"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_folder_of_a_run_stands_for_its_best_checkpoint(command: str, tmp_path: Path) -> None:
    data, run, out = make_data(tmp_path / "data", 12), tmp_path / "run", tmp_path / "out"
    make_data(data, 12, "train")
    run.mkdir()
    save_checkpoint(run / "model_best.pth.tar", make_model())
    (run / "last.pth.tar").write_bytes(b"not read")
    module, words, left = COMMANDS[command]
    places = {"RUN": run, "DATA": data, "OUT": out}
    module.main(["/".join(str(places.get(part, part)) for part in word.split("/")) for word in words])
    assert (out / left).exists()
