"""`python -m runner.people.pages HOME TAG`: write a run's page again, at the lowest priority. TRUSTED, reads only."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from runner.core.artifacts import begun
from runner.core.base.home import Home
from runner.core.evidence.ledger import Ledger
from runner.people.pages import report


def main(argv: list[str]) -> int:
    """Write the page; what it stumbles over is one line for people, and nobody's end."""
    os.nice(19)  # whatever trains goes first
    home = Home(Path(argv[1]))
    try:
        book = Ledger(home.ledger, read_only=True)
        report.write(home, book, begun.under_or_now(home, book.run_info(argv[2])["policy"]), argv[2])
    except Exception as error:  # noqa: BLE001 - a page is a page: whatever is wrong with it, the night goes on
        print(f"glovebox: the report was not written: {type(error).__name__}: {error}"[:300], file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
