#!/usr/bin/env python3
"""docs/schemas/ and docs/json.md from the documents themselves: `scripts/schemas.py` writes them, a test holds them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Union

from pydantic import TypeAdapter

DOCS = Path(__file__).resolve().parents[1] / "docs"
_HEAD = """# What --json prints

One document for each command, on stdout, on one line (`watch`: a line whenever something changes; a run's progress goes
to stderr). Each has a JSON Schema (draft 2020-12) here, made from the models that print it by `scripts/schemas.py`; the
tests hold every document that any of them prints against it, and let no field pass that it does not name. A field may
be added; none is removed, renamed or given another meaning without a line in CHANGELOG.md. A command that fails prints
[`error.json`](schemas/error.json) and exits with the code in it; `doctor`, `verify`, `restore`, `policy diff` and
`redteam` that find something wrong print their own document. Help and version asked for by an option are text.

| Command | Schema | What |
|---|---|---|
"""


def texts() -> dict[Path, str]:
    """All files, by path below docs/."""
    from runner.people.cli.documents.base import Failed  # noqa: PLC0415 - slow to import
    from runner.people.cli.documents.registry import DOCUMENTS  # noqa: PLC0415

    made, lines = dict[Path, str](), list[str]()
    for command, kinds in sorted({**DOCUMENTS, "error": (Failed,)}.items()):
        name = f"{command.replace(' ', '-') or 'glovebox'}.json"
        union = TypeAdapter(Union[kinds])  # noqa: UP007 - of a tuple
        schema = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": f"glovebox {command} --json".replace("  ", " "),
            **{key: value for key, value in union.json_schema(mode="serialization").items() if key != "title"},
        }
        made[Path("schemas") / name] = json.dumps(_open(schema), indent=1) + "\n"
        if command != "error":
            said = "; ".join(_first_line(kind.__doc__) for kind in kinds)
            lines.append(f"| `{f'glovebox {command}'.strip()}` | [`{name}`](schemas/{name}) | {said} |")
    return {**made, Path("json.md"): _HEAD + "\n".join(lines) + "\n"}


def _open(schema: Any) -> Any:
    """Without what forbids more fields: whoever holds an older schema meets documents of a newer version."""
    if isinstance(schema, dict):
        return {k: _open(v) for k, v in schema.items() if (k, v) != ("additionalProperties", False)}
    return [_open(one) for one in schema] if isinstance(schema, list) else schema


def _first_line(text: str | None) -> str:
    return (text or "").strip().splitlines()[0].rstrip(".")


def current(made: dict[Path, str], docs: Path = DOCS) -> bool:
    """Whether what lies there is what would be written, and nothing more."""
    there = {path.relative_to(docs) for path in (docs / "schemas").glob("*")}
    return {*made} == {*there, Path("json.md")} and all((docs / path).read_text() == made[path] for path in made)


def main() -> int:
    """Write them; with --check say whether they were current."""
    made = texts()
    if "--check" in sys.argv:
        return int(not current(made))
    (DOCS / "schemas").mkdir(exist_ok=True)
    for path in (DOCS / "schemas").glob("*"):
        path.unlink()
    for path, text in made.items():
        (DOCS / path).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
