"""A progress bar for a terminal."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(total: int, title: str, unit: str = "batch", enabled: bool = True) -> Any:
    """Return a bar that disappears when it is closed. Without a terminal it is disabled and shows nothing.

    Args:
        total: the number of steps.
        title: the activity, shown in front of the bar.
        unit: the name of a step.
        enabled: whether to show the bar; only rank 0 should.
    """
    shown = enabled and sys.stderr.isatty()
    return tqdm(total=total, desc=title, unit=unit, leave=False, disable=not shown, dynamic_ncols=True)
