"""A progress bar where there is somebody to watch it."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(total: int, title: str, unit: str = "batch", enabled: bool = True) -> Any:
    """Return a bar that vanishes when closed; on anything but a terminal one that shows nothing (`disable`).

    Args:
        total: steps.
        title: what is going on.
        unit: what a step is.
        enabled: False on all but the primary process.
    """
    shown = enabled and sys.stderr.isatty()
    return tqdm(total=total, desc=title, unit=unit, leave=False, disable=not shown, dynamic_ncols=True)
