"""Serves the pages on this machine only, to whoever has the token."""

from __future__ import annotations

import contextlib
import hmac
import secrets
import shlex
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import uvicorn
from polars.exceptions import PolarsError
from starlette.applications import Starlette
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perceptune.commands.config_files import enter, use_plugins
from perceptune.commands.inspect import data_pages, exporting, pages, pictures, rounds
from perceptune.commands.inspect.contents import Contents
from perceptune.commands.inspect.filters import ALL, NONE, ImageAddress, ShownAddress
from perceptune.commands.inspect.library import Library
from perceptune.commands.inspect.parts import Page
from perceptune.contracts.errors import UserError, lookup, printable
from perceptune.report import gallery, svg

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
"""Names of this machine in requests. Any other comes from a page that had its own name resolved to
this machine."""
TEMPLATES = Path(__file__).parent / "templates"
HEADERS = {
    # no script and no style but our own files, which a model's output cannot change
    "content-security-policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
ASSETS = {"style.css": "text/css", "script.js": "text/javascript", "icon.svg": "image/svg+xml"}


class Guarded:
    """Answers only requests whose path begins with the token, and adds `HEADERS` to all responses.

    A path that begins with `once` leads to the page `at` the first time. The browser is started with
    that address: other users of the machine can read the arguments of processes.
    """

    def __init__(self, app: ASGIApp, token: str, once: str = "", at: str = "") -> None:
        self._app, self._token, self._once, self._at = app, token.encode(), once.encode(), at

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application sees the path without the token."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in HEADERS.items())]
            await send(message)

        first, slash, rest = scope["path"].removeprefix("/").partition("/")
        given = first.encode("utf-8", "surrogateescape")
        if self._once and hmac.compare_digest(given, self._once):
            self._once = b""
            redirection = RedirectResponse(f"/{self._token.decode()}/{self._at}", 303)
            await redirection(scope, receive, guarded)
            return
        if not slash or not hmac.compare_digest(given, self._token):
            refusal = PlainTextResponse("The address has no valid token. Use the one that the command printed.\n", 403)
            await refusal(scope, receive, guarded)
            return
        await self._app({**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode()}, receive, guarded)


def application(library: Library, token: str, once: str = "", at: str = "") -> ASGIApp:
    """The pages of a folder of results, under `/<token>/`; `/<once>/` leads to the page `at` one time."""
    environment = _environment()

    def shown(page: Callable[[Library, Mapping[str, str]], Page]) -> Callable[[Request], Response]:
        def respond(request: Request) -> Response:
            template, values = page(library, dict(request.query_params))
            here = request.url.path.rpartition("/")[2] + (f"?{request.url.query}" if request.url.query else "")
            html = environment.get_template(f"{template}.html.jinja").render(**values, here=here, library=library)
            return HTMLResponse(html)

        return respond

    def failed(request: Request, error: Exception) -> Response:
        status = 404 if isinstance(error, KeyError) else 400
        message = (
            "there is nothing at this address"
            if isinstance(error, KeyError)
            else str(error.args[0] if error.args else error)
        )
        hint = error.hint if isinstance(error, UserError) else None
        page = environment.get_template("error.html.jinja")
        return HTMLResponse(page.render(message=printable(message), hint=hint, here="", library=library), status)

    routes = [
        Route("/", shown(lambda library, _: pages.start(library))),
        *(Route(f"/{page.__name__}", shown(page)) for page in (pages.answers, pages.question, pages.compare)),
        *(Route(f"/{page.__name__}", shown(page)) for page in (data_pages.groups, data_pages.group)),
        *(Route(f"/{page.__name__}", shown(page)) for page in (data_pages.examples, data_pages.example)),
        Route("/rounds", shown(rounds.rounds)),
        Route("/image", lambda request: _image(library, request.query_params)),
        Route("/shown", lambda request: _shown(library, request.query_params)),
        Route("/picture", lambda request: _picture(library, request.query_params)),
        Route("/export", lambda request: _export(library, request.query_params)),
        *(Route(f"/{name}", _asset(name, kind)) for name, kind in ASSETS.items()),
    ]
    handlers: Any = dict.fromkeys((UserError, KeyError, ValueError, OSError, PolarsError), failed)
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False  # it would lose the token
    return TrustedHostMiddleware(Guarded(app, token, once, at), allowed_hosts=list(NAMES), www_redirect=False)


def _image(library: Library, query: Mapping[str, str]) -> Response:
    """An image of an example."""
    wanted = ImageAddress.read(query)
    try:
        image = library.image(wanted.dataset, wanted.id, wanted.number)
    except ValueError as error:
        return PlainTextResponse(printable(str(error)), 404)
    data, kind = pictures.encoded(image, pictures.SMALL if wanted.size == "small" else pictures.LONGEST_SIDE)
    return Response(data, media_type=kind)


def _shown(library: Library, query: Mapping[str, str]) -> Response:
    """An image as a request showed it to the model."""
    wanted = ShownAddress.read(query)
    files = pages.shown_images(library, library.answered(wanted.table), wanted.request)
    if wanted.number >= len(files):
        raise KeyError(wanted.number)
    data, kind = files[wanted.number]
    return Response(data, media_type=kind)


def _picture(library: Library, query: Mapping[str, str]) -> Response:
    """One of the pictures behind a preference group."""
    table = data_pages.grouped(library, query.get("table", ""))
    for picture in pictures.of_group(library, table.path, table.dataset, query.get("id", "")):
        if picture.name == query.get("name"):
            return Response(picture.data, media_type=picture.kind)
    raise KeyError(query.get("name"))


def _export(library: Library, query: Mapping[str, str]) -> Response:
    """A selection as JSON lines."""
    kind = query.get("of", "answers")
    lines = lookup(exporting.EXPORTS, kind, "kind of export")(library, dict(query))
    headers = {"content-disposition": f'attachment; filename="{kind}.jsonl"'}
    return StreamingResponse(lines, media_type="application/x-ndjson", headers=headers)


def _asset(name: str, kind: str) -> Callable[[Request], Response]:
    text = (TEMPLATES / name).read_text(encoding="utf-8")
    if name == "style.css":
        text = svg.STYLE + gallery.STYLE + text
    return lambda request: Response(text, media_type=kind)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = gallery.visible
    environment.filters["quoted"] = lambda value: shlex.quote(str(value))
    environment.filters["thousands"] = "{:,}".format
    environment.filters["number"] = lambda value: "none" if value is None else svg.number(value)
    environment.globals |= {"ALL": ALL, "NONE": NONE}
    return environment


def listening(port: int) -> socket.socket:
    """A socket on this machine; port 0 is any free one. Raises `UserError` if the port is taken."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()  # the address is printed before the server starts
    except (OSError, OverflowError) as error:
        listener.close()
        raise UserError(f"--port {port}: {error}", "leave it out to use any free port") from None
    return listener


def located(folder: Path) -> tuple[Path, Path]:
    """The directory of a run, and its folder of results relative to it.

    `folder` is either. Raises `UserError` if there are no results.
    """
    if not folder.is_dir():
        raise UserError(f"folder `{folder}` does not exist, expected the directory of a run or its results")
    for here, results in ((folder.absolute(), "results"), (folder.absolute().parent, folder.absolute().name)):
        if any((here / results / kind).is_dir() for kind in ("examples", "rewards", "preferences")):
            return here, Path(results)
    raise UserError(f"`{folder}` has no results, expected the directory of a run or its folder of results")


def run(folder: Path, port: int, at: str, browser: bool, configs: Sequence[Path]) -> None:
    """Serves the results until it is interrupted."""
    use_plugins(configs)
    here, results = located(folder)
    enter(here)
    library = Library(results)
    listener, token, once = listening(port), secrets.token_urlsafe(24), secrets.token_urlsafe(24) if browser else ""
    origin, at = f"http://{HOST}:{listener.getsockname()[1]}", at.lstrip("/")
    for message in library.contents.unreadable:
        print(printable(f"warning: {message}"), file=sys.stderr)
    print(_summary(library.contents))
    print(
        f"{origin}/{token}/{at}\nThe address is secret: whoever has it on this machine can read the results. Ctrl+C ends.",
        flush=True,
    )
    if browser:
        threading.Timer(0.5, webbrowser.open, [f"{origin}/{once}/"]).start()
    server = uvicorn.Server(
        uvicorn.Config(
            application(library, token, once, at), log_level="warning", access_log=False, server_header=False
        )
    )
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])


def _summary(contents: Contents) -> str:
    count = sum(one.rows for one in contents.answers.values())
    return f"{contents.folder.absolute()}: {count:,} answers of {len(contents.policies)} policies"
