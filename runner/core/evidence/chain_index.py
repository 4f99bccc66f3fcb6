"""What the audit chain says, by experiment and rerun: read once, entry by entry. TRUSTED, pure."""

from __future__ import annotations

from typing import Any

from runner.core.base.values import Status
from runner.core.evidence import audit_chain
from runner.core.evidence.checkpoints import Checkpoints

Key = tuple[str, int]
Entry = dict[str, Any]


class ChainIndex:
    """`old` and `old_reruns`: what ended up to entry number `since`; `late`: what ended after the ledger's moment."""

    def __init__(self, public: str, since: int = -1) -> None:
        """`public`: the key that checkpoints must be signed by."""
        self.checkpoints = Checkpoints(public)
        self.length = 0
        self.ends = 0  # `finished` entries
        self.hashes: dict[int, str] = {}
        self.accepted: dict[Key, Entry] = {}
        self.finished: dict[Key, Entry] = {}
        self.reruns: dict[Key, Entry] = {}
        self.old: set[Key] = set()
        self.old_reruns: set[Key] = set()
        self.late: set[tuple[str, str, int]] = set()  # (experiment or rerun, tag, number)
        self.late_keeps: dict[str, set[object]] = {}  # their commits by tag
        self._since = since

    def take(self, entry: Entry, *, late: bool = False) -> None:
        """The next entry; entries of another shape are passed over."""
        self.length += 1
        self.hashes[entry["n"]] = entry["hash"]
        self.checkpoints.take(entry)
        self.ends += entry.get("kind") == "finished"
        found = audit_chain.named(entry)
        if found is None:
            return
        key, data = found
        early = entry["n"] <= self._since
        if entry["kind"] == "accepted":
            self.accepted[key] = data
        elif entry["kind"] == "finished":
            self.finished[key] = data
            if early:
                self.old.add(key)
            if late:
                self.late.add(("experiment", *key))
            if late and data.get("status") == Status.KEEP:
                self.late_keeps.setdefault(key[0], set()).add(data.get("commit"))
        else:
            self.reruns[key] = data
            if early:
                self.old_reruns.add(key)
            if late:
                self.late.add(("rerun", *key))
