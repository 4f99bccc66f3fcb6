"""What a verification found. TRUSTED, pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Outcome:
    """What `glovebox verify --json` prints."""

    checked: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    checkpoint: str | None = None  # the newest that holds, for the next `--since`

    def check(self, what: str, holds: bool, failure: str) -> None:
        """Count one check; remember its failure."""
        self.checked[what] = self.checked.get(what, 0) + 1
        if not holds:
            self.failures.append(failure)

    def document(self) -> dict[str, Any]:
        return {
            "ok": not self.failures,
            "checked": self.checked,
            "not_verified": self.unknown,
            "failures": self.failures,
            "checkpoint": self.checkpoint,
        }
