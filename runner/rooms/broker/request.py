"""What the agent may ask of the model API: parsed, checked and rebuilt from an allow-list. TRUSTED, hostile input.

The body is never forwarded. It is parsed with caps, every field must be named in fields.py, and the JSON that leaves
is made from its models: no server tools, MCP servers, containers, files, images, documents or URLs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from runner.core.base.errors import GloveboxError
from runner.rooms.broker import fields
from runner.rooms.broker.fields import BETAS, KNOWN, CountRequest, MessagesRequest, Part
from trainer.wire import strict_json

MAX_DEPTH = 40  # JSON schemas of tools nest
MAX_BETAS = 4096  # characters of the header
_CODES = {
    "extra_forbidden": "field_not_allowed",
    "union_tag_invalid": "type_not_allowed",
    "union_tag_not_found": "type_missing",
    "literal_error": "value_not_allowed",
    "missing": "field_missing",
}
_SAYS_WHAT = {"literal_error": "expected", "union_tag_invalid": "expected_tags"}  # of an error, in words of fields.py


class RequestRefused(GloveboxError):
    """The body is not what we forward; `what` is a closed code, `where` a path of known fields and indexes, `fix` what
    is allowed there."""


RequestT = TypeVar("RequestT", bound=CountRequest)


def parse(body: bytes, model: type[RequestT], max_bytes: int) -> RequestT:
    """The request in `body`; raises RequestRefused with a closed code."""
    try:
        value = strict_json.loads(body, max_bytes=max_bytes, max_depth=MAX_DEPTH)
    except strict_json.StrictJsonError as error:
        raise RequestRefused(error.reason) from None
    try:
        return model.model_validate_json(json.dumps(value))
    except ValidationError as error:
        # Of a union's alternatives the one that fitted furthest says best what is wrong.
        found = error.errors(include_url=False, include_input=False)
        first = max(found, key=lambda one: len(one["loc"]))
        allowed = str(first.get("ctx", {}).get(_SAYS_WHAT.get(first["type"], ""), ""))
        raise RequestRefused(_CODES.get(first["type"], "bad_value"), where=_place(first["loc"]), fix=allowed) from None


def rebuild(request: CountRequest) -> bytes:
    """The body that leaves: only fields that were given, in the order of the models."""
    leaving = request.model_dump(mode="json", exclude_unset=True, by_alias=True)
    return json.dumps(leaving, separators=(",", ":")).encode()


def left_out(request: CountRequest) -> dict[str, int]:
    """How often each field was given that is accepted and not forwarded."""
    return dict(Counter(_left_out(request)))


def betas(header: str) -> tuple[str, int]:
    """Of an anthropic-beta header: what is forwarded, and how many are not."""
    given = {one.strip() for one in header[:MAX_BETAS].split(",")} - {""}
    return ",".join(sorted(given & BETAS)), len(given - BETAS)


def clamped(request: RequestT, most: int) -> RequestT:
    """The request with at most so many tokens of output, its thinking among them."""
    if not isinstance(request, MessagesRequest) or request.max_tokens <= most:
        return request
    changes: dict[str, Any] = {"max_tokens": most}
    if request.thinking is not None and (request.thinking.budget_tokens or 0) >= most:
        changes["thinking"] = request.thinking.model_copy(update={"budget_tokens": max(1, most - 1)})
    return request.model_copy(update=changes)


def _left_out(part: Part) -> Iterator[str]:
    for name in part.model_fields_set:
        value, field = getattr(part, name), type(part).model_fields[name]
        if field.exclude:
            yield name
        for inner in value if isinstance(value, list) else (value,):
            if isinstance(inner, Part):
                yield from _left_out(inner)


def _place(path: tuple[int | str, ...]) -> str:
    """Only field names of ours or the API's and numbers: a key inside a tool's input is the agent's own text."""
    return ".".join(str(part) for part in path if isinstance(part, int) or part in _NAMES)


def _names() -> Iterator[str]:
    for value in vars(fields).values():
        if isinstance(value, type) and issubclass(value, BaseModel):
            yield from (field.alias or name for name, field in value.model_fields.items())


_NAMES = KNOWN.union(_names())
