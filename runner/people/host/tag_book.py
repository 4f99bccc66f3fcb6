"""What people call their tags, and which they have put away: no part of the record, which keeps every tag's own name.

The names a tag was begun under stand in signed entries, in commits and in rows that are hashed, so a tag is never
renamed there and its experiments never go: `verify` would miss them, and nobody could tell a person who tidies up from
one who hides a night. TRUSTED.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from runner.core.base import files, locks
from runner.core.base.errors import GloveboxError, UsageError
from runner.core.base.home import Home
from runner.core.base.launching import Frozen
from runner.core.base.values import Tag
from runner.core.evidence.ledger import Ledger

_MAX_BYTES = 1 << 20
_STAYS = "results.tsv"  # verify compares it with the ledger


class TagBook(Frozen):
    """`names`: what a tag is called, by tag; `archived`: those that are put away."""

    names: Mapping[Tag, Tag] = Field(default_factory=dict)
    archived: frozenset[Tag] = frozenset()


def _path(home: Home) -> Path:
    return home.root / "tags.json"


def read(home: Home) -> TagBook:
    """The bench's; empty if nobody has named anything. Raises GloveboxError for a file that is none."""
    path = _path(home)
    try:
        return TagBook.model_validate_json(files.read_plain(path, _MAX_BYTES))
    except FileNotFoundError:
        return TagBook()
    except (OSError, ValidationError):
        fix = "remove it: it holds names and what was archived, nothing of the record"
        raise GloveboxError("not a list of names", where=str(path), fix=fix) from None


def tag_of(home: Home, word: str) -> str:
    """The tag that a word means: the tag of that name, else one that a person calls so, else the word itself."""
    names = read(home).names
    if word not in names.values() or word in Ledger(home.ledger, read_only=True).tags():
        return word
    return next(tag for tag, name in names.items() if name == word)


def _write(home: Home, book: TagBook) -> None:
    files.write(_path(home), book.model_dump_json(indent=1) + "\n", mode=0o600)


def call(home: Home, ledger: Ledger, tag: str, name: str) -> None:
    """Call a tag otherwise; its own name takes the name away again. Raises UsageError if another is called so."""
    book = read(home)
    ledger.run_info(tag)
    names = {one: called for one, called in book.names.items() if one != tag}
    if name != tag and (name in ledger.tags() or name in names.values()):
        raise UsageError(f"another tag is called {name}", fix="see: glovebox tags --all")
    _write(home, book.model_copy(update={"names": names if name == tag else {**names, tag: name}}))


def archive(home: Home, ledger: Ledger, tag: str, *, away: bool) -> None:
    """Put a tag away, or take it out again: one that is away is in no list and never the newest."""
    book = read(home)
    ledger.run_info(tag)
    archived = book.archived | {tag} if away else book.archived - {tag}
    _write(home, book.model_copy(update={"archived": archived}))


def delete(home: Home, tag: str, *, remove: bool) -> tuple[int, int]:
    """(files, bytes) of a tag that are no part of the record: logs, hand-overs, pages.

    With `remove` they go, and what is left of the tag is put away; of one that never had an experiment nothing is left.
    Raises BusyError beside a run.
    """
    with locks.hold(home.runner_lock, "tags delete"):
        ledger = Ledger(home.ledger, read_only=not remove)
        try:
            ledger.run_info(tag)
            found = list(_files(home, ledger, tag))
            count, size = len(found), sum(path.lstat().st_size for path in found)
            if remove:
                _remove(home, ledger, tag)
        finally:
            ledger.close()
    return count, size


def _folders(home: Home, ledger: Ledger, tag: str) -> list[Path]:
    runs = [*(row.run for row in ledger.experiments(tag)), *(rerun.run for rerun in ledger.reruns(tag))]
    return [folder for folder in map(home.run, runs) if folder.is_dir() and not folder.is_symlink()]


def _pages(home: Home, tag: str) -> list[Path]:
    folder = home.tag(tag)
    ours = folder.is_dir() and not folder.is_symlink() and not folder.parent.is_symlink()
    return [path for path in folder.iterdir() if path.name != _STAYS] if ours else []


def _files(home: Home, ledger: Ledger, tag: str) -> Iterator[Path]:
    for place in (*_folders(home, ledger, tag), *_pages(home, tag)):
        yield from [place] if not place.is_dir() or place.is_symlink() else filter(_is_file, place.rglob("*"))


def _is_file(path: Path) -> bool:
    return path.is_symlink() or not path.is_dir()


def _remove(home: Home, ledger: Ledger, tag: str) -> None:
    for place in (*_folders(home, ledger, tag), *_pages(home, tag)):
        shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink(missing_ok=True)
    if ledger.begun(tag):
        archive(home, ledger, tag, away=True)
        return
    call(home, ledger, tag, tag)
    archive(home, ledger, tag, away=False)
    ledger.forget(tag)
    shutil.rmtree(home.tag(tag), ignore_errors=True)  # a link is not followed
