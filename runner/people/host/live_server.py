"""`glovebox serve`: pages of benches, live, for who has the address. TRUSTED, reads only; its callers are browsers.

Loopback or a Unix socket; who may look is said in live_guard.py. A page is sent whole once, and then in parts, as
server-sent events, when they change.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route
from starlette.types import ASGIApp

from runner.core.base import ownership
from runner.core.base.errors import GloveboxError, PolicyError, UsageError
from runner.core.base.home import Home
from runner.core.evidence.ledger import Ledger
from runner.people.host import tag_book
from runner.people.host.live_guard import NAMES, Guard
from runner.people.pages import live

INTERVAL = 2.0  # seconds between two looks at what runs
MOST_STREAMS = 32
_MOST_VIEWS = 64
_MOST_CONNECTIONS = 512  # of people who are let in and of those who are not
_TICK = 0.1  # seconds within which a stream ends with the server
_PING = 15  # looks without a change before a line is sent all the same
_FIRST_USER, _NOBODY = 1000, 65534
_STATIC = {"live.css": "text/css", "live.js": "text/javascript"}
# The page of a report has its style within it, and no script.
_REPORT = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


class Pages:
    """What is served of some benches."""

    def __init__(self, benches: Sequence[Home]) -> None:
        self.benches = benches
        self.streams = 0
        self.over = False  # streams end
        self._views: dict[tuple[int, str], live.View] = {}
        self._lock = threading.Lock()

    def view(self, request: Request) -> live.View:
        """The view a path names; raises KeyError."""
        bench, tag = int(request.path_params["bench"]), str(request.path_params["tag"])
        if not 0 <= bench < len(self.benches):
            raise KeyError(bench)
        home = self.benches[bench]
        with self._lock:
            there = self._views.get((bench, tag))
            if there is None or not there.current():
                self._views.pop((bench, tag), None)
                if not home.ledger.exists() or tag not in Ledger(home.ledger, read_only=True).tags():
                    raise KeyError(tag)
                if len(self._views) >= _MOST_VIEWS:
                    self._views.pop(next(iter(self._views)))  # the oldest; who looks at it keeps it
                there = self._views[bench, tag] = live.View(home, tag)
            return there

    async def first(self, _: Request) -> Response:
        """All benches; the newest tag where there is one bench alone."""
        found, wrong = await asyncio.to_thread(live.lines, self.benches, tag_book.read)
        if len(self.benches) == 1 and found:
            return RedirectResponse(f"/b/0/{found[0].tag}", status_code=303)
        return HTMLResponse(live.overview(self.benches, found, wrong))

    async def tag(self, request: Request) -> Response:
        """One tag, whole."""
        view = await asyncio.to_thread(self.view, request)
        found, _ = await asyncio.to_thread(live.lines, self.benches, tag_book.read)
        several = len(self.benches) > 1
        bench = int(request.path_params["bench"])
        return HTMLResponse(await asyncio.to_thread(view.page, bench, found, several=several))

    async def events(self, request: Request) -> Response:
        """What changes, as server-sent events (WHATWG HTML, 9.2)."""
        if request.method != "GET":
            return PlainTextResponse("", status_code=405, headers={"Allow": "GET"})
        view = await asyncio.to_thread(self.view, request)
        if self.streams >= MOST_STREAMS:
            return PlainTextResponse(f"{MOST_STREAMS} pages are open: close one\n", status_code=503)
        return StreamingResponse(self._stream(view), media_type="text/event-stream")

    async def _stream(self, view: live.View) -> AsyncIterator[str]:
        self.streams += 1
        before, quiet = dict[str, str](), 0
        try:
            while not self.over and await asyncio.to_thread(view.current):
                now = await asyncio.to_thread(view.parts)
                changed = [name for name in live.PARTS if now[name] != before.get(name)]
                quiet = 0 if changed else quiet + 1
                for name in changed:
                    yield _event(name, now[name])
                if quiet and quiet % _PING == 0:
                    yield ": still here\n\n"
                before = now
                for _ in range(round(INTERVAL / _TICK)):
                    if not self.over:
                        await asyncio.sleep(_TICK)
            why = "The server has ended." if self.over else "The record was replaced or removed: load the page again."
            yield _event("said", why)
        except (GloveboxError, OSError, sqlite3.Error) as error:
            yield _event("said", f"The record cannot be read: {error}")
        finally:
            self.streams -= 1

    async def report(self, request: Request) -> Response:
        """The report as it was last written."""
        view = await asyncio.to_thread(self.view, request)
        path = view.home.tag(view.tag) / "report.html"
        if not path.is_file():
            return PlainTextResponse("not written yet: glovebox report\n", status_code=404)
        return FileResponse(path, media_type="text/html", headers={"Content-Security-Policy": _REPORT})

    async def static(self, request: Request) -> Response:
        """Our style and our script."""
        name = request.url.path.removeprefix("/")
        return FileResponse(live.TEMPLATES / name, media_type=_STATIC[name])


def _event(name: str, text: str) -> str:
    return f"event: {name}\n" + "".join(f"data: {line}\n" for line in text.splitlines()) + "\n"


def app(pages: Pages, token: str, hosts: frozenset[str] | None) -> ASGIApp:
    """The application for some benches."""
    routes = [
        Route("/", pages.first),
        Route("/b/{bench:int}/{tag}", pages.tag),
        Route("/b/{bench:int}/{tag}/events", pages.events),
        Route("/b/{bench:int}/{tag}/report", pages.report),
        *(Route(f"/{name}", pages.static) for name in _STATIC),
    ]
    handlers = {KeyError: _missing, GloveboxError: _failed, OSError: _failed, sqlite3.Error: _failed}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), token, hosts)


async def _missing(_: Request, __: Exception) -> Response:
    return PlainTextResponse("no such tag\n", status_code=404)


async def _failed(_: Request, error: Exception) -> Response:
    return PlainTextResponse(f"{error}\n", status_code=500)


def shared() -> bool:
    """Whether others have an account on this host: what is on loopback is then for all of them to knock at."""
    others = [user for user in pwd.getpwall() if _FIRST_USER <= user.pw_uid < _NOBODY and user.pw_uid != os.getuid()]
    return any(not user.pw_shell.endswith(("nologin", "false")) for user in others)


def loopback(port: int) -> socket.socket:
    """A socket on 127.0.0.1; port 0: any. Raises UsageError where it is taken."""
    return _bound("127.0.0.1", port)


def of_container(port: int) -> socket.socket:
    """A socket on every address of a container, whose engine says what of it the host has; raises UsageError."""
    return _bound("0.0.0.0", port)  # noqa: S104 - a network namespace of its own


def _bound(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((address, port))
        made.listen()  # who is told the address now may come before the server answers
    except OSError as error:
        made.close()
        raise UsageError(str(error.strerror), where=f"{address}:{port}", fix="another --port, or 0 for any") from None
    return made


def local(path: Path) -> socket.socket:
    """A Unix socket that its owner alone can reach, in a folder where nobody else can replace it; raises UsageError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        ownership.way(path.parent)
    except PolicyError as error:
        raise UsageError(error.what, where=error.where, fix="a --socket in a folder of your own") from None
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError(why, where=str(path.parent), fix="a --socket in a folder of your own") from None
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        if path.exists() and stat.S_ISSOCK(path.lstat().st_mode) and not _answers(path):
            path.unlink()
        made.bind(str(path))
        made.listen()  # from now on it answers: nobody takes it for one that was left
    except OSError as error:
        made.close()
        raise UsageError(error.strerror or str(error), where=str(path), fix="another --socket, a shorter one") from None
    finally:
        os.umask(before)
    return made


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(1)
        try:
            asking.connect(str(path))
        except OSError:
            return False
    return True


class _Server(uvicorn.Server):
    """Lets the streams end before it waits for them."""

    def __init__(self, config: uvicorn.Config, pages: Pages) -> None:
        super().__init__(config)
        self._pages = pages

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal."""
        self._pages.over = True
        super().handle_exit(sig, frame)


def serve(pages: Pages, token: str, on: socket.socket) -> None:
    """Answer until the process is told to end."""
    application = app(pages, token, NAMES if on.family == socket.AF_INET else None)
    config = uvicorn.Config(
        application,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=5,
    )
    _Server(config, pages).run(sockets=[on])
