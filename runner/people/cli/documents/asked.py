"""Documents about what a person asks of a run, and what agents wrote down. TRUSTED, no logic."""

from __future__ import annotations

from runner.core.airlock.notebook import Notebook as _Notebook
from runner.core.base.steering import Request
from runner.core.findings.comparing import Part
from runner.people.cli.documents.base import Document


class Notebook(_Notebook):
    """`notes`."""


class Hint(Document):
    """Words that stand since an experiment."""

    after: int
    text: str


class Hints(Document):
    """`hint` without words; `waiting`: not taken in by a session yet."""

    tag: str
    hints: list[Hint]
    waiting: list[str]


class Asked(Document):
    """`hint` with words, `pause`, `resume` and `veto`."""

    tag: str
    asked: Request
    at_work: bool


class Directive(Document):
    """`program`."""

    program: str


class DirectiveUsed(Document):
    """`program use`."""

    program: str
    before: str


class DirectiveVersion(Part):
    """Of `program log`; `span`: first and last experiment."""

    span: tuple[int, int] | None


class DirectiveVersions(Document):
    """`program log`."""

    tag: str
    versions: list[DirectiveVersion]


class DirectiveText(Document):
    """`program show`."""

    version: str
    text: str


class DirectiveDiff(Document):
    """`program diff`."""

    old: str
    new: str
    diff: str
