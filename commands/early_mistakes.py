"""Mistakes in tables, and in flags that name their columns, reported before torch is imported, which takes seconds.

This module imports nothing slow, so that --help and misspelled flags are answered without reading a table.
"""

from __future__ import annotations

from argparse import Namespace
from importlib import import_module

from runtime.errors import report_usage_errors
from runtime.log import errors_only


def report_table_mistakes(script: str, args: Namespace) -> None:
    """Check a command's tables; on a mistake, print a sentence and exit with status 2.

    Args:
        script: the command's file, such as "train.py".
        args: its flags.
    """
    with report_usage_errors(script), errors_only():  # the command reads the tables again, and warns then
        import_module("commands.check_tables").CHECKS[script](args)
