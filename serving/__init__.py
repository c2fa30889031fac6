"""A trained model put to use: `from serving import MultiLabel`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.multi_label import MultiLabel

__all__ = ["MultiLabel"]


def __getattr__(name: str) -> Any:
    """Import the model's class when it is asked for, since it needs torch and other files here do not."""
    if name == "MultiLabel":
        from serving.multi_label import MultiLabel

        return MultiLabel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
