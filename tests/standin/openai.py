"""`python -m tests.standin.openai PORT`: a stand-in for servers that speak OpenAI's chat completions, and nothing else.

Asked with tools it calls the first one, told the result it says so; "fail" in the last message is answered by 500.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

USAGE = {"prompt_tokens": 321, "completion_tokens": 12, "total_tokens": 333}
CALL = {"command": "bench run 'one idea more'"}


class Completions:
    """Keeps what it was asked, and with which key."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self._answer, methods=["POST"]),
                Route("/seen", self._tell, methods=["GET"]),
            ]
        )

    async def _tell(self, _: Request) -> Response:
        return JSONResponse(self.seen)

    async def _answer(self, request: Request) -> Response:
        asked = json.loads(await request.body())
        self.seen.append({"key": request.headers.get("authorization"), "body": asked})
        if "fail" in json.dumps(asked["messages"][-1]):
            return JSONResponse({"error": {"message": "out of memory", "type": "server_error"}}, status_code=500)
        message = _message(asked)
        base = {"id": "chatcmpl-1", "created": 1, "model": asked["model"]}
        if asked.get("stream"):
            return StreamingResponse(_chunks(base, message), media_type="text/event-stream")
        choice = {"index": 0, "message": message, "finish_reason": _reason(message)}
        return JSONResponse(base | {"object": "chat.completion", "choices": [choice], "usage": USAGE})


def _message(asked: dict[str, Any]) -> dict[str, Any]:
    if asked.get("tools") and asked["messages"][-1]["role"] != "tool":
        function = {"name": asked["tools"][0]["function"]["name"], "arguments": json.dumps(CALL)}
        call = {"id": "call_1", "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    return {"role": "assistant", "content": "It is done."}


def _reason(message: dict[str, Any]) -> str:
    return "tool_calls" if "tool_calls" in message else "stop"


def _chunks(base: dict[str, Any], message: dict[str, Any]) -> Iterator[bytes]:
    """As vLLM streams: a few characters a chunk, the usage in one of its own at the end."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    for call in message.get("tool_calls", ()):
        whole = call["function"]["arguments"]
        deltas.append({"tool_calls": [call | {"index": 0, "function": call["function"] | {"arguments": ""}}]})
        deltas += [
            {"tool_calls": [{"index": 0, "function": {"arguments": whole[at : at + 9]}}]}
            for at in range(0, len(whole), 9)
        ]
    words = message["content"] or ""
    deltas += [{"content": words[at : at + 4]} for at in range(0, len(words), 4)]
    chunk = base | {"object": "chat.completion.chunk"}
    for delta in deltas:
        yield _data(chunk | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    yield _data(chunk | {"choices": [{"index": 0, "delta": {}, "finish_reason": _reason(message)}]})
    yield _data(chunk | {"choices": [], "usage": USAGE})
    yield b"data: [DONE]\n\n"


def _data(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


if __name__ == "__main__":
    uvicorn.run(Completions().app(), host="0.0.0.0", port=int(sys.argv[1]), log_level="warning", lifespan="off")
