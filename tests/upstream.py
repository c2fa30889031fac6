"""Run timm's tests, from its source distribution, with this project's modules joined to the installed timm.

    python tests/upstream.py [PYTEST OPTIONS ...]

The tests have the installed timm's version. The first run downloads them into .upstream/; they never become part of the
project. Without a network and an earlier copy the download fails.
"""

import ast
import os
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
SUITES = (
    "test_task.py",
    "test_scheduler.py",
    "test_optim.py",
    "test_data.py",
    "test_scheduled_sampler.py",
    "test_checkpoint_loading.py",
    "test_checkpoint_saver.py",
    "test_multilabel.py",
    "test_utils.py",
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Seed each of timm's tests, which load this file as a plugin; unseeded, sgdp's sometimes fail."""
    torch.manual_seed(0)


def main(options: list[str]) -> int:
    """Fetch the tests if necessary, run them, and return pytest's status."""
    # tests
    folder = fetch(version("timm"))
    missing = [name for name in SUITES if not (folder / "tests" / name).is_file()]
    if missing:
        print(
            f"timm {version('timm')} no longer has {missing[0]}: fix SUITES in {Path(__file__).name}",
            file=sys.stderr,
        )
        return 1
    # Tests of timm's train.py would import ours: that script is not part of the package.
    script = [
        f"--deselect=tests/{name}::{test}" for name in SUITES for test in _tests_of_train(folder / "tests" / name)
    ]

    # pytest
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    environment = os.environ | {"PYTHONPATH": path, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "0"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        Path(__file__).stem,
        "-n",
        "2",
        "-c",
        os.devnull,
        "--rootdir",
        str(folder),
    ]
    proof = "import timm.models.multi_label, timm.task; print('joined to timm', timm.__version__, 'in', timm.__file__)"
    subprocess.run([sys.executable, "-c", proof], cwd=folder, env=environment, check=True)
    suites = [f"tests/{name}" for name in SUITES]
    return subprocess.run([*command, *suites, *script, *options], cwd=folder, env=environment, check=False).returncode


def _tests_of_train(path: Path) -> list[str]:
    functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    return [
        function.name
        for function in functions
        if any(isinstance(node, ast.Import) and node.names[0].name == "train" for node in ast.walk(function))
    ]


def fetch(timm: str) -> Path:
    """Return the folder with the tests of a timm release; download them if necessary."""
    folder = ROOT / ".upstream" / f"timm-{timm}"
    if not (folder / "tests").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "timm"]
        subprocess.run([*download, "-d", str(folder), f"timm=={timm}"], check=True)
        archive = next(folder.glob("*.tar.gz"))
        with tarfile.open(archive) as sources:
            inside = f"timm-{timm}/"
            # Only the tests: their sources would shadow the installed timm.
            wanted = [member for member in sources.getmembers() if member.name.startswith(f"{inside}tests/")]
            for member in wanted:
                member.name = member.name.removeprefix(inside)
            sources.extractall(folder, wanted, filter="data")
        archive.unlink()
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
