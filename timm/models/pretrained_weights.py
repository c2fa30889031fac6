"""Telling soon and plainly when a backbone's weights cannot be had."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from huggingface_hub import constants
from huggingface_hub.errors import HTTPError
from torch import nn

from runtime.errors import UsageError, first_line
from timm.models import load_state_dict

_logger = logging.getLogger(__name__)

_PATIENCE = 4.0  # seconds to wait for the hub's first sign of life
_BACKBONE = "backbone."
STRANGERS = 0.1  # share of tensors without a counterpart that adapting a model explains, another pooling for example


@contextmanager
def pretrained_weights(arch: str, path: str | None) -> Iterator[None]:
    """Wrap making a pretrained backbone: no minutes of retries where the hub is out of reach, no traceback.

    Weights that lie in the local cache are used without the hub.

    Args:
        arch: the backbone's name.
        path: a local file of weights, or None to download them.

    Raises:
        UsageError: the file is missing or does not fit, or the weights can be had neither from the hub nor its cache.
    """
    if path is not None:
        if not Path(path).is_file():
            raise UsageError(f"--pretrained-path: no file {path}")
        try:
            with _strangers_refused():
                yield
        except UsageError:
            raise
        except Exception as error:  # a foreign file makes its reader raise anything
            raise UsageError(f"--pretrained-path: {path} does not fit {arch}: {first_line(error)}") from error
        return
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = offline = before or not _answers(constants.ENDPOINT)
    try:
        yield
    except (OSError, HTTPError) as error:
        silent = "HF_HUB_OFFLINE is set" if before else f"{constants.ENDPOINT} does not answer"
        why = f"{silent} and the cache has none" if offline else first_line(error)
        raise UsageError(
            f"--pretrained: the weights of {arch} cannot be downloaded ({why}): give a local file with "
            "--pretrained-path FILE, or leave --pretrained out to train from scratch"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def _strangers_refused() -> Iterator[None]:
    """Let loading fail where the names do not meet: without a classifier timm loads what it finds and is content."""
    load = nn.Module.load_state_dict

    def load_or_raise(model: nn.Module, weights: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        result = load(model, weights, *args, **kwargs)
        missing, strange = len(result.missing_keys), len(result.unexpected_keys)
        if missing > STRANGERS * len(model.state_dict()) or strange > STRANGERS * len(weights):
            raise RuntimeError(f"{missing} tensors of the model are missing in it, {strange} of its own are unknown")
        if missing:
            names = ", ".join(result.missing_keys)
            _logger.warning(f"--pretrained-path: the file lacks {names}, which keep their first weights")
        return result

    nn.Module.load_state_dict = load_or_raise  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        nn.Module.load_state_dict = load  # type: ignore[method-assign]


def local_weights(path: str) -> dict[str, Any]:
    """Return what makes timm load a file in place of a download, as entries of a pretrained_cfg.

    Of a checkpoint of ours it is the backbone under timm's names (where there is a moving average, its, as timm has
    it), and not the file: a filter of timm's, which knows the format of a model's weights by their names, comes first.
    """
    if not path.endswith((".npz", ".npy")):
        weights = load_state_dict(path)
        inside = {name.removeprefix(_BACKBONE): value for name, value in weights.items() if name.startswith(_BACKBONE)}
        if inside:
            return {"state_dict": inside}
    return {"file": path}


def _answers(endpoint: str) -> bool:
    """Whether the hub, or the proxy before it, takes a connection."""
    address = urlsplit(endpoint)
    proxies = getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    if proxy and not proxy_bypass(address.netloc):
        address = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    port = address.port or (80 if address.scheme == "http" else 443)
    answers: list[bool] = []

    def connect() -> None:
        try:
            socket.create_connection((address.hostname or "", port), timeout=_PATIENCE).close()
            answers.append(True)
        except OSError:
            pass

    # In a thread, because neither looking up the name nor trying each of its addresses in turn has one common limit.
    thread = Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return bool(answers)
