"""What every test may rely on."""

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from options.train import parse_train_args
from reports.curves import draw_curves

settings.register_profile("any machine", deadline=None)  # how long an example takes is no property of the code
settings.load_profile("any machine")
# A shell starts background jobs with Ctrl-C ignored, and every process that a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Leave the modules and tests out of garbage collections, which take a second with them."""
    gc.collect()
    gc.freeze()


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
def _without_pictures() -> Iterator[None]:
    """Draw no curves and leave no report in a training in this process: they take longer than a tiny run.

    Tests of reports call what does it; tests of curves ask for the fixture `curves`.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module, name, substitute in (
            ("commands.leave_report", "leave_report", lambda folder, device, workers: None),
            ("training.outputs", "draw_curves", lambda summary, folder: []),
        ):
            if module in sys.modules:  # a test in this process trains
                patch.setattr(sys.modules[module], name, substitute)
        yield


@pytest.fixture
def curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the curves of trainings in this process."""
    monkeypatch.setattr("training.outputs.draw_curves", draw_curves)


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
