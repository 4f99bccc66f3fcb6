"""What documents have in common. TRUSTED, no logic.

A field may be added; none is removed, renamed or given another meaning without a line in CHANGELOG.md.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Document(BaseModel):
    """One document, closed; its schema is built when it is first needed, which most commands never do."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, defer_build=True, validate_by_name=True, serialize_by_alias=True
    )


class Mistake(Document):
    """What went wrong, where, and what to do; the exit code is the process's own."""

    what: str
    where: str
    fix: str
    exit_code: int


class Failed(Document):
    """Any command that failed."""

    error: Mistake
