"""Whose browser is it? What stands before every page of `glovebox serve`. TRUSTED; its callers are browsers.

One token as Jupyter has it, in the address once and then in a cookie of this server's own; the Host header against DNS
rebinding; nothing but reading; and a policy under which a browser asks nobody else for anything.
"""

from __future__ import annotations

import hmac
import secrets

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NAMES = frozenset({"127.0.0.1", "localhost"})  # of a loopback socket
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; style-src-attr 'unsafe-inline'; "
    "script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Before every page: whose browser it is."""

    def __init__(self, app: ASGIApp, token: str, hosts: frozenset[str] | None) -> None:
        """`hosts`: as a browser names us; None: whoever reached the socket named it as he liked."""
        self._app, self._token, self._hosts = app, token, hosts
        self._session = secrets.token_urlsafe(24)  # in place of the token: cookies go to every port of a host
        self._cookie = f"glovebox_{secrets.token_hex(4)}"  # another server's cookie is not overwritten

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, answer, or refuse."""
        if scope["type"] != "http":
            return
        request = Request(scope)
        response = self._refusal(request)
        given = request.query_params.get("token", "")
        if response is None and given and _same(given, self._token):
            response = RedirectResponse("/" + request.url.path.lstrip("/"), status_code=303)
            response.set_cookie(self._cookie, self._session, httponly=True, samesite="lax")
        elif response is None and not _same(request.cookies.get(self._cookie, ""), self._session):
            response = PlainTextResponse("open the address that was printed, with its token\n", status_code=403)

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = list(message.get("headers", []))
                names = {name for name, _ in there}
                more = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": there + [(n, v) for n, v in more if n not in names]}
            await send(message)

        await (self._app if response is None else response)(scope, receive, sent)

    def _refusal(self, request: Request) -> Response | None:
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("nothing can be changed here\n", status_code=405, headers={"Allow": "GET, HEAD"})
        name = request.headers.get("host", "").rsplit(":", 1)[0]  # a forwarded port may be another
        if self._hosts is not None and name not in self._hosts:
            return PlainTextResponse(
                f"not this host: open it as one of {', '.join(sorted(self._hosts))}\n", status_code=421
            )
        return None


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())
