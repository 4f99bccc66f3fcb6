"""What an agent may look up and write down: earlier files, their differences, notes, ideas, the directive. TRUSTED.

Every text here was written by agents of the same tag or by the person, and nothing of a trainer's is in it: a source is
the train.py that was submitted, a difference is that of two of them; telemetry repeats what its answer told. So no
answer here is a new way out of the training room; and only experiments of which agents were told are looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from runner.core.airlock.notebook import Notebook, NotebookError
from runner.core.base.values import Experiment
from runner.core.decision import standing
from runner.core.findings import analysis
from runner.rooms.desk.experiment import Loop
from runner.rooms.desk.memory import rounded

DIFF_CHARS = 60_000  # of an answer; more is cut, and said so
Verb = Callable[[dict[str, Any]], dict[str, Any]]


class Refusal(Exception):
    """The request is answered with this reason code."""


class Library:
    """The verbs of one desk that only read, or that change the tag's notebook."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.verbs: Mapping[str, Verb] = {
            "telemetry": self._telemetry,
            "source": self._source,
            "diff": self._diff,
            "program": self._program,
            "notebook": self._notebook,
            "write_notes": lambda asked: self._change(asked, {"text": str}, lambda book, text: book.written(text)),
            "edit_notes": lambda asked: self._change(
                asked, {"old": str, "new": str}, lambda book, old, new: book.edited(old, new)
            ),
            "add_idea": lambda asked: self._change(asked, {"text": str}, lambda book, text: book.with_idea(text)),
            "close_idea": lambda asked: self._change(asked, {"idea": int, "outcome": str}, _closed),
        }

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one of `verbs`."""
        try:
            return {"ok": True, **self.verbs[request["verb"]](request)}
        except (NotebookError, Refusal) as error:
            return {"ok": False, "reason": str(error)}

    def known(self, number: object) -> Experiment:
        """An experiment that agents were told of; raises Refusal."""
        if type(number) is not int:
            raise Refusal("bad_request")
        row = next((row for row in self._loop.memory.told().rows if row.id == number), None)
        if row is None:
            raise Refusal("no_such_experiment")
        return row

    def text(self, row: Experiment) -> str:
        """The train.py of an experiment; raises Refusal if its snapshot is lost."""
        data = self._loop.memory.source(row)
        if data is None:
            raise Refusal("lost")
        return data.decode("utf-8", "replace")

    def _source(self, request: dict[str, Any]) -> dict[str, Any]:
        _only(request, {"experiment"})
        return {"source": self.text(self.known(request["experiment"]))}

    def _diff(self, request: dict[str, Any]) -> dict[str, Any]:
        """From `against` to `experiment`; without `against`, from the file that it was made from."""
        _only(request, {"experiment"}, {"against"})
        row = self.known(request["experiment"])
        against = request.get("against")
        if against is None:
            against = row.parent if row.parent is not None else row.id
        before = self.known(against)
        changes = self._loop.line.diff(before.commit, row.commit)  # by git: a few KiB can hold up Python's for minutes
        at = changes.find("\n@@")
        text = "" if at < 0 else f"--- experiment {before.id}\n+++ experiment {row.id}{changes[at:].rstrip()}"
        return {"diff": text[:DIFF_CHARS], "cut": len(text) > DIFF_CHARS, "against": before.id}

    def _telemetry(self, request: dict[str, Any]) -> dict[str, Any]:
        _only(request, {"experiment"})
        row, memory = self.known(request["experiment"]), self._loop.memory
        before = standing.parent(memory.told().rows, row)
        return {
            **rounded(row).model_dump(mode="json", include={"curve", "summary", "train_seconds"}),
            "changed": list(analysis.kinds(before, row, memory.source)),
            "against_best": analysis.against(row, before),
        }

    def _program(self, request: dict[str, Any]) -> dict[str, Any]:
        _only(request, set())
        digest, text = self._loop.steering.program()
        self._loop.program = digest
        return {"program": text, "hints": self._loop.steering.hints()}

    def _notebook(self, request: dict[str, Any]) -> dict[str, Any]:
        _only(request, set())
        return self._book().model_dump(mode="json")

    def _book(self) -> Notebook:
        return self._loop.recorder.texts.notebook(self._loop.tag)

    def _change(
        self, request: dict[str, Any], kinds: Mapping[str, type], change: Callable[..., Notebook]
    ) -> dict[str, Any]:
        _only(request, set(kinds))
        if any(type(request[name]) is not kind for name, kind in kinds.items()):
            raise Refusal("bad_request")
        with self._loop.recorder.lock:  # all lanes write the same one
            book = change(self._book(), *(request[name] for name in kinds))
            self._loop.recorder.texts.write_notebook(self._loop.tag, book)
        return book.model_dump(mode="json", exclude={"notes"})


def _closed(book: Notebook, number: int, outcome: str) -> Notebook:
    if outcome not in ("done", "drop"):
        raise Refusal("bad_request")
    return book.closed(number, outcome)  # type: ignore[arg-type] # just compared


def _only(request: dict[str, Any], needed: set[str], possible: frozenset[str] | set[str] = frozenset()) -> None:
    given = set(request) - {"verb"}
    if not needed <= given <= needed | possible:
        raise Refusal("bad_request")
