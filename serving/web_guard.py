"""What stands before a web page of ours: who may ask, what may be sent, and what a browser may do with an answer.

A page on a loopback address has no password, so the browser of its user is the way in for other sites:
- DNS rebinding: a name of theirs that suddenly means 127.0.0.1. Hence the Host header must be ours.
- Requests across sites, which a browser sends with our address. Hence whatever changes something must come from our
  page (Origin, Sec-Fetch-Site), in a form that no HTML form has (Content-Type).
"""

from __future__ import annotations

import asyncio
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

READING = ("GET", "HEAD")
PLAIN_KINDS = ("application/json", "application/octet-stream")  # no HTML form sends these

_PATIENCE = 60  # seconds for a body
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


class Guard:
    """Refuse requests that our page does not make, and add the headers that bind a browser.

    Args:
        app: what answers the others.
        host: the address that the server listens on.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app = app
        self.host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_bound(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        reason = refusal(scope["method"], Headers(scope=scope), self.host)
        answer = JSONResponse({"error": reason}, 403) if reason else self.app
        await answer(scope, receive, send_bound)


def refusal(method: str, headers: Headers, host: str) -> str:
    """Return why a request is refused, or "".

    Args:
        method: the method.
        headers: the headers.
        host: the address that the server listens on.
    """
    asked = headers.getlist("host")
    if len(asked) != 1 or not is_ours(asked[0], host):
        return "this page answers to its own address alone: open the one that the terminal shows"
    if method in READING:
        return ""
    origin = headers.get("origin")
    if origin is not None and origin != f"http://{asked[0]}":
        return "this request comes from another site: open the page that the terminal shows"
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return "this request comes from another site: open the page that the terminal shows"
    if headers.get("content-type", "").partition(";")[0].strip().lower() not in PLAIN_KINDS:
        return f"this request has another content type than {' or '.join(PLAIN_KINDS)}"
    return ""


def is_ours(name: str, host: str) -> bool:
    """Return whether a Host header names this server, with any port: the port cannot be forged by another site.

    Args:
        name: the header.
        host: the address that the server listens on.
    """
    try:
        asked = urlsplit(f"//{name}").hostname or ""
        urlsplit(f"//{name}").port  # noqa: B018 - raises for a wrong port
    except ValueError:
        return False
    if asked == host.lower() or asked == "localhost":
        return True
    try:
        address = ipaddress.ip_address(asked)
    except ValueError:
        return False
    # a browser sends an address as Host only if its user opened that address, so no name was rebound
    return address.is_loopback or host in ("0.0.0.0", "::")


async def read_body(request: Request, most: int, too_large: str) -> bytes:
    """Return the body of a request, never with more than the bound in memory.

    Args:
        request: the request.
        most: bytes that it may have.
        too_large: the sentence about more.

    Raises:
        HTTPException: it is larger, comes too slowly, or the other side left.
    """
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 15 or int(length) > most:
        raise HTTPException(413, too_large)
    body = bytearray()
    try:
        async with asyncio.timeout(_PATIENCE):
            async for part in request.stream():
                if len(body) + len(part) > most:
                    raise HTTPException(413, too_large)
                body += part
    except TimeoutError:
        raise HTTPException(408, f"the request took more than {_PATIENCE} seconds to arrive: send it again") from None
    except ClientDisconnect:
        raise HTTPException(400, "the request was cut off") from None
    return bytes(body)


def shown_address(host: str, port: int) -> str:
    """Return the address to open in a browser."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{here}]:{port}" if ":" in here else f"http://{here}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether an address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
