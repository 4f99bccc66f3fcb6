"""Tags as people list, name and put them away; the record keeps their own names and all that is signed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.core.base import locks
from runner.core.base.home import Home
from runner.core.evidence import verify
from runner.core.evidence.ledger import Ledger
from runner.people.cli.common import newest
from runner.people.host import tag_book
from tests.core.evidence.test_checkpoints import bench as bench  # noqa: PLC0414 - a fixture
from tests.core.evidence.test_checkpoints import witness as witness  # noqa: PLC0414 - a fixture

Glovebox = Callable[..., tuple[int, str, str]]


def test_tags_are_listed_newest_first(glovebox: Glovebox, bench: Home) -> None:
    ledger = Ledger(bench.ledger)
    ledger.begin_run("night", "2026-01-02T00:00:00+00:00", "demo-1", "f" * 64)
    ledger.close()
    code, out, err = glovebox("tags", "--json")
    assert code == 0, err
    assert [(one["tag"], one["experiments"]) for one in json.loads(out)["tags"]] == [("night", 0), ("t", 3)]
    summary = json.loads(glovebox("status", "--tag", "t", "--json")[1])
    assert {name: json.loads(out)["tags"][1][name] for name in ("kept", "baseline", "best")} == {
        "kept": 3, "baseline": summary["baseline"], "best": summary["best"],
    }  # fmt: skip
    assert "night" in glovebox("tags")[1]


def test_a_start_that_came_to_nothing_is_not_the_newest_and_binds_nobody(glovebox: Glovebox, bench: Home) -> None:
    ledger = Ledger(bench.ledger)
    ledger.begin_run("night", "2026-01-02T00:00:00+00:00", "demo-1", "f" * 64)
    assert ledger.recorded("night") is None
    ledger.begin_run("night", "2026-01-03T00:00:00+00:00", "demo-2", "e" * 64)
    assert ledger.run_info("night")["artifact"] == "demo-2"
    assert json.loads(glovebox("status", "--json")[1])["tag"] == "t"
    # The control: from its first experiment on a tag is what it was begun with.
    ledger.open_experiment("night", started="x", description="", snapshot="0" * 64, size=1, run="0" * 16)
    ledger.begin_run("night", "2026-01-04T00:00:00+00:00", "demo-3", "d" * 64)
    assert ledger.recorded("night") == ledger.run_info("night")
    assert ledger.run_info("night")["artifact"] == "demo-2"
    ledger.close()
    assert json.loads(glovebox("status", "--json")[1])["tag"] == "night"


def test_the_tag_that_is_worked_on_comes_before_the_newest_that_ended_one(glovebox: Glovebox, bench: Home) -> None:
    """Until its first experiment ends it was passed over, and `watch` showed a night of another day."""
    Ledger(bench.ledger).begin_run("now", "2026-02-01T00:00:00+00:00", "demo-1", "f" * 64)
    assert json.loads(glovebox("status", "--json")[1])["tag"] == "t"
    with locks.hold(bench.runner_lock, "tag now"):
        assert json.loads(glovebox("status", "--json")[1])["tag"] == "now"
        assert json.loads(glovebox("status", "--tag", "t", "--json")[1])["tag"] == "t"
    with locks.hold(bench.runner_lock, "gc"):
        assert json.loads(glovebox("status", "--json")[1])["tag"] == "t"


def test_who_only_looks_is_not_kept_from_it_by_a_note_of_what_was_used(glovebox: Glovebox, bench: Home) -> None:
    """A session refuses the note; `status`, `history` and `report` did too, and `verify` looked at no verdict."""
    bench.store.mkdir(exist_ok=True)
    before = verify.verify(bench)
    (bench.store / "highest.json").write_text("[1")
    for command in ("status", "history", "report"):
        assert glovebox(command)[0] == 0, command
    found = verify.verify(bench)
    assert (found.failures, found.checked) == (before.failures, before.checked)


def test_a_bench_that_is_read_only_is_said_once(
    bench: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    book, access = Ledger(bench.ledger, read_only=True), os.access
    assert newest(bench, book, None) == "t"
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(os, "access", lambda path, mode: path != bench.root and access(path, mode))
    assert newest(bench, book, None) == "t"
    assert capsys.readouterr().err == "note: this bench is read-only: it is shown as it lies\n"


@pytest.fixture
def two(bench: Home) -> Home:
    """Three experiments of `t`, and one of `night`, which is newer."""
    ledger = Ledger(bench.ledger)
    ledger.begin_run("night", "2026-01-02T00:00:00+00:00", "demo-1", "f" * 64)
    ledger.open_experiment("night", started="x", description="", snapshot="0" * 64, size=1, run="0" * 16)
    ledger.close()
    return bench


def listed(glovebox: Glovebox, *arguments: str) -> list[tuple[str, str | None]]:
    code, out, err = glovebox("tags", "--json", *arguments)
    assert code == 0, err
    return [(one["tag"], one["name"]) for one in json.loads(out)["tags"]]


def test_a_name_is_what_every_command_takes_and_the_record_keeps_its_own(glovebox: Glovebox, two: Home) -> None:
    before = verify.verify(two).document()
    assert glovebox("tags", "rename", "t", "first-night")[0] == 0
    assert listed(glovebox) == [("night", None), ("t", "first-night")]
    assert "first-night (t)" in glovebox("tags")[1]
    for word in ("first-night", "t"):
        for command in (("status",), ("history",), ("show", "2"), ("report",), ("best",)):
            code, out, err = glovebox(*command, "--tag", word, "--json")
            assert code == 0, err
            assert json.loads(out).get("tag", "t") == "t"
    assert verify.verify(two).document() == before
    assert glovebox("tags", "rename", "first-night", "t")[0] == 0  # its own name again
    assert listed(glovebox) == [("night", None), ("t", None)]
    assert glovebox("status", "--tag", "first-night")[0] == 2


@pytest.mark.parametrize("name", ["night", "second"])
def test_no_two_tags_are_called_the_same(glovebox: Glovebox, two: Home, name: str) -> None:
    assert glovebox("tags", "rename", "night", "second")[0] == 0
    code, _, err = glovebox("tags", "rename", "t", name)
    assert code == 2
    assert f"another tag is called {name}" in err
    assert glovebox("tags", "rename", "t", "third")[0] == 0  # the nearest that must pass


@pytest.mark.parametrize("name", ["../x", "A", "", "x" * 41, "-x"])
def test_a_name_is_as_a_tag(glovebox: Glovebox, two: Home, name: str) -> None:
    assert glovebox("tags", "rename", "t", "--", name)[0] == 2
    assert tag_book.read(two) == tag_book.TagBook()


def test_an_archived_tag_is_in_no_list_and_never_the_newest(glovebox: Glovebox, two: Home) -> None:
    assert json.loads(glovebox("status", "--json")[1])["tag"] == "night"
    assert glovebox("tags", "archive", "night")[0] == 0
    assert json.loads(glovebox("status", "--json")[1])["tag"] == "t"
    assert [tag for tag, _ in listed(glovebox)] == ["t"]
    assert [tag for tag, _ in listed(glovebox, "--all")] == ["night", "t"]
    assert json.loads(glovebox("status", "--tag", "night", "--json")[1])["tag"] == "night"
    assert glovebox("tags", "archive", "t")[0] == 0
    assert json.loads(glovebox("status", "--json")[1])["tag"] == "night"  # where all are away there is still a newest
    assert "tags --all" in glovebox("tags")[2]
    assert glovebox("tags", "unarchive", "t")[0] == 0
    assert [tag for tag, _ in listed(glovebox)] == ["t"]


def test_deleting_takes_what_is_no_record_and_asks_first(glovebox: Glovebox, two: Home, tmp_path: Path) -> None:
    run = two.run(Ledger(two.ledger, read_only=True).experiments("t")[0].run)
    (run / "handover").mkdir(parents=True)
    (run / "handover" / "weights").write_bytes(bytes(1000))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_text("x")
    (run / "link").symlink_to(tmp_path / "elsewhere")
    (two.tag("t") / "report.html").write_text("page")
    told = json.loads(glovebox("tags", "delete", "t", "--json")[1])
    assert (told["removed"], told["files"]) == (False, 3)
    assert (run / "handover" / "weights").exists()
    assert glovebox("tags", "delete", "t", "--yes")[0] == 0
    assert not run.exists()
    assert not (two.tag("t") / "report.html").exists()
    assert (tmp_path / "elsewhere" / "kept").exists()
    assert verify.verify(two).failures == []
    assert [tag for tag, _ in listed(glovebox)] == ["night"]
    assert json.loads(glovebox("best", "--tag", "t", "--json")[1])["tag"] == "t"


def test_of_a_tag_without_an_experiment_nothing_is_left(glovebox: Glovebox, bench: Home) -> None:
    ledger = Ledger(bench.ledger)
    ledger.begin_run("typo", "2026-01-02T00:00:00+00:00", "demo-1", "f" * 64)
    ledger.close()
    assert glovebox("tags", "rename", "typo", "other")[0] == 0
    assert glovebox("tags", "delete", "other", "--yes")[0] == 0
    assert listed(glovebox, "--all") == [("t", None)]
    assert tag_book.read(bench) == tag_book.TagBook()
    assert verify.verify(bench).failures == []


def test_nothing_is_deleted_beside_a_run(glovebox: Glovebox, two: Home) -> None:
    with locks.hold(two.runner_lock, "tag night"):
        assert glovebox("tags", "delete", "t", "--yes")[0] == 6


@pytest.mark.parametrize("command", ["rename", "archive", "unarchive", "delete"])
def test_an_unknown_tag_names_the_known_ones(glovebox: Glovebox, two: Home, command: str) -> None:
    code, _, err = glovebox("tags", command, "nigth", *(["x"] if command == "rename" else []))
    assert code == 2
    assert "tags: night, t" in err


@pytest.mark.parametrize("text", ["", "[]", '{"names": {"t": "../x"}}', '{"names": {}, "more": 1}', "[" * 100_000])
def test_a_list_of_names_that_is_none_is_said(glovebox: Glovebox, two: Home, text: str) -> None:
    (two.root / "tags.json").write_text(text)
    code, _, err = glovebox("status")
    assert code == 1
    assert "not a list of names" in err
    assert "Traceback" not in err


def test_a_linked_folder_of_a_tag_is_not_emptied(glovebox: Glovebox, two: Home, tmp_path: Path) -> None:
    elsewhere = tmp_path / "precious"
    two.tag("t").rename(elsewhere)
    (elsewhere / "kept").write_text("x")
    two.tag("t").symlink_to(elsewhere)
    assert glovebox("tags", "delete", "t", "--yes")[0] == 0
    assert (elsewhere / "kept").exists()


def test_a_tags_own_name_comes_before_what_another_is_called(glovebox: Glovebox, two: Home) -> None:
    """A tag that compose began under a word that was another's name: deleting it took the other's files."""
    assert glovebox("tags", "rename", "t", "third")[0] == 0
    ledger = Ledger(two.ledger)
    ledger.begin_run("third", "2026-01-03T00:00:00+00:00", "demo-1", "f" * 64)
    ledger.close()
    (two.tag("t") / "report.html").write_text("page")
    assert json.loads(glovebox("status", "--tag", "third", "--json")[1])["tag"] == "third"
    assert glovebox("tags", "delete", "third", "--yes")[0] == 0
    assert (two.tag("t") / "report.html").exists()
    assert json.loads(glovebox("status", "--tag", "third", "--json")[1])["tag"] == "t"  # and now it is the name again


@pytest.mark.parametrize("group", ["tags", "program"])
def test_json_before_a_command_of_a_group_is_refused(glovebox: Callable[..., tuple[int, str, str]], group: str) -> None:
    """It was passed over, and words came."""
    code, out, _ = glovebox(group, "--json", "rename" if group == "tags" else "show")
    assert (code, "--json goes behind" in json.loads(out)["error"]["what"]) == (2, True)
