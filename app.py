#!/usr/bin/env python3
"""Serve a page to try a trained model on photographs, and to label the cells of a queue.

    python app.py --checkpoint output/train/RUN/model_best.pth.tar        (then open http://127.0.0.1:7860)
    python app.py --checkpoint FILE --index index        (also the most similar images, of embed.py's index)
    python app.py --checkpoint FILE --queue queue.csv        (also a queue to label, of fill.py)

Drop, paste or photograph an image: the page shows each attribute's classes with calibrated probabilities, what the
model abstains from, and where it looked. The labels of the queue go to a table that train.py takes. The page is
reachable from this machine alone, loads nothing from elsewhere, and needs requirements-app.txt.
"""

from options.app import default_answers, parse_app_args

if __name__ == "__main__":
    # --help, a misspelled flag and a missing file answer at once, not after the seconds that torch takes to import.
    parse_app_args(check_paths=True)

import logging
import os
import socket
from argparse import Namespace
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from catalog.answer_file import AnswerFile
from catalog.queue_file import queue_roots, read_queue
from options.serving_kwargs import NAMED
from runtime.errors import UsageError, report_usage_errors
from runtime.process import set_up_process
from runtime.process_group import check_single
from serving.labeling_desk import LabelingDesk
from serving.multi_label import MultiLabel
from serving.promise import Promise
from serving.search import Index
from training.flag_names import naming_flags

_logger = logging.getLogger("app")

PACKAGES = ("starlette", "uvicorn")


def main(argv: list[str] | None = None) -> None:
    """Serve as the command line says."""
    args = parse_app_args(argv)
    with report_usage_errors("app.py"), naming_flags(*NAMED, "image_root"):
        serve(args)


def serve(args: Namespace) -> None:
    """Serve: check the port, load the model, open index and queue, and answer until a signal ends it."""
    check_packages()
    check_single("several processes would serve one port")
    from serving.web_guard import is_loopback, shown_address
    from serving.web_site import Site, make_site

    with ExitStack() as opened:
        place = opened.enter_context(open_port(args.host, args.port))
        device = set_up_process(args.device).device
        model = load_model(args, device)
        index = load_index(args, device) if args.index else None
        desk = None
        if args.queue:
            desk = open_desk(args, model)
            opened.callback(desk.answers.close)
        has_heads = len(model.label_space) > 0
        promise = Promise(model, args.precision, args.validation) if args.abstain and has_heads else None
        app = make_site(Site(model, promise, index, desk), args.host)
        if not is_loopback(args.host):
            _logger.warning(
                f"--host {args.host}: whoever reaches this port sees the images of index and queue, and can label"
            )
        print(f"Open {shown_address(args.host, place.getsockname()[1])} in a browser; Ctrl-C ends it", flush=True)
        run(app, place)


def check_packages() -> None:
    """Raise unless what the page needs is installed.

    Raises:
        UsageError: it is not.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise UsageError(f"app.py needs {' and '.join(missing)}: pip install -r requirements-app.txt")


def open_port(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        UsageError: the port is in use, or the address is none of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:
        known = isinstance(error, OSError) and not isinstance(error, socket.gaierror) and error.errno
        reason = os.strerror(known) if known else getattr(error, "strerror", None) or "it is no address"
        raise UsageError(
            f"cannot listen on --host {host} --port {port} ({reason}): end the other program, or give another --port"
        ) from None


def load_model(args: Namespace, device: Any) -> MultiLabel:
    """Return the model, and log what it is.

    Raises:
        UsageError: it predicts nothing, and there is no index to compare images with.
    """
    model = MultiLabel(args.checkpoint, device=device, use_ema=args.use_ema, data=args.data)
    if len(model.label_space) or not args.index:
        model.check_heads()
    _logger.info(f"{args.checkpoint}: {model.ready.arch}, {model.ready.data_config}; classes: {model.label_space}")
    return model


def load_index(args: Namespace, device: Any) -> Index:
    """Return the index, with its model loaded: that of the checkpoint that made it, or of --checkpoint if it is gone.

    Raises:
        UsageError: it is no index, or its checkpoint is another one.
    """
    index = Index(args.index, device=device)
    if not Path(index.info.checkpoint).is_file():
        index = Index(args.index, checkpoint=args.checkpoint, device=device)
    _logger.info(f"{index!r}, searched with {index.model!r}")
    return index


def open_desk(args: Namespace, model: MultiLabel) -> LabelingDesk:
    """Return the queue, and the table that receives its labels.

    Raises:
        UsageError: the queue cannot be read, its images are not there, or the table cannot be written.
    """
    queue = Path(args.queue)
    cells = read_queue(queue)
    roots = queue_roots(queue, args.image_root or None, cells)
    desk = LabelingDesk(
        cells,
        roots,
        AnswerFile(Path(args.answers or default_answers(queue)), model.label_space.attributes),
        model.label_space,
    )
    progress = desk.progress()
    _logger.info(
        f"{queue}: {progress['cells']:,} cells, {progress['done']:,} with a label; answers: {desk.answers.path}"
    )
    return desk


def run(app: Any, place: socket.socket) -> None:
    """Answer requests on a socket until a signal comes."""
    import uvicorn

    config = uvicorn.Config(
        app,
        http="h11",
        loop="asyncio",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    with suppress(KeyboardInterrupt):  # uvicorn closes its connections first
        uvicorn.Server(config).run(sockets=[place])


if __name__ == "__main__":
    main()
