"""What every test may rely on."""

import logging
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # how long an example takes is no property of the code
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    """A script run in this process points the root logger at the stderr of its test, which closes with it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
