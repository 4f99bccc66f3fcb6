"""Texts beside a tag's rows: programs, notebooks, and what people asked for. In the ledger's database. TRUSTED.

A text is kept once, under the SHA-256 of its bytes, and rows name it by that: which directive an experiment was made
under, and what its agent knew. Agents' and people's words; nothing is decided by them.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence

from pydantic import ValidationError

from runner.core.airlock.notebook import Notebook
from runner.core.base import steering
from runner.core.base.errors import GloveboxError
from runner.core.base.home import Home
from runner.core.base.steering import Steer
from runner.core.evidence.ledger import Ledger


class Texts:
    """Those of one bench."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: dict[str, list[Steer]] = {}
        self._lock = threading.Lock()

    @property
    def there(self) -> bool:
        """Whether the ledger has any; one that is only read may be older."""
        return self._ledger.knows("texts", "digest")

    def keep(self, text: str) -> str:
        """Keep a text; returns its digest."""
        digest = hashlib.sha256(text.encode()).hexdigest()
        if self.text(digest) is None:
            with self._ledger.transaction() as db:
                db.execute("INSERT OR IGNORE INTO texts (digest, text) VALUES (?, ?)", (digest, text))
        return digest

    def text(self, digest: str | None) -> str | None:
        """The text of a digest, None if it is not there or says something else."""
        rows = self._ledger.read("SELECT text FROM texts WHERE digest = ?", digest) if digest and self.there else []
        if not rows or hashlib.sha256(rows[0][0].encode()).hexdigest() != digest:
            return None
        return str(rows[0][0])

    def notebook(self, tag: str) -> Notebook:
        """The tag's notebook as it is now; raises GloveboxError for what is none."""
        rows = self._ledger.read("SELECT text FROM notebooks WHERE tag = ?", tag) if self.there else []
        return _notebook(rows[0][0]) if rows else Notebook()

    def write_notebook(self, tag: str, notebook: Notebook) -> None:
        """Make it the tag's. What no experiment was made under is not kept: agents write as often as they like."""
        with self._ledger.transaction() as db:
            values = (tag, notebook.model_dump_json())
            db.execute("INSERT OR REPLACE INTO notebooks (tag, text) VALUES (?, ?)", values)

    def keep_notebook(self, tag: str) -> str | None:
        """Keep the tag's notebook as it is now; its digest, None if nobody wrote anything."""
        book = self.notebook(tag)
        return None if book == Notebook() else self.keep(book.model_dump_json())

    def read_notebook(self, digest: str) -> Notebook:
        """The one of a digest; raises GloveboxError for what is none."""
        return _notebook(self.text(digest) or "")

    def odd(self, tags: Sequence[str]) -> list[str]:
        """What no session wrote: notebooks and requests of tags that are none, notebooks that cannot be read, and
        requests whose name in their column is another than in their text."""
        if not self.there:
            return []
        found = []
        for tag, text in self._ledger.read("SELECT tag, text FROM notebooks"):
            try:
                _notebook(text)
            except GloveboxError:
                found.append(f"a malformed notebook of {ascii(str(tag)[:40])[1:-1]}")
            if tag not in tags:
                found.append(f"a notebook of {ascii(str(tag)[:40])[1:-1]}, which is no tag")
        for tag, request, text in self._ledger.read("SELECT tag, request, row FROM steers"):
            known = tag in tags and _steer(tag, text).request == request
            found += [] if known else [f"a request of {ascii(str(tag)[:40])[1:-1]} that is none"]
        return found

    def steers(self, tag: str) -> list[Steer]:
        """What people asked of a tag, in the order in which its sessions took it in; each is parsed once."""
        with self._lock:
            known = self._known.setdefault(tag, [])
            if self.there:
                query = "SELECT row FROM steers WHERE tag = ? AND id > ? ORDER BY id"
                new = [_steer(tag, text) for (text,) in self._ledger.read(query, tag, len(known))]
                if any(one.id != number for number, one in enumerate(new, len(known) + 1)):
                    raise _malformed()
                known += new
            return list(known)

    def taken(self, request: str) -> bool:
        """Whether any tag's session has taken in a request."""
        return bool(self._ledger.read("SELECT 1 FROM steers WHERE request = ?", request))

    def add(self, steer: Steer) -> None:
        """Record what a person asked for; it has the next number."""
        with self._ledger.transaction() as db:
            values = (steer.tag, steer.id, steer.request, steer.model_dump_json())
            db.execute("INSERT INTO steers (tag, id, request, row) VALUES (?, ?, ?, ?)", values)


def _notebook(text: str) -> Notebook:
    try:
        return Notebook.model_validate_json(text)
    except ValidationError:
        fix = "restore it from a backup: glovebox restore"
        raise GloveboxError("a notebook is missing or malformed", where="ledger", fix=fix) from None


def paused(home: Home, texts: Texts, tag: str) -> bool:
    """Whether a person has paused a tag, or is about to."""
    coming = [one for _, one in steering.waiting(home, tag) if one is not None]
    return steering.paused(texts.steers(tag), coming)


def _steer(tag: str, text: str) -> Steer:
    try:
        steer = Steer.model_validate_json(text)
    except ValidationError:
        raise _malformed() from None
    if steer.tag != tag:
        raise _malformed()
    return steer


def _malformed() -> GloveboxError:
    return GloveboxError("a malformed request", where="ledger", fix="restore it from a backup: glovebox restore")
