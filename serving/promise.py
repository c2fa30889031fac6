"""The confidence from which a model's labels keep a promised precision, measured in the background."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from runtime.errors import UsageError
from serving.multi_label import MultiLabel
from serving.selective import Selection

_logger = logging.getLogger("serving")


class Promise:
    """The selections of `MultiLabel.select`, which a thread makes: validation tables may have many images.

    Args:
        model: the model.
        precision: the promised share of right labels, between 0 and 1.
        validation: labeled images, as in `MultiLabel.select`.

    Attributes:
        precision: the promise.
        selections: by attribute; empty until they are made.
        state: "measuring", "kept", or "none" if nothing can be promised.
        reason: why nothing can be promised, or "".
    """

    def __init__(self, model: MultiLabel, precision: float, validation: str | None) -> None:
        self.precision = precision
        self.selections: Mapping[str, Selection] = {}
        self.state, self.reason = "measuring", ""
        # a daemon, because Ctrl-C must not wait for the end of a large table
        self._thread = threading.Thread(target=self._measure, args=(model, validation), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until the selections are made."""
        self._thread.join()

    def facts(self) -> dict[str, Any]:
        """Return what a page says about the promise, in plain values."""
        return {
            "precision": self.precision,
            "state": self.state,
            "reason": self.reason,
            "attributes": {name: _plain(one) for name, one in self.selections.items()},
        }

    def _measure(self, model: MultiLabel, validation: str | None) -> None:
        try:
            self.selections = model.select(self.precision, validation)
            self.state = "kept"
        except UsageError as error:
            reason = str(error).replace("validation=", "--validation ").replace("data=DATA", "--data DATA")
            self.state, self.reason = "none", reason
            _logger.warning(f"No abstention: {reason}")
        except Exception as error:
            self.state, self.reason = "none", "measuring it failed; the terminal says why"
            _logger.exception(f"No abstention: {error}")


def _plain(selection: Selection) -> dict[str, Any]:
    """Return a selection without infinity, which JSON lacks."""
    never = selection.threshold == float("inf")
    return {
        "threshold": None if never else max(0.0, selection.threshold),
        "cells": selection.cells,
        "coverage": selection.coverage,
        "fewest": selection.fewest,
    }
