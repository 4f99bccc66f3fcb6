"""What the audit chain says, by experiment and rerun: read once, entry by entry, and on while it grows. TRUSTED."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from runner.core.base.values import Status
from runner.core.evidence import audit_chain
from runner.core.evidence.checkpoints import Checkpoints

Key = tuple[str, int]
Entry = dict[str, Any]


class ChainIndex:
    """`old` and `old_reruns`: what ended up to entry number `since`; `late`: what came after this was made."""

    def __init__(self, path: Path, public: str, since: int = -1) -> None:
        """`public`: the key that checkpoints must be signed by."""
        self.checkpoints = Checkpoints(public)
        self.size = path.stat().st_size if path.exists() else 0  # bytes when this was made
        self.length = 0
        self.odd_end = False  # whether it finishes an experiment twice, or one without a name
        self.again: list[str] = []  # what is accepted or run again a second time
        self._named: set[tuple[str, Key]] = set()
        self._going: set[str] = set()  # tags that have an experiment
        self.hashes: dict[int, str] = {}
        self.begun: dict[str, Entry] = {}  # by tag; a start that came to nothing gives way to the next
        self.order: dict[str, list[int]] = {}  # by tag: experiments as they ended, but those entered after a crash
        self.accepted: dict[Key, Entry] = {}
        self.finished: dict[Key, Entry] = {}
        self.reruns: dict[Key, Entry] = {}
        self.steers: dict[Key, Entry] = {}
        self.old: set[Key] = set()
        self.old_reruns: set[Key] = set()
        self.late: dict[Key, Entry] = {}
        self.late_reruns: set[Key] = set()
        self.late_accepted: set[Key] = set()
        self.late_steers: set[Key] = set()
        self._since = since
        self._follower = audit_chain.Follower(path)

    def catch_up(self, advance: Callable[[float], None] = lambda _: None, *, growing: bool = False) -> None:
        """Read what there is since the last time; raises VerifyError (`growing`: audit_chain.Follower)."""
        for entry in self._follower.new(advance, growing=growing):
            self._take(entry, late=self._follower.offset > self.size)

    def _take(self, entry: Entry, *, late: bool) -> None:
        """The next entry; entries of another shape are passed over."""
        self.length += 1
        self.hashes[entry["n"]] = entry["hash"]
        self.checkpoints.take(entry)
        found = audit_chain.named(entry)
        if found is None:
            self.odd_end |= entry.get("kind") == "finished"
            return
        key, data = found
        early, kind = entry["n"] <= self._since, str(entry["kind"])
        again = (kind, key) in self._named if kind != audit_chain.BEGUN else key[0] in self._going
        if again and kind == "finished":
            self.odd_end = True
        elif again:
            self.again.append(f"audit entry {entry['n']}: {key[0]} {kind} {key[1] or ''} is there already")
        self._named.add((kind, key))
        if kind == audit_chain.BEGUN:
            self.begun[key[0]] = data
        elif kind == "accepted":
            self._going.add(key[0])
            self.accepted[key] = data
            self.late_accepted |= {key} if late else set()
        elif kind == audit_chain.STEERED:
            self.steers[key] = data
            self.late_steers |= {key} if late else set()
        elif kind == "finished":
            self.finished[key] = data
            self.order.setdefault(key[0], []).extend([] if data.get("recovered") else [key[1]])
            self.old |= {key} if early else set()
            self.late |= {key: data} if late else {}
        else:
            self.reruns[key] = data
            self.old_reruns |= {key} if early else set()
            self.late_reruns |= {key} if late else set()

    def late_keeps(self, tag: str) -> set[object]:
        """Commits of a tag's keeps that came late."""
        keeps = [data for (of, _), data in self.late.items() if of == tag and data.get("status") == Status.KEEP]
        return {data.get("commit") for data in keeps}
