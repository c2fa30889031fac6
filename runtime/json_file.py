"""JSON files that a command of this project wrote, and that anybody may have changed since."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runtime.regular_file import irregular_file

_LARGEST = 1 << 26  # bytes; the names of 100,000 classes take fewer


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        ValueError: it is no regular file, larger than 64 MiB, not UTF-8, not JSON, too deep, or cannot be read.
        FileNotFoundError: there is none.
    """
    if fault := irregular_file(path):
        raise ValueError(fault)
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"it has more than {_LARGEST >> 20} MiB")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None
