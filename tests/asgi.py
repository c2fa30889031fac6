"""Requests to an ASGI application, without a server and a client."""

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

HOST = "127.0.0.1:7860"


class Answer:
    """An answer: its status, headers and body."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def content(self) -> Any:
        """The body's JSON."""
        return json.loads(self.body)


def request(app: Any, method: str, address: str, parts: list[bytes] | None = None, **headers: str) -> Answer:
    """Return the answer to a request.

    Args:
        app: the application.
        method: the method.
        address: path and query.
        parts: the body as it arrives.
        headers: the headers; an empty one is left out.
    """
    usual = {"host": HOST} | ({"content-type": "application/octet-stream"} if method == "POST" else {})
    sent = usual | {name.replace("_", "-"): value for name, value in headers.items()}
    url = urlsplit(address)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": url.path,
        "raw_path": url.path.encode(),
        "query_string": url.query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in sent.items() if value],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 7860),
    }
    waiting = [*(parts or [b""])]
    started: list[Any] = []
    body = bytearray()

    async def receive() -> Any:
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            started.append(message)
        else:
            body.extend(message.get("body", b""))

    try:
        asyncio.run(app(scope, receive, send))
    except Exception:  # raised for the log of the server, after the answer
        if not started:
            raise
    [start] = started
    return Answer(start["status"], {name.decode(): value.decode() for name, value in start["headers"]}, bytes(body))


def post_json(app: Any, address: str, content: Any) -> Answer:
    """Return the answer to a POST of JSON."""
    return request(app, "POST", address, [json.dumps(content).encode()], content_type="application/json")
