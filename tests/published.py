"""Is what a command printed with --json what docs/schemas/ says of it?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache

import jsonschema

from runner.core.base.home import SOURCE
from runner.people.cli.documents.registry import DOCUMENTS

SCHEMAS = SOURCE / "docs" / "schemas"


def command_of(args: Sequence[str]) -> str:
    """The command that these words of a shell call."""
    words = [word for word in args if not word.startswith("-")]
    two = " ".join(words[:2])
    return two if two in DOCUMENTS else next(iter(words[:1]), "")


@cache
def _schema(name: str) -> jsonschema.Draft202012Validator:
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def check(args: Sequence[str], out: str) -> None:
    """Raises AssertionError, or jsonschema's, if something else was printed."""
    for line in out.splitlines():
        document = json.loads(line)
        name = "error" if set(document) == {"error"} else command_of(args).replace(" ", "-") or "glovebox"
        _schema(name).validate(document)
