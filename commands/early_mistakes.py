"""Mistakes in tables, and in flags that name their columns, reported before torch is imported, which takes seconds.

This module imports nothing slow, so that --help and misspelled flags are answered without reading a table.
"""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from runtime.errors import report_usage_errors


def report_table_mistakes(script: str, args: Namespace) -> None:
    """Check a command's tables; on a mistake, print a sentence and exit with status 2.

    Args:
        script: the command's file, such as "train.py".
        args: its flags.
    """
    with report_usage_errors(script), _warnings_left_for_later():
        import_module("commands.check_tables").CHECKS[script](args)


@contextmanager
def _warnings_left_for_later() -> Iterator[None]:
    """Suppress warnings, which the command logs when it reads the tables itself."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
