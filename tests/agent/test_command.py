"""Another agent's command: started again while there is something to do, and not for ever."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent import command, relay
from agent.client import CLOSING, Bench
from agent.tools import Editor
from agent.workspace import Workspace
from runner.core.base.mountable import SOURCE
from tests.agent.conftest import PASSED, SEED, FakeDesk

Desk = tuple[FakeDesk, Callable[[], Bench], Editor]
Keep = Callable[[str], str]
ONE = "open('train.py', 'a').write('# more\\n'); run()"  # what many agents do: one experiment, and they are done


@pytest.fixture
def keep(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keep:
    """Runs Python source as the command until the loop ends; why it did."""
    fake, connect, _ = desk
    monkeypatch.setattr(command, "_PAUSE", 0.01)
    monkeypatch.setattr(relay, "HEARD", relay.Heard())
    history = fake._history
    left: list[int | None] = [None]

    def told(request: Any) -> dict[str, Any]:
        done = bool(fake.ran) and not fake.outcomes
        return history(request) | {"experiments_left": 0 if done else left[0]}

    monkeypatch.setattr(fake, "_history", told)
    environment = {
        **os.environ,
        "PYTHONPATH": str(SOURCE),
        "GLOVEBOX_BENCH": connect()._path,
        "GLOVEBOX_TRAIN_PY": str(fake.train_py),
        "GLOVEBOX_WORKSPACE": str(tmp_path / "space"),
    }
    start = "import subprocess, sys\ndef run(): subprocess.run([sys.executable, '-m', 'agent.bench', 'run', 'x'])\n"

    def go(source: str) -> str:
        place = Workspace(tmp_path / "space", fake.train_py)
        return command._keep(connect(), place, [sys.executable, "-c", start + source], environment)

    return go


def test_a_command_that_ends_after_one_experiment_is_started_again(keep: Keep, desk: Desk) -> None:
    """Its exit code of 0 ended the night."""
    desk[0].outcomes.extend(["keep", "discard", "discard"])
    assert keep(ONE) == "done"
    assert [text for _, text in desk[0].ran] == [SEED + "# more\n"] * 3


@pytest.mark.parametrize(("source", "reason"), [("pass", "done"), ("sys.exit(3)", "failed"), ("import nothing", "failed")])  # fmt: skip
def test_a_command_of_which_nothing_comes_is_started_a_few_times(
    keep: Keep, tmp_path: Path, source: str, reason: str
) -> None:
    starts = tmp_path / "starts"
    assert keep(f"open({str(starts)!r}, 'a').write('x')\n{source}") == reason
    assert len(starts.read_text()) == command.FRUITLESS


def test_an_experiment_makes_good_for_fruitless_starts(keep: Keep, desk: Desk, tmp_path: Path) -> None:
    desk[0].outcomes.extend(["keep"] * 3)
    starts = tmp_path / "starts"
    every_fourth = f"open({str(starts)!r}, 'a').write('x')\nif len(open({str(starts)!r}).read()) % 4 == 0: run()"
    assert keep(every_fourth) == "done"
    assert len(desk[0].ran) == 3


def test_an_experiment_whose_budget_is_used_up_is_closed_first(keep: Keep, desk: Desk, tmp_path: Path) -> None:
    """The next has a budget of its own, and begins when this one is recorded."""
    desk[0].outcomes.extend(["discard", "keep"])
    relay.HEARD.experiment = True
    flag = tmp_path / "flag"
    once = f"import os\nopen('train.py', 'w').write('half\\n')\nif os.path.exists({str(flag)!r}): run()\nopen({str(flag)!r}, 'w')"
    assert keep(once) == "done"
    assert desk[0].ran == [(CLOSING, "half\n"), ("x", "half\n")]


def test_a_budget_that_pays_for_no_call_ends_it(keep: Keep, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk[0].outcomes.extend(["discard"] * 9)
    relay.HEARD.experiment = True
    close = command._close

    def again(*args: Any) -> bool:
        relay.HEARD.experiment = True  # the fresh one is as small
        return close(*args)

    monkeypatch.setattr(command, "_close", again)
    assert keep("pass") == "budget"
    assert [text for text, _ in desk[0].ran] == [PASSED]  # nothing was edited, so nothing is run


def test_the_nights_budget_ends_it(keep: Keep, desk: Desk) -> None:
    desk[0].outcomes.extend(["discard"] * 9)
    relay.HEARD.night = True
    assert keep(ONE) == "budget"
    assert len(desk[0].ran) == 1


def refusal(scope: str) -> bytes:
    body = f'{{"type":"error","error":{{"message":"glovebox: budget_{scope}_dollars"}}}}'
    return f"HTTP/1.1 403 Forbidden\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


def heard(monkeypatch: pytest.MonkeyPatch, *pieces: bytes) -> relay.Heard:
    monkeypatch.setattr(relay, "HEARD", relay.Heard())
    listener = relay._Listener()
    for piece in pieces:
        listener(piece)
    return relay.HEARD


def test_the_relay_hears_what_the_broker_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = refusal("experiment")
    for at in (1 << 20, 20, 60, len(whole) - 5):  # in two pieces, wherever it is cut
        told = heard(monkeypatch, whole[:at], whole[at:])
        assert (told.experiment, told.night, told.answers) == (True, False, 0)
    assert heard(monkeypatch, refusal("night")).night
    assert heard(monkeypatch, b"HTTP/1.1 200 OK\r\n\r\n", b"x").answers == 1


def test_what_a_model_says_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transcript may well speak of one."""
    said = b"data: glovebox: budget_night_dollars, glovebox: budget_experiment_tokens\n\n"
    told = heard(monkeypatch, b"HTTP/1.1 200 OK\r\n\r\n" + said, said)
    assert (told.night, told.experiment) == (False, False)
    told = heard(monkeypatch, refusal("experiment")[:40], b"HTTP/1.1 200 OK\r\n\r\n" + said)
    assert not told.night


