"""The one exception for what a user's data has wrong."""

from runtime.errors import UsageError


class DataError(UsageError):
    """A user's mistake in the data, which scripts print without a traceback.

    Its message is one sentence on one line: what is wrong, where (file, line, column), and what to do about it.

    Args:
        message: The sentence. Line breaks in it, which can only come from the user's own names, are shown as escapes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.replace("\r", "\\r").replace("\n", "\\n"))
