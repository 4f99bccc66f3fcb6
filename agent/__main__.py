"""Entry point of the agent container: `python -m agent KIND`. UNTRUSTED."""

from __future__ import annotations

import sys

from agent import claude, command, scripted
from agent.client import Bench, leave

KINDS = {"claude": claude.main, "command": command.main, "scripted": scripted.main}


def main(argv: list[str]) -> int:
    """Run the agent named on the command line."""
    kind = argv[1] if len(argv) > 1 else ""
    if kind not in KINDS:
        print(f"unknown agent {kind!r}; one of: {', '.join(KINDS)}", file=sys.stderr)
        return 2
    code = KINDS[kind]()
    if kind == "scripted":  # the others say why they leave
        leave(Bench(patience=5), "failed" if code else "done")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv))
