"""The desk answers an agent with typed values and reason codes only."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from agent.client import Bench, Interrupted, Refused
from runner.core.airlock import description
from runner.core.artifacts import store
from runner.core.base import dialing, doors
from runner.core.base.errors import GloveboxError
from runner.core.base.home import Home
from runner.core.base.values import Experiment, Status
from runner.core.evidence.audit_chain import AuditLog, verify
from runner.core.evidence.checkpoints import Sealer
from runner.core.evidence.git_line import GitLine
from runner.core.evidence.ledger import Ledger
from runner.core.evidence.recorder import Recorder
from runner.core.policy import policy_files
from runner.rooms.desk import desk
from runner.rooms.desk.experiment import Loop
from runner.rooms.desk.launch_client import LaunchClient
from runner.rooms.desk.memory import Memory
from runner.rooms.desk.quota import Pace, Quota
from runner.rooms.desk.rounds import Rounds
from runner.rooms.desk.steering import Steering
from runner.rooms.desk.train_and_score import Stages
from tests.core.evidence.test_checkpoints import ended
from tests.samples import experiment


@pytest.fixture
def loop(home: Home, policies: policy_files.Policies) -> Iterator[Loop]:
    """A loop whose launcher is not there: enough for everything up to training."""
    ledger = Ledger(home.ledger)
    ledger.begin_run("t", "2026-01-01T00:00:00+00:00", "demo-1", policies.digest)
    recorder = Recorder(
        home, "t", ledger, GitLine(home.line), AuditLog(home.audit), "demo-1", policies.digest, Sealer(home, "")
    )
    yield Loop(
        tag="t",
        stages=Stages(
            home=home,
            policies=policies,
            launches=LaunchClient(home.root / "no.sock"),
            artifact=store.admit(home, "demo-1"),
        ),
        recorder=recorder,
        emit=lambda event, data: None,
        seed=b"x = 0\n",
        memory=Memory(home, policies, ledger, "t"),
        steering=Steering(recorder, lambda event, data: None),
    )
    ledger.close()


def record(loop: Loop, row: Experiment) -> Experiment:
    """Accept and complete a row as the loop does."""
    data = f"x = {row.id}\n".encode()
    source = loop.home.root / "row.py"
    source.write_bytes(data)
    from runner.core.airlock import snapshot

    taken = snapshot.take(source, loop.home.snapshots, 4096)
    commit = loop.line.commit("t", row.id, data, "x")
    row = row.model_copy(update={"snapshot": taken.sha256, "snapshot_size": taken.size, "commit": commit})
    loop.recorder.accept(taken, row.description, row.run)
    return row.model_copy(update={"started": loop.ledger.opened("t", row.id).started})


@pytest.fixture
def served(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[desk.Desk, Path]]:
    monkeypatch.setattr(desk, "_REFUSAL_PAUSE", 0.0)
    monkeypatch.setattr(LaunchClient, "ready", lambda *_: None)  # there is no launcher (test_freezing.py)
    monkeypatch.setattr(LaunchClient, "freezing", lambda *_: nullcontext(lambda: None))
    train_py = tmp_path / "train.py"
    train_py.write_text("x = 1\n")
    made = desk.Desk(loop, train_py, Quota(3))
    with doors.listening(tmp_path / "b" / "bench.sock", gid=os.getegid(), mode=0o660) as sock:
        args = (sock, frozenset({os.geteuid()}), made.handle)
        threading.Thread(target=doors.serve, args=args, daemon=True).start()
        yield made, tmp_path / "b" / "bench.sock"


def test_history_and_telemetry_of_what_is_recorded(served: tuple[desk.Desk, Path]) -> None:
    made, path = served
    row = record(made.loop, experiment(1))
    made.loop.recorder.commit(row, [])
    bench = Bench(str(path))
    (found,) = bench.history()["rows"]
    assert (found["id"], found["status"], found["description"]) == (1, "keep", "idea 1")
    assert bench.telemetry(1)["curve"] == [[0, 6.9], [10, 5.0]]
    with pytest.raises(Refused, match="no_such_experiment"):
        bench.telemetry(2)


def test_requests_without_end_wait_and_a_usual_night_does_not() -> None:
    pace = Pace(100.0, 20)
    began = time.monotonic()
    for _ in range(20):
        pace.wait()
    threads = [threading.Thread(target=pace.wait) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began > 0.38  # at 100 a second, on as many connections


@pytest.mark.parametrize("kind", ["symlink", "fifo", "10 MB", "binary", "missing"])
def test_a_train_py_that_is_not_plain_text_is_a_reason_code_and_no_experiment(
    served: tuple[desk.Desk, Path], tmp_path: Path, kind: str
) -> None:
    made, path = served
    made.train_py.unlink()
    {
        "symlink": lambda: made.train_py.symlink_to("/etc/passwd"),
        "fifo": lambda: os.mkfifo(made.train_py),
        "10 MB": lambda: made.train_py.write_bytes(b"#" * (10 << 20)),
        "binary": lambda: made.train_py.write_bytes(bytes(range(256))),
        "missing": lambda: None,
    }[kind]()
    with pytest.raises(Refused) as caught:
        Bench(str(path)).run_experiment("x")
    assert str(caught.value) in ("not_regular", "too_large", "not_utf8", "missing")
    assert made.quota.left == 3
    assert made.loop.ledger.open_numbers("t") == []
    assert [e["kind"] for e in verify(made.loop.home.audit)] == ["refused"]


@pytest.mark.parametrize("verb", ["history", "restore"])
def test_a_bench_that_fails_while_it_answers_ends_the_session(
    served: tuple[desk.Desk, Path], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """An agent that is only hung up on would ask again, all night."""
    made, path = served
    if verb == "restore":
        made.train_py.unlink()
    else:

        def broken(_: Memory) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        monkeypatch.setattr(Memory, "told", broken)
    with pytest.raises(Interrupted, match="hung up"):
        getattr(Bench(str(path)), verb)()
    assert made.finished.wait(5)
    assert isinstance(made.failure, sqlite3.Error if verb == "history" else GloveboxError)


def test_refusals_without_end_are_answered_ever_more_slowly_and_end_nothing(
    served: tuple[desk.Desk, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, path = served
    pauses: list[float] = []
    monkeypatch.setattr(desk, "_REFUSAL_PAUSE", 0.5)
    monkeypatch.setattr(desk.time, "sleep", pauses.append)
    made.train_py.write_bytes(b"\0")
    bench = Bench(str(path))
    for _ in range(30):
        with pytest.raises(Refused, match="control_character"):
            bench.run_experiment("x")
    assert not made.finished.is_set()
    assert pauses[:3] == [0.5, 1.0, 2.0]
    assert max(pauses) == desk._LONGEST_PAUSE


def test_an_agent_may_say_that_it_leaves_in_closed_words(served: tuple[desk.Desk, Path]) -> None:
    made, path = served
    bench = Bench(str(path))
    for reason in ("because I say so", ""):
        with pytest.raises(Refused, match="bad_request"):
            bench.leave(reason)
    assert not made.finished.is_set()
    bench.leave("budget")
    assert made.finished.is_set()
    with pytest.raises(Refused, match="no_experiments_left"):
        bench.run_experiment("x")
    with pytest.raises(Refused, match="no_experiments_left"):
        bench.restore()


def test_restore_puts_the_best_version_back_into_the_same_file(served: tuple[desk.Desk, Path]) -> None:
    made, path = served
    bench = Bench(str(path))
    inode = made.train_py.stat().st_ino
    made.train_py.write_text("half an edit")
    bench.restore()
    assert made.train_py.read_text() == "x = 0\n"  # the seed, before anything is kept
    made.loop.recorder.commit(record(made.loop, experiment(1)), [])
    bench.restore()
    assert made.train_py.read_text() == "x = 1\n"
    assert made.train_py.stat().st_ino == inode


def test_the_brief_tells_policy_and_nothing_else(served: tuple[desk.Desk, Path]) -> None:
    brief = Bench(str(served[1])).brief()
    assert brief["model"] in served[0].loop.policies.broker.models
    assert set(brief) == {"tag", *desk._BRIEF}


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"verb": "shell"},
        {"verb": ["run_experiment"]},
        {"verb": "run_experiment"},
        {"verb": "run_experiment", "description": 7},
        {"verb": "run_experiment", "description": "x", "image": "evil"},
        {"verb": "telemetry", "experiment": "1"},
        {"verb": "telemetry", "experiment": True},
        {"verb": "history", "all": True},
    ],
)
def test_other_requests_are_a_reason_code(served: tuple[desk.Desk, Path], request_: dict[str, object]) -> None:
    line = dialing.connect(served[1], 5)
    line.send(request_)
    answer = line.receive()
    assert answer is not None
    assert answer["ok"] is False
    assert answer["reason"] in ("unknown_verb", "bad_request")


def test_a_lone_surrogate_is_hung_up_on(served: tuple[desk.Desk, Path]) -> None:
    line = dialing.connect(served[1], 5)
    line.sock.sendall(b'{"verb":"run_experiment","description":"\\ud800"}\n')
    assert line.receive() is None


def test_descriptions_are_one_visible_line() -> None:
    assert description.clean("  a\tb\n\x1b[2Jc\u202e \u200b ", 200) == "a b [2Jc"
    assert description.clean("x" * 500, 200) == "x" * 200
    assert description.clean("\U000e0041\ufeff", 200) == "(no description)"


def test_a_runner_killed_between_ledger_and_chain_is_made_whole_again(loop: Loop) -> None:
    first = record(loop, experiment(1))
    loop.recorder.commit(first, [ended(), ended()])
    second = record(loop, experiment(2))
    loop.ledger.close_experiment(second)  # killed here: no branch, no chain entry, no results.tsv
    record(loop, experiment(3))  # and one more left open
    loop.recorder.reconcile()
    loop.recorder.reconcile()
    rows = loop.ledger.experiments("t")
    assert [row.status for row in rows] == [Status.KEEP, Status.KEEP, Status.CRASH]
    assert rows[2].reason == "interrupted"
    assert loop.line.head("t") == second.commit
    finished = [e["data"]["id"] for e in verify(loop.home.audit) if e["kind"] == "finished"]
    assert sorted(finished) == [1, 2, 3]
    assert len((loop.home.tag("t") / "results.tsv").read_text().splitlines()) == 4
    from runner.core.evidence.verify import verify as check

    assert check(loop.home).failures == []


def test_who_asks_while_the_baseline_runs_waits(loop: Loop, tmp_path: Path) -> None:
    there, answers = threading.Event(), []
    made = desk.Desk(loop, tmp_path / "train.py", Quota(3), None, there)
    asking = threading.Thread(target=lambda: answers.append(made._answer(made._history, {"verb": "history"})))
    asking.start()
    asking.join(0.3)
    assert answers == []
    there.set()
    asking.join(30)
    assert answers[0]["ok"]


def test_an_agent_whose_turn_has_not_come_when_the_session_ends_costs_no_experiment(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Loop, "usual_seconds", lambda _: 60.0)
    rounds, answers = Rounds(), []
    rounds.expect(1)  # another lane, whose agent thinks
    made = desk.Desk(loop, tmp_path / "train.py", Quota(3), rounds=rounds)
    request = {"verb": "run_experiment", "description": "x"}
    asking = threading.Thread(target=lambda: answers.append(made._answer(made._run, request)))
    asking.start()
    asking.join(0.5)
    assert (answers, made.busy, made.quota.left) == ([], True, 2)
    made.settle(30)
    asking.join(30)
    assert answers == [{"ok": False, "reason": "no_experiments_left"}]
    assert made.quota.left == 3
    assert loop.ledger.experiments("t") == []


def test_who_may_begin_no_more_experiments_is_not_waited_for(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Loop, "usual_seconds", lambda _: 60.0)
    request = {"verb": "run_experiment", "description": "x"}
    for end in ("quota", "leave"):
        rounds = Rounds()
        rounds.expect(0)
        rounds.expect(1)
        made = desk.Desk(loop, tmp_path / "train.py", Quota(0 if end == "quota" else 3), rounds=rounds)
        answer = made._run(request) if end == "quota" else made._leave({"verb": "leave", "reason": "done"})
        assert answer["ok"] is (end == "leave")
        began = time.monotonic()
        with rounds.turn(1, 60.0, last=False, over=lambda: False):
            assert time.monotonic() - began < 30
