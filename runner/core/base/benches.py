"""Finding the bench in force, and making one. TRUSTED; whose it may be is said in ownership.py.

As git finds a repository: $GLOVEBOX_HOME, else `.glovebox` here or above.
"""

from __future__ import annotations

import os
from pathlib import Path

from runner.core.base import compose, locks, ownership
from runner.core.base.errors import PolicyError
from runner.core.base.home import NAME, Home


def folders(path: Path) -> None:
    """`path` and what is missing above it, for nobody else to write to."""
    for folder in reversed((path, *path.parents)):
        folder.mkdir(mode=0o700, exist_ok=True)


def make(home: Home) -> None:
    """The bench's own folder; raises PolicyError if somebody else was quicker."""
    if not home.root.exists():
        folders(home.root.parent)
        try:
            home.root.mkdir(mode=0o700)
        except FileExistsError:
            fix = "look at it, then run again"
            raise PolicyError("was made by somebody else just now", where=str(home.root), fix=fix) from None
    ownership.check(home.root)
    home.root.chmod(0o700)


def find(start: Path | None = None) -> Home:
    """The bench in force; raises PolicyError when there is none, or it is somebody else's."""
    if os.environ.get("GLOVEBOX_HOME"):
        home = place()
        if not home.trust.is_file():
            raise PolicyError("not a bench", where=str(home.root), fix="run: glovebox init")
        return home
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if os.path.lexists(folder / NAME):
            ownership.check(folder / NAME)  # before anything in it is looked at
            if Home(folder / NAME).trust.is_file():
                return Home(folder / NAME)
    raise PolicyError("no bench here or above", where=str(here), fix="run: glovebox init")


def place() -> Home:
    """Where a bench is, or would be made: $GLOVEBOX_HOME, else `.glovebox` here; raises PolicyError if not ours."""
    root = Path(os.path.abspath(os.environ.get("GLOVEBOX_HOME") or Path.cwd() / NAME))
    ownership.check(root)
    return Home(root.resolve())


def tag_at_work(home: Home) -> str | None:
    """The tag whose session holds a bench now, None if none does."""
    found = locks.holder(home.runner_lock) if locks.held(home.runner_lock) else None
    return found.name.removeprefix("tag ") if found is not None and found.name.startswith("tag ") else None


def of_service() -> Home:
    """The bench of compose's services; raises PolicyError if it is not ours."""
    compose.setting("GLOVEBOX_HOME")
    return place()
