"""What every test may rely on."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from options.train import parse_train_args

settings.register_profile("any machine", deadline=None)  # how long an example takes is no property of the code
settings.load_profile("any machine")
# A shell starts background jobs with Ctrl-C ignored, and every process that a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _restored_environment() -> Iterator[None]:
    """Restore the environment: joining a process group writes a launcher's variables into it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    """Restore the root logger, which a script run in this process points at the stderr of its test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture(autouse=True, scope="session")
def _without_reports() -> Iterator[None]:
    """Leave no report after a training in this process, which takes a second; tests of reports call what does it."""
    module = sys.modules.get("commands.leave_report")
    with pytest.MonkeyPatch.context() as patch:
        if module is not None:  # a test in this process trains
            patch.setattr(module, "leave_report", lambda folder, device, workers: None)
        yield


@pytest.fixture
def mistake(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that parses wrong words and returns the sentence about them."""

    def fail(*words: str, parse: Callable[[list[str]], object] = parse_train_args) -> str:
        with pytest.raises(SystemExit) as exit_:
            parse(list(words))
        assert exit_.value.code == 2
        out, err = capsys.readouterr()
        sentence, hint, *rest = err.splitlines()
        assert not out
        assert not rest
        assert hint.startswith("see ")
        assert hint.endswith(" --help")
        return sentence.partition(": error: ")[2]

    return fail


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that writes a YAML file and returns its name."""

    def write(text: str) -> str:
        file = tmp_path / "recipe.yaml"
        file.write_text(text)
        return str(file)

    return write