def test_what_other_lanes_run_makes_good_for_nothing(
    keep: Keep, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that ran nothing was started without end, and spent the night's budget of all."""
    starts, told = tmp_path / "starts", desk[0]._history

    def busy(request: Any) -> dict[str, Any]:
        answer = told(request)
        answer["rows"] = [*answer["rows"], {"id": 100 + len(starts.read_text() if starts.exists() else "")}]
        return answer

    monkeypatch.setattr(desk[0], "_history", busy)
    assert keep(f"open({str(starts)!r}, 'a').write('x')") == "done"
    assert len(starts.read_text()) == command.FRUITLESS


def test_an_edit_that_was_not_run_is_there_at_the_next_start(keep: Keep, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    keep(f"open({str(seen)!r}, 'a').write(open('train.py').read())\nopen('train.py', 'w').write('mine\\n')")
    assert seen.read_text() == SEED + "mine\n" * (command.FRUITLESS - 1)


def test_a_run_that_was_left_behind_is_waited_for(keep: Keep, desk: Desk) -> None:
    desk[0].outcomes.extend(["keep", "keep"])
    detach = "subprocess.run([sys.executable, '-P', '-m', 'agent.bench', 'run', '--detach', 'left'])"
    assert keep(f"open('train.py', 'a').write('# more\\n'); {detach}") == "done"
    assert [text for text, _ in desk[0].ran] == ["left", "left"]


def test_a_budget_that_was_used_up_before_an_experiment_of_its_own_closes_nothing(keep: Keep, desk: Desk) -> None:
    """The refusal was an earlier one: a run of the best version was wasted on it."""
    desk[0].outcomes.extend(["keep", "keep"])
    relay.HEARD.experiment = True
    assert keep(ONE) == "done"
    assert [text for text, _ in desk[0].ran] == ["x", "x"]


def test_a_command_that_is_not_in_the_image_is_told(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    desk[0]._history = lambda _: {"rows": [], "experiments_left": None, "run_here": 0}  # type: ignore[method-assign]
    place = Workspace(tmp_path / "space", desk[0].train_py)
    assert command._keep(desk[1](), place, ["no-such-agent"], dict(os.environ)) == "failed"
    assert "no-such-agent cannot be started" in capfd.readouterr().err
