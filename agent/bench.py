"""`bench`: the runner's desk as a command, for agents that work through a shell. UNTRUSTED.

Prints one JSON document, or the text that was asked for. Exit codes: 0 done, 1 refused (the reason is printed), 2 wrong
usage, 3 no runner, 4 still running. An experiment may take longer than a client lets a command run: `bench run
--detach`, then `bench wait`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.client import Bench, Interrupted, Refused
from agent.context import hinted
from agent.tools import EditError
from agent.workspace import Workspace, locked

RUNNING = 4
_WAIT = 540.0  # seconds; clients end a command after ten minutes
_LOOK = 0.2
SAID = ("hypothesis", "expected", "kind")
_MOST_NOTES = 64 << 10  # more than the bench ever takes


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="bench", description="Run experiments with train.py as it is now.")
    verbs = top.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="train and score train.py; prints its feedback")
    run.add_argument("description", help="one line for the record: what changed, and why")
    run.add_argument("file", nargs="?", type=Path, help="another file than the train.py that was edited")
    run.add_argument("--hypothesis", help="one line: why it should help")
    run.add_argument("--expected", type=float, help="the gain in val_bpb you expect, as 0.002")
    run.add_argument("--kind", help="what it changes: learning_rate, architecture ...")
    run.add_argument("--detach", action="store_true", help="return at once; bench wait tells the feedback")
    wait = verbs.add_parser("wait", help="the feedback of a detached run, once it is there")
    wait.add_argument("--seconds", type=float, default=_WAIT, help="at most so long, then exit code 4")
    verbs.add_parser("status", help="what a detached run does")
    verbs.add_parser("history", help="all experiments so far, and what is left of the budget")
    telemetry = verbs.add_parser("telemetry", help="loss curve and summary of one experiment")
    telemetry.add_argument("experiment", type=int)
    restore = verbs.add_parser("restore", help="put the best version so far, or experiment N's, into train.py")
    restore.add_argument("experiment", type=int, nargs="?")
    source = verbs.add_parser("source", help="print the train.py of experiment N")
    source.add_argument("experiment", type=int)
    diff = verbs.add_parser("diff", help="print what experiment N changed, or how N differs from M")
    diff.add_argument("experiment", type=int)
    diff.add_argument("against", type=int, nargs="?")
    verbs.add_parser("program", help="print what the person wants, as it is now")
    notes = verbs.add_parser("notes", help="print notes and open ideas; with a file (- for stdin), replace the notes")
    notes.add_argument("file", nargs="?")
    idea = verbs.add_parser("idea", help="the list of ideas: add TEXT, done N, drop N")
    idea.add_argument("what", choices=("add", "done", "drop"))
    idea.add_argument("idea", help="its text, or its number")
    return top


def main(argv: list[str] | None = None) -> int:
    """Carry out one verb."""
    asked, place = parser().parse_args(argv), Workspace()
    detached, bench = Detached(place.state), Bench(patience=30)
    verbs: dict[str, Callable[[], object]] = {
        "run": lambda: run(bench, place, asked.description, asked.file, **_said(asked)),
        "history": bench.history,
        "telemetry": lambda: bench.telemetry(asked.experiment),
        "restore": lambda: _restore(bench, place, asked.experiment),
        "source": lambda: bench.source(asked.experiment),
        "diff": lambda: bench.diff(asked.experiment, asked.against)["diff"],
        "program": lambda: program_of(bench.program()),
        "notes": lambda: bench.notebook() if asked.file is None else bench.write_notes(_read(asked.file)),
        "idea": lambda: _idea(bench, asked.what, asked.idea),
    }
    if asked.verb in ("wait", "status"):
        return detached.told(asked.seconds if asked.verb == "wait" else 0.0)
    if asked.verb == "run" and asked.detach:
        return detached.start(asked.description, asked.file, _said(asked))
    try:
        told = verbs[asked.verb]()
        print(told if isinstance(told, str) else json.dumps(told))
    except (Refused, EditError) as error:
        print(json.dumps({"ok": False, "reason": str(error)}))
        return 1
    except (Interrupted, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 3
    return 0


def run(bench: Bench, place: Workspace, description: str, file: Path | None = None, **said: Any) -> dict[str, Any]:
    """One experiment with what was edited, or with `file`. Raises Refused, Interrupted, EditError."""
    with place.alone():
        place.carry(file)
        answer = bench.run_experiment(description, **said)
        place.give_back()
    return answer


def _said(asked: argparse.Namespace) -> dict[str, Any]:
    """What was said of an experiment beforehand."""
    return {name: value for name in SAID if (value := getattr(asked, name)) is not None}


def _idea(bench: Bench, what: str, idea: str) -> dict[str, Any]:
    if what == "add":
        return bench.add_idea(idea)
    if not idea.isdecimal():
        raise EditError("name an idea by its number")
    return bench.close_idea(int(idea), what)


def _read(file: str) -> str:
    data = sys.stdin.buffer.read(_MOST_NOTES) if file == "-" else Path(file).read_bytes()[:_MOST_NOTES]
    return data.decode("utf-8", "replace")


def program_of(told: dict[str, Any]) -> str:
    """The person's directive, with what they said since."""
    return "\n\n".join(part for part in (str(told["program"]).rstrip(), hinted(told["hints"])) if part) + "\n"


