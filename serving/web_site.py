"""The page of app.py as an ASGI application: it reads photographs, finds similar images, and takes labels.

Images of the queue and of the index are named by number, never by path. What is sent is read in memory, and only the
table of answers is written.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from catalog.upload import MOST_BYTES, read_upload, too_many_bytes
from reports.app_page import FILES
from reports.thumbnail import small_image
from runtime.errors import UsageError, exhausted
from serving.labeling_desk import LabelingDesk
from serving.multi_label import MultiLabel
from serving.photo import jpeg, read_photo
from serving.promise import Promise
from serving.search import Index
from serving.similar_images import SIDE, index_facts, index_image, similar_images
from serving.web_guard import Guard, read_body

_LARGE_SIDE = 960  # pixels of the longer side of a queued image
_MOST_JSON = 1 << 16  # bytes
_MOST_SIMILAR = 60
_AT_ONCE = 2  # images that are decoded at the same time


@dataclass(frozen=True, eq=False)
class Site:
    """What the page is about.

    Attributes:
        model: the model.
        promise: what it abstains from; None if it never does.
        index: images to find similar ones in, or None.
        desk: cells to label, or None.
    """

    model: MultiLabel
    promise: Promise | None
    index: Index | None
    desk: LabelingDesk | None

    def facts(self) -> dict[str, Any]:
        """Return what the page says before an image is sent."""
        ready = self.model.ready
        return {
            "model": ready.arch,
            "checkpoint": str(self.model.checkpoints[0].path),
            "size": list(ready.data_config["input_size"]),
            "attributes": {name: len(names) for name, names in self.model.label_space.classes.items()},
            "calibrated": any(value != 1 for value in ready.temperatures.values()),
            "promise": self.promise and self.promise.facts(),
            "index": self.index and index_facts(self.index),
            "queue": self.desk and self.desk.facts(),
            "mostBytes": MOST_BYTES,
            "tooManyBytes": too_many_bytes(),
        }


def make_site(site: Site, host: str) -> ASGIApp:
    """Return the application.

    Args:
        site: what the page is about.
        host: the address that the server listens on.
    """
    model_lock = threading.Lock()  # one image at a time is decoded for the model, and seen by it
    picture_lock = threading.BoundedSemaphore(_AT_ONCE)

    def read(content: bytes) -> dict[str, Any]:
        selections = site.promise.selections if site.promise else {}
        with model_lock:
            answer = read_photo(site.model, read_upload(content), selections)
        return answer | {"promise": site.promise and site.promise.facts()}

    def similar(content: bytes, where: list[str], top: int) -> dict[str, Any]:
        assert site.index is not None
        with model_lock:
            return {"images": similar_images(site.index, read_upload(content), where, top)}

    def picture(file: str, side: int) -> Response:
        with picture_lock:
            image = small_image(file, side) if file else None
        if image is None:
            raise HTTPException(404, "the image is not there, or cannot be read")
        return Response(jpeg(image), media_type="image/jpeg")

    async def facts(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(site.facts))

    async def photo(request: Request) -> Response:
        content = await read_body(request, MOST_BYTES, too_many_bytes())
        return JSONResponse(await run_in_threadpool(read, content))

    async def nearest(request: Request) -> Response:
        content = await read_body(request, MOST_BYTES, too_many_bytes())
        top = min(_MOST_SIMILAR, _whole(request.query_params.get("top", "12"), "top"))
        where = request.query_params.getlist("where")
        return JSONResponse(await run_in_threadpool(similar, content, where, top))

    async def found_image(request: Request) -> Response:
        index = site.index
        assert index is not None
        row = _number(request, len(index))
        return await run_in_threadpool(lambda: picture(index_image(index, row), SIDE))

    async def queued_image(request: Request) -> Response:
        desk = site.desk
        assert desk is not None
        number = _number(request, len(desk.cells))
        return await run_in_threadpool(lambda: picture(desk.image(number), _LARGE_SIDE))

    async def waiting(request: Request) -> Response:
        desk = site.desk
        assert desk is not None
        after = request.query_params.get("after", "")
        number = _whole(after, "after") if after else -1
        return JSONResponse(await run_in_threadpool(desk.next, number))

    def on_cell(act: Callable[[LabelingDesk, int, Mapping[str, Any]], dict[str, Any]]) -> Any:
        async def answer(request: Request) -> Response:
            desk = site.desk
            assert desk is not None
            number = _number(request, len(desk.cells))
            content = _object(await read_body(request, _MOST_JSON, "the request is too large"))
            found = await run_in_threadpool(act, desk, number, content)
            return JSONResponse(found | await run_in_threadpool(desk.progress))

        return answer

    routes = [
        Route("/facts", facts),
        Route("/photo", photo, methods=["POST"]),
        *(Route(path, _file(kind, text)) for path, (kind, text) in FILES.items()),
    ]
    if site.index is not None:
        routes += [Route("/similar", nearest, methods=["POST"]), Route("/similar/{number}", found_image)]
    if site.desk is not None:
        routes += [
            Route("/queue", waiting),
            Route("/queue/{number}/image", queued_image),
            Route("/queue/{number}/label", on_cell(_label), methods=["POST"]),
            Route("/queue/{number}/undo", on_cell(_undo), methods=["POST"]),
        ]
    handlers: Any = {HTTPException: _refused, UsageError: _mistaken, Exception: _failed}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), host)


def _label(desk: LabelingDesk, number: int, content: Mapping[str, Any]) -> dict[str, Any]:
    values = content.get("values")
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise HTTPException(400, "values must be a list of classes")
    if any("\ud800" <= character <= "\udfff" for value in values for character in value):
        raise HTTPException(400, "a class holds half a character")
    return desk.answer(number, values, content.get("new") is True)


def _undo(desk: LabelingDesk, number: int, content: Mapping[str, Any]) -> dict[str, Any]:
    desk.undo(number)
    return {"cell": desk.describe(number)}


def _file(kind: str, text: str) -> Callable[[Request], Response]:
    def send(request: Request) -> Response:
        return Response(text, media_type=kind)

    return send


def _object(content: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise HTTPException(400, "the request is no JSON object")
    return found


def _number(request: Request, count: int) -> int:
    """Return the number in a path, below a count."""
    number = _whole(request.path_params["number"], "the number")
    if number >= count:
        raise HTTPException(404, f"there is no number {number}: the numbers end at {count - 1}")
    return number


def _whole(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise HTTPException(400, f"{name} is no whole number")
    return int(text)


def _refused(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


def _mistaken(request: Request, error: UsageError) -> Response:
    return JSONResponse({"error": str(error)}, 400)


def _failed(request: Request, error: Exception) -> Response:
    """Answer without a traceback, which the log gets."""
    reason = exhausted(error)
    sentence = f"{reason}: send a smaller image" if reason else "this failed; the terminal of app.py says why"
    return JSONResponse({"error": sentence}, 500)
