"""The page's server as an ASGI application: routes, and what is refused before any of them.

The page sends the token as a header with every request for data, which no other site's page can do: the browser first asks
this server whether it may, and it never may. Pictures are asked for by number; every answer is JSON or a JPEG made here.
"""

import asyncio
import hmac
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from featurize.disk import forms
from featurize.errors import VggftError
from featurize.options import Option, records
from featurize.pixels.images import Unreadable
from vggft.labelling.background import Applying
from vggft.labelling.decisions import Unwritable
from vggft.labelling.previews import SIDES, Previews
from vggft.labelling.queue import Mode
from vggft.labelling.session import Busy, Press, Session
from vggft.sorting.journal import How

T = TypeVar("T")

TOKEN = "x-vggft-token"
_PAGE = Path(__file__).parent / "page"
_FILES = {"/": "page.html", "/page.js": "page.js", "/page.css": "page.css"}
_MOST_BYTES = 2_000_000  # of a request: a grid of 200 pictures takes 30,000
_LONGEST = 64  # characters of a window's name
_NUMBER = re.compile(r"[0-9]{1,16}")

# Nothing but the page's own files is loaded; pictures come as data that the page's script asked for.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src blob: data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
_ADDED = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]


@dataclass(frozen=True)
class _Presses:
    presses: tuple[Press, ...]


@dataclass(frozen=True)
class _Next:
    window: str
    mode: Mode
    label: str
    count: Annotated[int, Option(least=1, most=200)]
    have: tuple[int, ...]


@dataclass(frozen=True)
class _Closed:
    window: str


@dataclass(frozen=True)
class _Apply:
    how: How


class Guard:
    """Refuses every request that does not come from the page itself, and sends headers with every answer."""

    def __init__(self, app: ASGIApp, port: int, token: str) -> None:
        self._app = app
        self._token = token.encode()
        self._hosts = {f"127.0.0.1:{port}".encode(), f"localhost:{port}".encode()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_ADDED]
            await send(message)

        refusal = self._refusal(scope, dict(scope["headers"]))
        answer = PlainTextResponse(refusal[1], refusal[0]) if refusal else self._app
        await answer(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: Mapping[bytes, bytes]) -> tuple[int, str] | None:
        """Return status and text for a request that is refused."""
        host = headers.get(b"host", b"")
        if host not in self._hosts:  # a name of another site that leads here: DNS rebinding
            return 421, "This server answers only as 127.0.0.1 or localhost."
        if scope["path"] in _FILES:
            return None  # the same for everybody
        if not hmac.compare_digest(headers.get(TOKEN.encode(), b""), self._token):
            return 403, "The token is missing or wrong. Open the address that vggft sort has printed."
        return _refused_body(headers, host) if scope["method"] == "POST" else None


def _refused_body(headers: Mapping[bytes, bytes], host: bytes) -> tuple[int, str] | None:
    """Return status and text for a request with a body that is refused."""
    length = headers.get(b"content-length", b"")
    if headers.get(b"origin") != b"http://" + host:
        return 403, "Only the page of this server may send this."
    if headers.get(b"content-type") != b"application/json":
        return 415, "Expected application/json."
    if not length.isdigit():
        return 411, "Expected a Content-Length."
    return (413, f"Expected at most {_MOST_BYTES} bytes.") if int(length) > _MOST_BYTES else None


def application(
    session: Session, previews: Previews, applying: Applying, about: Mapping[str, Any], port: int, token: str
) -> ASGIApp:
    """Return the application.

    Args:
        about: what the page shows of the folder, and does not change.
    """
    routes = _Routes(session, previews, applying, about)
    app = Starlette(
        routes=[
            *(Route(path, _file(name)) for path, name in _FILES.items()),
            Route("/api/state", routes.state),
            Route("/api/next", routes.next, methods=["POST"]),
            Route("/api/presses", routes.presses, methods=["POST"]),
            Route("/api/closed", routes.closed, methods=["POST"]),
            Route("/api/apply", routes.apply, methods=["POST"]),
            Route("/api/picture/{id}/{side}", routes.picture),
        ],
        exception_handlers={
            HTTPException: lambda request, error: _error(error.status_code, error.detail),
            Unwritable: lambda request, error: _error(507, str(error)),
            Busy: lambda request, error: _error(409, str(error)),
            VggftError: lambda request, error: _error(400, str(error)),
        },
    )
    return Guard(app, port, token)


class _Json(JSONResponse):
    """JSON in ASCII, because names of files and folders may hold bytes that no UTF-8 can tell."""

    def render(self, content: Any) -> bytes:
        return forms.json_bytes(content)


def _error(status: int, message: str) -> Response:
    return _Json({"error": message}, status)


def _file(name: str) -> Callable[[Request], Response]:
    return lambda request: FileResponse(_PAGE / name)


class _Routes:
    """The functions behind the routes."""

    def __init__(self, session: Session, previews: Previews, applying: Applying, about: Mapping[str, Any]) -> None:
        self._session, self._previews, self._applying, self._about = session, previews, applying, about

    async def state(self, request: Request) -> Response:
        window = request.query_params.get("window", "")[:_LONGEST]
        return await run_in_threadpool(self._state, window)

    def _state(self, window: str) -> Response:
        return _Json({**self._about, **self._session.state(window), "applying": self._applying.state})

    async def next(self, request: Request) -> Response:
        wanted = await _read(request, _Next)
        given = (wanted.window[:_LONGEST], wanted.mode, wanted.label, wanted.count, wanted.have)
        return _Json(await run_in_threadpool(self._session.next, *given))

    async def presses(self, request: Request) -> Response:
        presses = (await _read(request, _Presses)).presses
        results = await run_in_threadpool(self._session.take, presses)
        window = presses[-1].window if presses else ""
        return _Json({"results": results, "state": await run_in_threadpool(self._session.state, window)})

    async def closed(self, request: Request) -> Response:
        await run_in_threadpool(self._session.close, (await _read(request, _Closed)).window)
        return _Json({})

    async def apply(self, request: Request) -> Response:
        await run_in_threadpool(self._applying.start, (await _read(request, _Apply)).how)
        return _Json({})

    async def picture(self, request: Request) -> Response:
        number, side = (_number(request.path_params[name]) for name in ("id", "side"))
        picture = self._session.pictures.by_id.get(number)
        if picture is None or side not in SIDES:
            return _error(404, "no such picture")
        future: Future[bytes] = self._previews.get(self._session.pictures.path(picture), side)
        try:
            return Response(await asyncio.wrap_future(future), media_type="image/jpeg")
        except Unreadable as error:
            await run_in_threadpool(self._session.leave_out, picture, str(error))
            return _error(422, str(error))


def _number(text: str) -> int:
    """Return a number in an address; 0 for anything else."""
    return int(text) if _NUMBER.fullmatch(text) else 0


async def _read(request: Request, kind: type[T]) -> T:
    """Return what the body of a request stands for.

    Raises:
        VggftError: anything else.
    """
    try:
        return records.build(kind, forms.parse_json(await request.body()))
    except ValueError as error:
        raise VggftError(f"not understood: {error}") from None
