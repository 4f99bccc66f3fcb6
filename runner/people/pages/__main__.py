"""`python -m runner.people.pages HOME TAG`: write a run's page for every line on stdin, at the lowest priority.

TRUSTED, reads only. Lines that came meanwhile are one more page; the end of the input is ours.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from runner.core.artifacts import begun
from runner.core.base.home import Home
from runner.core.evidence.ledger import Ledger
from runner.people.pages import report


def main(argv: list[str]) -> int:
    """Write pages; what one stumbles over is one line for people, and nobody's end."""
    os.nice(19)  # whatever trains goes first
    home, tag = Home(Path(argv[1])), argv[2]
    page: report.Page | None = None
    while os.read(sys.stdin.fileno(), 1 << 16):
        try:
            if page is None:
                book = Ledger(home.ledger, read_only=True)
                page = report.Page(home, book, begun.under_or_now(home, book.run_info(tag)["policy"]), tag)
            page.write()
        except Exception as error:  # noqa: BLE001 - a page is a page: whatever is wrong with it, the night goes on
            page = None
            print(f"glovebox: the report was not written: {type(error).__name__}: {error}"[:300], file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