def _restore(bench: Bench, place: Workspace, experiment: int | None) -> dict[str, Any]:
    with place.alone():
        answer = bench.restore(experiment)
        place.give_back(anyway=True)
    return answer


class Detached:
    """A run in a process of its own, which holds a lock as long as it lives; its files say what came of it."""

    def __init__(self, folder: Path) -> None:
        self.answer, self.error, self.code, self.lock = (
            folder / one for one in ("answer", "error", "code", "detached")
        )

    def start(self, description: str, file: Path | None, said: dict[str, Any]) -> int:
        """Begin one; returns at once."""
        if (lock := locked(self.lock)) is None:
            return _say({"ok": False, "reason": "busy"}, 1)
        self.code.unlink(missing_ok=True)
        # -P: the caller's folder must not provide modules; --: a description may begin with a dash.
        options = [f"--{name}={value}" for name, value in said.items()]
        words = [sys.executable, "-P", "-m", "agent.bench", "run", *options, "--", description]
        words += [str(file.absolute())] if file else []
        script = '"$@" >"$0/answer" 2>"$0/error"; echo $? >"$0/code.new"; mv "$0/code.new" "$0/code"'
        nobody = subprocess.DEVNULL  # who reads the caller's output waits until nobody holds it
        with lock:
            subprocess.Popen(
                ["sh", "-c", script, str(self.answer.parent), *words],
                start_new_session=True,
                stdin=nobody,
                stdout=nobody,
                stderr=nobody,
                pass_fds=(lock.fileno(),),
            )
        return _say({"ok": True, "running": True}, 0)

    def told(self, seconds: float) -> int:
        """Its answer and its exit code, or that it still runs after so many seconds."""
        deadline = time.monotonic() + seconds
        while (running := self.running()) and time.monotonic() < deadline:
            time.sleep(_LOOK)
        if running:
            return _say({"ok": True, "running": True}, RUNNING)
        if self.code.exists():
            print(self.answer.read_text().strip() or json.dumps({"ok": False, "reason": "interrupted"}))
            print(self.error.read_text().strip(), file=sys.stderr)
            return int(self.code.read_text())
        return _say({"ok": False, "reason": "interrupted" if self.lock.exists() else "nothing_detached"}, 1)

    def running(self) -> bool:
        """Whether it is under way."""
        if not self.lock.exists():
            return False
        if (lock := locked(self.lock)) is None:
            return True
        lock.close()
        return False


def _say(document: dict[str, Any], code: int) -> int:
    print(json.dumps(document))
    return code


if __name__ == "__main__":
    sys.exit(main())
