"""What agents write down for those who come after them: notes and ideas, bounded. TRUSTED, hostile input, pure.

It is their own text and comes back to them as it was written; nothing of a trainer's can be in it that an answer did
not tell (leak_budget.py). People read it, so nothing invisible may be in it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from runner.core.airlock import invisible
from runner.core.airlock.description import clean
from runner.core.base.launching import Frozen

NOTES_BYTES = 16 << 10
IDEAS = 50  # that are open at a time
IDEA_CHARS = 200
_MOST = 1 << 40


class NotebookError(Exception):
    """The change is not taken; the text is a reason code for the agent."""


class Idea(Frozen):
    """One that is open."""

    id: Annotated[int, Field(ge=1, le=_MOST)]
    text: Annotated[str, Field(max_length=IDEA_CHARS)]


class Notebook(Frozen):
    """The notes and ideas of a tag, as all its agents share them; `added`, `done` and `dropped` count ideas."""

    notes: str = ""
    ideas: Annotated[tuple[Idea, ...], Field(max_length=IDEAS)] = ()
    added: Annotated[int, Field(ge=0, le=_MOST)] = 0
    done: Annotated[int, Field(ge=0, le=_MOST)] = 0
    dropped: Annotated[int, Field(ge=0, le=_MOST)] = 0

    def written(self, notes: str) -> Notebook:
        """With other notes; raises NotebookError."""
        try:
            size = len(notes.encode())
        except UnicodeEncodeError:
            raise NotebookError("not_utf8") from None
        if size > NOTES_BYTES:
            raise NotebookError("notes_too_large")
        if next(invisible.hidden(notes), None) is not None or "\r" in notes:
            raise NotebookError("invisible_text")
        return self.model_copy(update={"notes": notes})

    def edited(self, old: str, new: str) -> Notebook:
        """With `new` in place of `old`, which must occur exactly once; raises NotebookError."""
        if not old or self.notes.count(old) != 1:
            raise NotebookError("not_once")
        return self.written(self.notes.replace(old, new))

    def with_idea(self, text: str) -> Notebook:
        """With one more idea; raises NotebookError if there are too many."""
        if len(self.ideas) >= IDEAS:
            raise NotebookError("too_many_ideas")
        idea = Idea(id=self.added + 1, text=clean(text, IDEA_CHARS))
        return self.model_copy(update={"ideas": (*self.ideas, idea), "added": self.added + 1})

    def closed(self, number: int, outcome: Literal["done", "drop"]) -> Notebook:
        """Without an idea; raises NotebookError if it is not open."""
        rest = tuple(idea for idea in self.ideas if idea.id != number)
        if len(rest) == len(self.ideas):
            raise NotebookError("no_such_idea")
        count = {"done": self.done + 1} if outcome == "done" else {"dropped": self.dropped + 1}
        return self.model_copy(update={"ideas": rest, **count})
