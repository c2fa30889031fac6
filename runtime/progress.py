"""A progress bar for a terminal."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(total: int, title: str, unit: str = "batch", enabled: bool = True) -> Any:
    """Return a bar that disappears when it is closed. Without a terminal it is disabled and shows nothing.

    Args:
        total: The number of steps.
        title: The activity, shown in front of the bar.
        unit: The name of a step.
        enabled: Whether to show the bar; only rank 0 should.
    """
    shown = enabled and sys.stderr.isatty()
    return tqdm(total=total, desc=title, unit=unit, leave=False, disable=not shown, dynamic_ncols=True)
