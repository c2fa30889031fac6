"""What this folder's commands share: their parser, their commit, and their exit when a pipe closes."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def command_parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help shows a module's docstring as it is written."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def head_commit() -> str:
    """Return the hash of the commit that is checked out; results that a command has just written do not modify it."""
    words = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.check_output(words, cwd=Path(__file__).parent, text=True).strip()


def run_command(main: Callable[[], None]) -> None:
    """Run a command; end quietly when the reader of its output has closed the pipe, as `head` does."""
    try:
        try:
            main()
        except SystemExit:  # as after --help
            _flush()
            raise
        _flush()
    except BrokenPipeError:
        # Python flushes stdout once more at exit, which would raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(128 + signal.SIGPIPE) from None  # the status that a shell expects


def _flush() -> None:
    """Write what stdout holds; the shell's `>&-` leaves no stdout."""
    if sys.stdout:
        sys.stdout.flush()
