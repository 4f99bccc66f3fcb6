"""The stand-in's HTTP side. Streams server-sent events, keeps what it received and what it would have billed.

Faults are taken from a queue, one a call: 429, 500, 529, 401, 400 (that status), drop (the connection breaks in
mid-stream), refuse (closed before any answer), drip (a byte at a time), malformed (an event that is not JSON),
endless (never ends), echo_key (an error that repeats the key), silent (no usage in the stream), late (the input is
told at the end, which does not come).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

Block = dict[str, Any]
Brain = Callable[[dict[str, Any]], list[Block]]


class Broken(Exception):
    """Makes uvicorn cut the connection in the middle of an answer."""


def say_ok(_: dict[str, Any]) -> list[Block]:
    """The simplest brain."""
    return [{"type": "text", "text": "ok"}]


@dataclass
class Standin:
    """Requests in, answers out; prices are nano-dollars a token (input, output)."""

    brain: Brain = say_ok
    faults: deque[str] = field(default_factory=deque)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    price: tuple[int, int] = (1000, 5000)
    billed_nano: int = 0
    retry_after: str = "1"

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/messages", self._messages, methods=["POST"]),
                Route("/v1/messages/count_tokens", self._count, methods=["POST"]),
                Route("/seen", self._seen, methods=["GET"]),
            ]
        )

    async def _seen(self, _: Request) -> Response:
        """For tests across processes: what arrived, and what it cost."""
        return JSONResponse({"bodies": [b.decode() for b in self.bodies], "billed_nano": self.billed_nano})

    async def _count(self, request: Request) -> Response:
        return JSONResponse({"input_tokens": len(await request.body()) // 4})

    async def _messages(self, request: Request) -> Response:
        body = await request.body()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        fault = self.faults.popleft() if self.faults else ""
        if fault == "refuse":
            raise Broken
        if fault == "echo_key":
            return _error(400, f"bad key {request.headers['x-api-key']}")
        if fault.isdigit():
            return _error(int(fault), "you asked for it", {"retry-after": self.retry_after} if fault == "429" else {})
        asked = json.loads(body)
        blocks = self.brain(asked)
        usage = {"input_tokens": len(body) // 4, "output_tokens": len(json.dumps(blocks)) // 4 + 1}
        usage["output_tokens"] = min(usage["output_tokens"], asked["max_tokens"])
        # A provider bills what it generated, whether or not anybody was still listening.
        self.billed_nano += usage["input_tokens"] * self.price[0] + usage["output_tokens"] * self.price[1]
        if not asked.get("stream"):
            return JSONResponse(_message(body, asked, usage) | {"content": blocks, "stop_reason": _stop(blocks)})
        return StreamingResponse(_stream(body, asked, blocks, usage, fault), media_type="text/event-stream")


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    kinds = {
        400: "invalid_request_error",
        401: "authentication_error",
        429: "rate_limit_error",
        529: "overloaded_error",
    }
    error = {"type": kinds.get(status, "api_error"), "message": message}
    return JSONResponse({"type": "error", "error": error}, status_code=status, headers=headers)


def _message(body: bytes, asked: dict[str, Any], usage: dict[str, int]) -> dict[str, Any]:
    name = "msg_" + hashlib.sha256(body).hexdigest()[:20]
    base = {"id": name, "type": "message", "role": "assistant", "model": asked["model"], "stop_sequence": None}
    return base | {"usage": usage}


def _stop(blocks: list[Block]) -> str:
    return "tool_use" if any(block["type"] == "tool_use" for block in blocks) else "end_turn"


async def _stream(
    body: bytes, asked: dict[str, Any], blocks: list[Block], usage: dict[str, int], fault: str
) -> AsyncIterator[bytes]:
    events = list(_events(body, asked, blocks, usage, fault))
    for number, event in enumerate(events):
        if fault == "drop" and number == len(events) // 2:
            raise Broken
        if fault == "malformed" and number == 1:
            event = b"event: content_block_delta\ndata: {not json\n\n"
        if fault in ("endless", "late") and number == len(events) - (1 if fault == "endless" else 2):
            await asyncio.sleep(3600)
        if fault == "drip":
            for at in range(len(event)):
                yield event[at : at + 1]
                await asyncio.sleep(0.001)
        else:
            yield event


def _events(body: bytes, asked: dict[str, Any], blocks: list[Block], usage: dict[str, int], fault: str) -> list[bytes]:
    told = 0 if fault == "late" else usage["input_tokens"]
    start = _message(body, asked, {"input_tokens": told, "output_tokens": 1})
    out = [{"type": "message_start", "message": start | {"content": [], "stop_reason": None}}]
    for index, block in enumerate(blocks):
        if block["type"] == "text":
            empty: Block = {"type": "text", "text": ""}
            delta = {"type": "text_delta", "text": block["text"]}
        else:
            empty = {**block, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        out += [
            {"type": "content_block_start", "index": index, "content_block": empty},
            {"type": "content_block_delta", "index": index, "delta": delta},
            {"type": "content_block_stop", "index": index},
        ]
    stop = {"type": "message_delta", "delta": {"stop_reason": _stop(blocks), "stop_sequence": None}}
    out.append(stop | {"usage": {} if fault == "silent" else {"output_tokens": usage["output_tokens"]}})
    out.append({"type": "message_stop"})
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in out]


class Serving:
    """A stand-in served from a thread of this process."""

    def __init__(self, standin: Standin, tls: tuple[Path, Path] | None = None, below: str = "") -> None:
        """`tls`: files of a certificate for 127.0.0.1 and of its key; `below`: a path that the API lies under."""
        app = Starlette(routes=[Mount(below, routes=standin.app().routes)]) if below else standin.app()
        self._url = ("https" if tls else "http") + "://127.0.0.1:{}" + below
        secure = {"ssl_certfile": tls[0], "ssl_keyfile": tls[1]} if tls else {}
        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off", **secure)  # type: ignore[arg-type]
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return self._url.format(port)

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(10)
