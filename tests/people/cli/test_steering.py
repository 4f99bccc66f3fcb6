"""A person's hand on a run: requests are left for its session, and what is refused says what would do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.core.base import locks, steering
from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.evidence.ledger import Ledger
from tests.core.evidence.test_checkpoints import bench as bench  # noqa: PLC0414 - a fixture
from tests.core.evidence.test_checkpoints import witness as witness  # noqa: PLC0414 - a fixture
from tests.rooms.desk.conftest import Night
from tests.rooms.desk.conftest import night as night  # noqa: PLC0414 - a fixture

Glovebox = Callable[..., tuple[int, str, str]]


def waiting(home: Home) -> list[tuple[str, str, int]]:
    return [(one.verb, one.text, one.experiment) for _, one in steering.waiting(home, "t") if one is not None]


def test_a_hint_waits_for_the_session_and_is_listed(glovebox: Glovebox, bench: Home) -> None:
    code, out, err = glovebox("hint", "try a smaller\nmodel")
    assert code == 0, err
    assert "hint asked; the next session takes it in" in out
    assert waiting(bench) == [("hint", "try a smaller model", 0)]
    assert "not taken in yet: try a smaller model" in glovebox("hint")[1]
    assert json.loads(glovebox("hint", "--json")[1]) == {
        "tag": "t", "hints": [], "waiting": ["try a smaller model"],
    }  # fmt: skip
    with locks.hold(bench.runner_lock, "a session"):
        assert "the session at work takes it in" in glovebox("hint", "--clear")[1]


def test_words_that_do_not_fit_are_refused(glovebox: Glovebox, bench: Home) -> None:
    assert glovebox("hint", "x" * 1001)[0] == 2
    assert glovebox("hint", "x", "--clear")[0] == 2
    assert waiting(bench) == []
    assert glovebox("hint", "x" * 1000)[0] == 0


def test_notes_and_ideas_can_be_read_as_they_are_and_as_they_were(glovebox: Glovebox, night: Night) -> None:
    assert "(no notes)" in glovebox("notes")[1]
    night.bench.write_notes("a\nb\n")
    night.bench.add_idea("try c")
    night.run(2.1)
    night.bench.write_notes("other")
    night.bench.close_idea(1, "done")
    assert glovebox("notes")[1] == "other\nideas: 0 open, 1 done, 0 dropped\n"
    assert glovebox("notes", "--at", "2")[1] == "a\nb\n\nidea 1: try c\nideas: 1 open, 0 done, 0 dropped\n"
    assert json.loads(glovebox("notes", "--at", "1", "--json")[1])["notes"] == ""
    assert glovebox("notes", "--at", "9")[0] == 2


def test_pause_and_resume(glovebox: Glovebox, bench: Home) -> None:
    code, _, err = glovebox("resume")
    assert code == 2
    assert "tag t is not paused" in err
    assert glovebox("pause")[0] == 0
    assert "paused" in glovebox("status")[1]
    assert json.loads(glovebox("status", "--json")[1])["paused"] is True
    assert glovebox("resume")[0] == 0
    assert json.loads(glovebox("status", "--json")[1])["paused"] is False


def test_a_veto_is_for_keeps_of_the_line(glovebox: Glovebox, bench: Home) -> None:
    book = Ledger(bench.ledger, read_only=True)
    keeps = [row.id for row in book.experiments("t") if row.status == "keep"]
    code, _, err = glovebox("veto", str(keeps[0]))
    assert code == 2
    assert f"experiment {keeps[0]} is no keep to take back" in " ".join(err.split())
    code, out, err = glovebox("veto", str(keeps[-1]), "--json")
    assert code == 0, err
    assert json.loads(out)["asked"]["experiment"] == keeps[-1]
    assert waiting(bench) == [("veto", "", keeps[-1])]


def test_init_gives_a_bench_a_directive_once(glovebox: Glovebox, home: Home) -> None:
    assert glovebox("init")[0] == 0
    shipped = (SOURCE / "program.md").read_bytes()
    assert home.program.read_bytes() == shipped
    home.program.write_text("mine\n")
    assert glovebox("init")[0] == 0
    assert home.program.read_text() == "mine\n"
    assert glovebox("program")[1].strip() == str(home.program)
    assert glovebox("program", "show")[1] == "mine\n"


def test_versions_of_the_directive_are_listed_and_compared(glovebox: Glovebox, night: Night) -> None:
    for text, scores in (("be bold\n", (1.9, 2.1)), ("be careful\n", (2.2,))):
        night.home.program.write_text(text)
        night.bench.program()
        for true in scores:
            night.run(true)
    first, second = (row.program or "" for row in (night.rows[1], night.rows[3]))
    told = json.loads(glovebox("program", "log", "--json")[1])["versions"]
    assert [(one["name"], one["experiments"], one["kept"], one["span"]) for one in told] == [
        (first[:12], 2, 1, [2, 3]), (second[:12], 1, 0, [4, 4]),
    ]  # fmt: skip
    assert first[:12] in glovebox("program", "log")[1]
    assert glovebox("program", "show", first[:12])[1] == "be bold\n"
    out = glovebox("program", "diff", first[:12], second[:12])[1]
    assert "-be bold\n+be careful" in out
    assert "no difference" in glovebox("program", "diff", second[:12])[1]


@pytest.mark.parametrize("version", ["zz", "../../etc/passwd", "abc", "0" * 12])
def test_a_version_that_is_none_is_one_line(glovebox: Glovebox, bench: Home, version: str) -> None:
    code, out, err = glovebox("program", "show", version)
    assert (code, out) == (2, "")
    assert "glovebox program log lists them" in " ".join(err.split())


def test_parts_of_tags_are_compared_with_a_chart(glovebox: Glovebox, night: Night, tmp_path: Path) -> None:
    for true in (1.9, 2.1, 1.8, 2.0, 1.7, 1.75):
        night.run(true)
    code, out, err = glovebox("compare", "t", "--by", "program", "-o", str(tmp_path / "c.svg"), "--json")
    assert code == 0, err
    (part,) = json.loads(out)["parts"]
    assert (part["experiments"], part["kept"]) == (6, 3)
    assert part["gain"] == pytest.approx(0.3)
    assert part["interval"][0] < 0.3 < part["interval"][1]
    svg = (tmp_path / "c.svg").read_text()
    assert "<svg" in svg
    assert "<script" not in svg
    assert "+0.30000" in glovebox("compare", "t")[1]
    code, _, err = glovebox("compare", "t", "-o", str(tmp_path / "c.svg"))
    assert code == 2
    assert "is there already" in err
    assert glovebox("compare", "t", "--by", "luck")[0] == 2


def test_a_directive_that_comes_with_glovebox_can_be_gone_back_to(glovebox: Glovebox, home: Home) -> None:
    assert glovebox("init")[0] == 0
    home.program.write_text("mine\n")
    code, out, err = glovebox("program", "use", "small", "--json")
    assert code == 0, err
    assert "small machine" in home.program.read_text()
    assert Path(json.loads(out)["before"]).read_text() == "mine\n"
    assert glovebox("program", "use", "standard")[0] == 0
    assert home.program.read_bytes() == (SOURCE / "program.md").read_bytes()
    assert glovebox("program", "use", "large")[0] == 2
