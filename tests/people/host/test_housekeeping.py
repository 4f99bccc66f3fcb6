"""gc takes what nobody needs and nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import docker
import pytest

from runner.core.base import locks
from runner.core.base.errors import BusyError
from runner.core.base.home import Home
from runner.core.evidence import verify
from runner.core.policy.policy_files import Policies
from runner.people.host import housekeeping
from tests.rooms.desk.test_reruns import Bench

Glovebox = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bench(home: Home, policies: Policies) -> Bench:
    made = Bench(home, policies)
    made.experiment("a = 1\n", s42=2.0)
    made.experiment("b = 2\n", s42=3.0)
    return made


def aged(path: Path, days: float) -> Path:
    then = time.time() - days * 86_400
    os.utime(path, (then, then))
    return path


def names(found: list[housekeeping.Found]) -> set[tuple[str, str]]:
    return {(one.what, one.name) for one in found}


def test_what_records_point_to_stays_and_leftovers_go(bench: Bench) -> None:
    home = bench.home
    for path in home.snapshots.glob("*.py"):
        aged(path, 100)
    orphan = aged(_write(home.snapshots / f"{'0' * 64}.py"), 1)
    half = aged(_write(home.tag("t") / "results.tsvab12cd"), 1)
    partial = aged(_write(home.root / "redteam.json.partial"), 1)
    old, new = home.run("0" * 16), home.run("1" * 16)
    for folder in (old, new):
        folder.mkdir(parents=True)
        _write(folder / "trainer.log")
    aged(old, 20)
    found = housekeeping.tidy(home, 14, None, remove=False)[0]
    assert names(found) == {
        ("snapshot", orphan.name),
        ("half a file", "tags/t/results.tsvab12cd"),
        ("half a file", "redteam.json.partial"),
        ("run", old.name),
    }
    assert housekeeping.tidy(home, 14, None, remove=True)[1] == sum(one.size for one in found) > 0
    assert not any(path.exists() for path in (orphan, half, partial, old))
    assert new.exists()
    assert (home.tag("t") / "results.tsv").exists()
    assert verify.verify(home).failures == []
    assert housekeeping.tidy(home, 14, None, remove=False)[0] == []


def test_what_is_younger_than_an_hour_may_be_in_use(bench: Bench) -> None:
    _write(bench.home.snapshots / f"{'0' * 64}.py")
    _write(bench.home.root / "x.partial")
    assert housekeeping.tidy(bench.home, 14, None, remove=False)[0] == []


def test_an_artifact_goes_only_when_it_expired_and_no_tag_needs_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "_expired", lambda *_: True)
    assert housekeeping.tidy(bench.home, 14, None, remove=False)[0] == []  # a tag was begun with it
    bench.ledger._db.execute("UPDATE runs SET artifact = 'other-1'")
    assert names(housekeeping.tidy(bench.home, 14, None, remove=False)[0]) == {("expired artifact", "demo-1")}
    monkeypatch.undo()
    assert housekeeping.tidy(bench.home, 14, None, remove=False)[0] == []  # still valid


def test_nothing_is_tidied_while_a_run_is_on(bench: Bench) -> None:
    with locks.hold(bench.home.runner_lock, "tag t"), pytest.raises(BusyError):
        housekeeping.tidy(bench.home, 14, None, remove=False)[0]


@pytest.mark.engine
def test_containers_of_this_bench_go_and_others_stay(
    bench: Bench, engine: docker.DockerClient, policies: Policies
) -> None:
    from runner.rooms.launcher import specification

    def make(bench_id: str) -> str:
        labels = {specification.ROLE_LABEL: "trainer", specification.BENCH_LABEL: bench_id}
        return str(engine.containers.create(policies.sandbox.trainer.image, "true", labels=labels).id)

    ours, theirs = make(bench.home.id), make("f" * 16)
    try:
        found = housekeeping.tidy(bench.home, 14, engine, remove=False)[0]
        assert [one.engine for one in found if one.what == "container"] == [ours]
        housekeeping.tidy(bench.home, 14, engine, remove=True)
        assert engine.containers.get(theirs)
        with pytest.raises(docker.errors.NotFound):
            engine.containers.get(ours)
    finally:
        engine.containers.get(theirs).remove(force=True)


def test_the_command_says_before_it_does(glovebox: Glovebox, home: Home) -> None:
    folder = home.run("0" * 16)
    folder.mkdir(parents=True)
    _write(folder / "trainer.log")
    aged(folder, 20)
    code, out, err = glovebox("gc")
    assert code == 0, err
    assert "would be removed" in out
    assert folder.exists()
    assert glovebox("gc", "--yes")[0] == 0
    assert not folder.exists()


def _write(path: Path) -> Path:
    path.write_text("x" * 100)
    return path
