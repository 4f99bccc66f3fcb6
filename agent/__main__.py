"""Entry point of the agent container: `python -m agent KIND`. UNTRUSTED."""

from __future__ import annotations

import sys

from agent import claude, command, scripted

KINDS = {"claude": claude.main, "command": command.main, "scripted": scripted.main}


def main(argv: list[str]) -> int:
    """Run the agent named on the command line."""
    kind = argv[1] if len(argv) > 1 else ""
    if kind not in KINDS:
        print(f"unknown agent {kind!r}; one of: {', '.join(KINDS)}", file=sys.stderr)
        return 2
    return KINDS[kind]()


if __name__ == "__main__":
    sys.exit(main(sys.argv))
