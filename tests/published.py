"""Is what a command printed with --json what docs/schemas/ says of it?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import jsonschema

from runner.core.base.mountable import SOURCE
from runner.people.cli.documents.registry import DOCUMENTS

SCHEMAS = SOURCE / "docs" / "schemas"


def command_of(args: Sequence[str]) -> str:
    """The command that these words of a shell call."""
    words = [word for word in args if not word.startswith("-")]
    two = " ".join(words[:2])
    return two if two in DOCUMENTS else next(iter(words[:1]), "")


@cache
def _schema(name: str) -> jsonschema.Draft202012Validator:
    schema = _closed(json.loads((SCHEMAS / f"{name}.json").read_text()))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def _closed(schema: Any) -> Any:
    """As published, but that nothing more may be there."""
    if isinstance(schema, dict):
        found = {key: _closed(value) for key, value in schema.items()}
        extra = {"additionalProperties": False} if isinstance(schema.get("properties"), dict) else {}
        return {**extra, **found} if schema.get("type") == "object" else found
    return [_closed(one) for one in schema] if isinstance(schema, list) else schema


def check(args: Sequence[str], out: str) -> None:
    """Raises AssertionError, or jsonschema's, if something else was printed."""
    assert out.strip(), f"nothing was printed by {' '.join(args)}"
    for line in out.splitlines():
        document = json.loads(line)
        name = "error" if set(document) == {"error"} else command_of(args).replace(" ", "-") or "glovebox"
        _schema(name).validate(document)
