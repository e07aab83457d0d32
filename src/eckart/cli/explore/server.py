"""The server of the page: loopback alone, a token in the address, one thing at a time."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import secrets
import socket
import sys
import traceback
import webbrowser
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor, wait
from importlib import resources
from threading import Event
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from eckart.cli.console import leave, print_json, say, show
from eckart.cli.explore.explorer import Explorer, StoppedError
from eckart.errors import EckartError, how_to_install
from eckart.records import Edit

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.datastructures import Headers
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route
except ImportError as error:
    raise EckartError(
        f"explore needs a package that is not installed ({error.name}); {how_to_install('explore')}"
    ) from error

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

FILES = {
    "": ("index.html", "text/html"),
    "style.css": ("style.css", "text/css"),
    "explore.js": ("explore.js", "text/javascript"),
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
LONGEST = 1_000_000
"""The most bytes of a request."""
PROGRESS = "progress"
GLANCE = 0.05
"""Seconds between two looks at whether the tab still waits."""
PATIENCE = 0.3
"""Seconds that the work under way is waited for at the end."""


class Sent(BaseModel):
    """What a tab sends with a question."""

    tab: str = ""
    edits: tuple[str, ...] = ()
    fields: dict[str, str] = {}

    @property
    def parsed(self) -> list[Edit]:
        return [Edit.parse(text) for text in self.edits]


Ask = Callable[[Sent, Event], Any]


class Desk:
    """One worker for all tabs: what a tab asks again, or no longer waits for, is stopped.

    Arguments:
        explorer: answers.
        ending: says whether the server is.
    """

    def __init__(self, explorer: Explorer, ending: Callable[[], bool]) -> None:
        self.explorer = explorer
        self.ending = ending
        self.worker = ThreadPoolExecutor(1, "explore")
        self.waiting: dict[tuple[str, str], Event] = {}
        self.asks: dict[str, Ask] = {
            "about": lambda said, stop: explorer.about(stop),
            "look": lambda said, stop: explorer.look(said.parsed, stop),
            "guard": lambda said, stop: explorer.guarded(said.parsed, stop),
            "text": lambda said, stop: explorer.text(said.parsed, said.fields, stop),
            "test": lambda said, stop: explorer.test(said.parsed, stop),
        }

    async def ask(self, request: Request) -> Response:
        """Answer a question of a tab, unless it asks another of the kind first, or is closed."""
        what = request.path_params["what"]
        if what not in (PROGRESS, *self.asks):
            return _refused("there is no such question", 404)
        if int(request.headers.get("content-length", LONGEST)) >= LONGEST:
            return _refused("this is too long", 413)
        try:
            said = Sent.model_validate_json(await request.body())
        except ValidationError:
            return _refused("this is no question, but something else", 400)
        if what == PROGRESS:  # it waits for nothing
            watch = self.explorer.watch
            far = {"what": watch.what, "rows": watch.rows, "done": watch.done}
            return _answer(far)
        stop, place = Event(), (said.tab, what)
        self.waiting.get(place, Event()).set()
        self.waiting[place] = stop
        try:
            return await self._answered(request, self.asks[what], said, stop)
        finally:
            stop.set()  # it may have been asked again, or be cancelled
            if self.waiting.get(place) is stop:
                del self.waiting[place]

    async def _answered(self, request: Request, ask: Ask, said: Sent, stop: Event) -> Response:
        answer = asyncio.wrap_future(self.worker.submit(ask, said, stop))
        while not (await asyncio.wait([answer], timeout=GLANCE))[0]:
            if self.ending():  # nobody waits for the batch in hand
                return _refused("eckart is ending", 503)
            if await request.is_disconnected():
                stop.set()
        try:
            return _answer(answer.result())
        except StoppedError:
            return _refused("stopped", 409)
        except EckartError as error:
            return _refused(str(error), 422)
        except Exception:
            traceback.print_exc()
            return _refused("this is a fault of eckart's; its terminal says more", 500)

    def close(self, patience: float | None = None) -> bool:
        """Stop the work under way, and say whether it ended within so many seconds."""
        for stop in self.waiting.values():
            stop.set()
        last = self.worker.submit(self.explorer.close)
        self.worker.shutdown(wait=False)
        return not wait([last], patience).not_done


def _answer(said: Any, status: int = 200) -> Response:
    """Return JSON in ASCII, which holds a path that is no text, too."""
    content = json.dumps(said, allow_nan=False)
    return Response(content, status, headers=HEADERS, media_type="application/json")


def _refused(why: str, status: int) -> Response:
    return _answer({"error": why}, status)


def application(desk: Desk, token: str, own: Collection[str]) -> ASGIApp:
    """Return the page and its questions; whoever has not the token, or came by another name than
    its `own` (host:port), gets neither."""
    folder = resources.files("eckart.cli.explore") / "page"

    def known(request: Request) -> bool:
        return secrets.compare_digest(request.path_params["token"].encode(), token.encode())

    async def file(request: Request) -> Response:
        name = request.path_params.get("name", "")
        if not known(request):
            return PlainTextResponse("wrong token: use the address as eckart printed it", 403)
        if name not in FILES:
            return PlainTextResponse("there is no such file", 404)
        path, kind = FILES[name]
        return Response((folder / path).read_bytes(), headers=HEADERS, media_type=kind)

    async def ask(request: Request) -> Response:
        return await desk.ask(request) if known(request) else _refused("wrong token", 403)

    page = Starlette(
        routes=[
            Route("/{token}/", file),
            Route("/{token}/{name}", file),
            Route("/{token}/ask/{what}", ask, methods=["POST"]),
        ]
    )

    async def at_home(scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        pages = [None, *(f"http://{name}" for name in own)]
        ours = headers.get("host") in own and headers.get("origin") in pages
        stranger = _refused("this was asked under another name than the page's own", 421)
        await (page if ours else stranger)(scope, receive, send)

    return at_home


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens on loopback; port 0 is any that is free.

    Raises:
        EckartError: the host is not loopback, or the port is taken.
    """
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise EckartError(
            f"--host {host} is not this machine alone, and whoever reaches the page reads the data;"
            " leave it out, and come from elsewhere through a tunnel (ssh -L)"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen()
    except (OSError, OverflowError) as error:
        bound.close()
        raise EckartError(
            f"port {port} of {host} cannot be used ({error}); name another with --port, or leave it"
            " out for any that is free"
        ) from None
    return bound


def serve(explorer: Explorer, bound: socket.socket, browse: bool, as_json: bool) -> None:
    """Serve the page until it is interrupted, and say where it is."""
    address, server, desk = page_of(explorer, bound)
    print_json({"address": address, "run": str(explorer.folder)}) if as_json else show(address)
    sys.stdout.flush()
    say("open this address in a browser on this machine; Ctrl-C ends it")
    if browse:
        webbrowser.open(address)
    try:
        server.run(sockets=[bound])
    finally:
        if not desk.close(PATIENCE):
            leave()


def page_of(explorer: Explorer, bound: socket.socket) -> tuple[str, uvicorn.Server, Desk]:
    """Return the page's address, the server whose `run` serves it until it is interrupted, and the
    desk to be closed then."""
    token = secrets.token_urlsafe(16)
    host, port = bound.getsockname()[:2]
    hosts = dict.fromkeys([f"[{host}]" if ":" in host else host, "127.0.0.1", "localhost", "[::1]"])
    own = [name if port == 80 else f"{name}:{port}" for name in hosts]  # as browsers write it
    desk = Desk(explorer, lambda: server.should_exit)
    server = uvicorn.Server(
        uvicorn.Config(
            application(desk, token, own),
            log_level="critical",  # what goes wrong is said by `Desk`
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
    )
    return f"http://{own[0]}/{token}/", server, desk
