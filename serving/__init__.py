"""A trained model put to use: `from serving import MultiLabel`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.index_build import build_index
    from serving.multi_label import MultiLabel
    from serving.search import Index

__all__ = ["Index", "MultiLabel", "build_index"]

_PLACES = {"Index": "search", "MultiLabel": "multi_label", "build_index": "index_build"}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then, since it needs torch and other files here do not."""
    if name in _PLACES:
        return getattr(import_module(f"serving.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
