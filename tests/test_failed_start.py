"""What a script prints that cannot start: one line on a package, a variable, or Ctrl-C."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
AS_SCRIPT = "import sys; sys.modules['__main__'].__file__ = 'train.py'; sys.argv[0] = 'train.py'; import options; "


def run(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("script", sorted(path.name for path in ROOT.glob("*.py")))
def test_a_script_without_its_packages_says_how_to_get_them(script: str) -> None:
    done = run("-S", script)  # without site-packages, as with an interpreter outside the environment
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{script}: error: ")
    assert " has no package " in line
    assert "bin/activate" in line or "make env" in line


def test_a_package_of_another_version_is_named_with_the_command_that_installs_the_right_one() -> None:
    done = run("-c", AS_SCRIPT + "from numpy import nothing_of_that_name")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("train.py: error: the installed numpy cannot be used (cannot import name")
    assert line.endswith("-m pip install -r requirements.txt")


def test_a_variable_that_torch_refuses_is_named() -> None:
    done = run("-c", AS_SCRIPT + "import torch", TORCH_LOGS="x")
    assert (done.returncode, done.stderr) == (
        2,
        "train.py: error: PyTorch has no log settings 'x': correct or unset TORCH_LOGS\n",
    )


@pytest.mark.parametrize("name", ["OPENCV_IO_MAX_IMAGE_PIXELS", "OPENCV_IO_MAX_IMAGE_WIDTH"])
@pytest.mark.parametrize("value", ["x", "1GB", "-1", "10 ", "", "9" * 40])
def test_a_variable_at_which_opencv_aborts_is_named(name: str, value: str) -> None:
    done = run("-c", AS_SCRIPT + "import cv2", **{name: value})
    assert done.returncode == 2
    assert done.stderr == f"train.py: error: {name} is {value!r}, which OpenCV cannot read: correct or unset it\n"


@pytest.mark.parametrize("value", ["1000", "10MB", "3kb"])
def test_a_size_that_opencv_reads_is_left_alone(value: str) -> None:
    assert run("-c", AS_SCRIPT + "import cv2", OPENCV_IO_MAX_IMAGE_PIXELS=value).returncode == 0


def test_ctrl_c_while_modules_are_imported_is_one_line() -> None:
    done = run("-c", AS_SCRIPT + "import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "\ntrain.py: interrupted\n")


@pytest.mark.parametrize("fault", ["1 / 0", "import training.nothing", "raise ImportError('no name')"])
def test_a_fault_of_the_project_keeps_its_traceback(fault: str) -> None:
    done = run("-c", AS_SCRIPT + fault)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")


def test_a_program_that_imports_the_project_keeps_its_hook() -> None:
    done = run("-c", "import sys; hook = sys.excepthook; import options; assert sys.excepthook is hook")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("processes", "script"), [("1", "train.py"), ("2", "distributed_train.sh")])
def test_the_launcher_says_that_its_interpreter_lacks_packages(tmp_path: Path, processes: str, script: str) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    done = subprocess.run(
        [ROOT / "distributed_train.sh", processes, tmp_path],
        env=os.environ | {"PYTHON": f"{bare}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{script}: error: {sys.executable}")
