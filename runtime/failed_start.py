"""One line instead of a traceback where a script ends while it imports: Ctrl-C, a missing package, a wrong variable."""

from __future__ import annotations

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from runtime.errors import first_line, printable

# Variables that OpenCV reads while it is imported; a value that is no size ends the process in its abort().
_OPENCV = ("OPENCV_IO_MAX_IMAGE_PIXELS", "OPENCV_IO_MAX_IMAGE_WIDTH", "OPENCV_IO_MAX_IMAGE_HEIGHT")
_SIZE = re.compile("[0-9]{1,18}(KB|Kb|kb|MB|Mb|mb)?")
_ROOT = Path(__file__).resolve().parents[1]


def report_failed_start() -> None:
    """Let this process report in one line why it cannot start, if it runs a script of this project.

    A program that imports the project keeps its own `sys.excepthook`.

    Raises:
        SystemExit: a variable has a value at which OpenCV would abort the process.
    """
    main = getattr(sys.modules["__main__"], "__file__", None)
    if not main or Path(main).resolve().parent != _ROOT:
        return
    sys.excepthook = _in_one_line
    for name in _OPENCV:
        if (value := os.environ.get(name)) is not None and not _SIZE.fullmatch(value):
            _end(f"{name} is {value!r}, which OpenCV cannot read: correct or unset it")


def _in_one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print one line where the cause is known, else the traceback.

    Raises:
        SystemExit: with status 2, after a line. After Ctrl-C, Python itself ends with the signal's status.
    """
    if isinstance(error, KeyboardInterrupt):
        print(f"\n{Path(sys.argv[0]).name}: interrupted", file=sys.stderr, flush=True)
    elif reason := _unusable_package(error) or _wrong_variable(error):
        _end(reason)
    else:
        sys.__excepthook__(kind, error, trace)


def _end(reason: str) -> NoReturn:
    print(f"{Path(sys.argv[0]).name}: error: {printable(reason)}", file=sys.stderr, flush=True)
    raise SystemExit(2)


def _unusable_package(error: BaseException) -> str:
    """Return a sentence on a package that is missing, of another version, or damaged; "" for other errors."""
    if not isinstance(error, ImportError):
        return ""
    package = (error.name or "").partition(".")[0]
    if error.name == "timm":
        return str(error)  # the sentence of timm/__init__.py
    if not package or package in sys.stdlib_module_names or (package != "timm" and (_ROOT / package).exists()):
        return ""
    own = _ROOT / ".venv"
    install = f"{sys.executable} -m pip install -r {os.path.relpath(_ROOT / 'requirements.txt')}"
    if find_spec(package) is not None:
        return f"the installed {package} cannot be used ({first_line(error)}): run {install}"
    if own.is_dir() and own.resolve() != Path(sys.prefix).resolve():
        activate = f". {os.path.relpath(own / 'bin' / 'activate')}"
        return f"{sys.executable} has no package {package}: activate the environment with {activate}"
    return f"{sys.executable} has no package {package}: make an environment with make env, or run {install}"


def _wrong_variable(error: BaseException) -> str:
    """Return a sentence on a variable of the environment that PyTorch refuses; "" for other errors."""
    if isinstance(error, ValueError) and "Invalid log settings" in str(error):
        return f"PyTorch has no log settings {os.environ.get('TORCH_LOGS')!r}: correct or unset TORCH_LOGS"
    return ""
