"""`glovebox` alone: where things stand here, and what to do next. TRUSTED, reads only."""

from __future__ import annotations

from dataclasses import dataclass

from runner.core.artifacts import store
from runner.core.base import locks
from runner.core.base.benches import find
from runner.core.base.errors import ArtifactError, GloveboxError, UsageError
from runner.core.decision import standing
from runner.core.evidence.ledger import Ledger
from runner.people.cli.common import newest


@dataclass(frozen=True)
class Next:
    """In a sentence, and the commands that suit it with what each does."""

    now: str
    commands: tuple[tuple[str, str], ...]


def here() -> Next:
    """What suits the bench that is in force."""
    try:
        home = find()
    except GloveboxError as error:
        missing = error.fix == "run: glovebox init"  # else there is one, and it is not to be used
        return Next(f"{error.where}: {error.what}", (("glovebox init", "make a bench here"),) if missing else ())
    try:
        version = store.latest(home)
    except ArtifactError as error:
        return Next(
            f"a bench without data: {error.what}",
            (
                ("glovebox prepare --profile demo", "seconds, no network: a made-up language"),
                ("glovebox profile list", "the scales there are"),
                ("glovebox prepare --profile small --data FOLDER", "your own text"),
            ),
        )
    if not home.ledger.is_file():
        return _ready(version)
    book = Ledger(home.ledger, read_only=True)
    if locks.held(home.runner_lock):
        return _running(book.latest() or "a run")
    try:
        return _ended(book, newest(home, book, None))
    except UsageError:
        return _ready(version)


def _ready(version: str) -> Next:
    return Next(
        f"artifact {version} is here, and nothing has run",
        (
            ("glovebox doctor", "is everything in place? each failed line says what to do"),
            ("glovebox run --tag first --agent scripted --experiments 3", "three experiments without a model or a key"),
            ("glovebox up --tag night --agent claude", "an unattended night"),
        ),
    )


def _running(tag: str) -> Next:
    return Next(
        f"{tag} is running",
        (
            ("glovebox watch", "as it goes, here"),
            ("glovebox serve", "as it goes, in a browser"),
            ("glovebox hint TEXT", "a word to its agents"),
            ("glovebox stop", "end it after the experiment in progress"),
        ),
    )


def _ended(book: Ledger, tag: str) -> Next:
    rows = book.experiments(tag)
    best = standing.best(rows)
    told = "" if best is None else f", the best scores {best.val_bpb:.6f} (experiment {best.id})"
    return Next(
        f"{tag}: {len(rows)} experiments{told}; nothing is running",
        (
            ("glovebox report", "its page"),
            ("glovebox best", "the best train.py"),
            ("glovebox confirm", "measure what was gained, on seeds nothing was chosen by"),
            (f"glovebox run --tag {tag} --more 10", "go on"),
        ),
    )
