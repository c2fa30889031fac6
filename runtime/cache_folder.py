"""The user's folder for what later runs read again, such as decoded images."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache_folder() -> Path:
    """Return the user's folder for caches, which does not depend on the working directory."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "simclr-multi-label")
