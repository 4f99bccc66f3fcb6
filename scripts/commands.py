#!/usr/bin/env python3
"""docs/commands.md from the commands' own help: `scripts/commands.py` writes it, a test holds that it is current."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

TARGET = Path(__file__).resolve().parents[1] / "docs" / "commands.md"
_HEAD = """# Commands

Made from `glovebox COMMAND -h` by `scripts/commands.py`. Data goes to stdout, progress to stderr; `--json` prints one
document. `glovebox` alone says what to do next here.

"""
_WIDTH = 100


def text() -> str:
    """The whole file."""
    from runner.people.cli.main import app  # noqa: PLC0415 - slow to import

    root: Any = typer.main.get_command(app)
    return _HEAD + "\n".join(_sections(root, "glovebox", None)) + "\n" + f"## Exit codes\n\n{root.epilog}\n"


def _sections(group: Any, path: str, parent: Any) -> Iterator[str]:
    context = group.make_context(path.rsplit(" ", 1)[-1], [], parent=parent, resilient_parsing=True)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if hasattr(command, "list_commands"):
            yield from _sections(command, f"{path} {name}", context)
            continue
        inner = type(context)(command, info_name=name, parent=context, terminal_width=_WIDTH, max_content_width=_WIDTH)
        yield f"## {path} {name}\n\n```\n{command.get_help(inner).rstrip()}\n```\n"


def main() -> int:
    """Write it; with --check say whether it was current."""
    made = text()
    if "--check" in sys.argv:
        return int(TARGET.read_text() != made)
    TARGET.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
