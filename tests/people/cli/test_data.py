"""`glovebox data`: an artifact in figures, on a screen and on a page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.core.base.home import Home
from tests import chromium
from tests.people.pages.test_report_page import CONTRAST, MOBILE, WORDS

Glovebox = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    with chromium.page(tmp_path_factory.mktemp("browser")) as found:
        yield found


def test_the_newest_artifact_is_told(glovebox: Glovebox) -> None:
    code, out, err = glovebox("data")
    assert code == 0, err
    for part in ("demo-1: 1,024 tokens", "trained on", "scored", "held back for confirm", "a made-up language"):
        assert part in out
    code, out, _ = glovebox("data", "demo-1", "--json")
    told = json.loads(out)
    assert (code, told["version"], told["page"]) == (0, "demo-1", None)
    assert [side["name"] for side in told["sides"]] == ["train", "val", "holdout"]


def test_the_page_reads_well_and_asks_nobody(
    glovebox: Glovebox, home: Home, tmp_path: Path, tab: chromium.Page
) -> None:
    lines = [f"{number} " + " ".join(f"word{number * at % 89}" for at in range(number % 60)) for number in range(3000)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    small = ("--set", "eval_tokens=4096", "--set", "holdout_tokens=4096", "--set", "vocab_size=300")
    assert glovebox("profile", "new", "mine", "--from", "demo", *small)[0] == 0
    evil = "<script>alert(1)</script>\u202e"
    code, _, err = glovebox(
        "prepare", "--profile", "mine", "--data", str(tmp_path / "own.jsonl"), "--license", evil, "--origin", "here"
    )
    assert code == 0, err
    page = tmp_path / "data.html"
    code, _, err = glovebox("data", "--page", str(page))
    assert code == 0, err
    for width, dark in ((MOBILE, False), (MOBILE, True), (1100, False), (1100, True)):
        seen = tab.open(page, width=width, dark=dark)
        assert seen.complaints == []
        assert [url for url in seen.requests if not url.startswith("data:")] == []
        assert tab.evaluate("document.scripts.length") == 0
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate(WORDS) == []
        assert tab.evaluate(CONTRAST) >= 4.5
    text = tab.evaluate("document.body.innerText")
    assert "\u202e" not in text
    for part in ("mine-2", evil[:-1], "here", "documents to train on", "How long documents are", "near duplicates"):
        assert part in text
    code, _, err = glovebox("data", "--page", str(page))
    assert (code, "is there already" in err) == (2, True)


def test_a_changed_file_is_no_text_to_count(glovebox: Glovebox, home: Home) -> None:
    assert glovebox("data")[0] == 0
    path = home.store / "demo-1" / "train" / "tokens_00000.npy"
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    code, _, err = glovebox("data")
    assert code == 4, err
    for name in ("none-7", "../demo-1", "demo-1/", ".", "DEMO"):
        code, _, err = glovebox("data", name)
        assert (code, name in err) == (4, True)


def test_where_nothing_may_be_written_and_whatever_its_age_it_is_shown(glovebox: Glovebox, home: Home) -> None:
    there = sorted(path for path in home.root.rglob("*") if "/keys" not in str(path))
    shutil.rmtree(home.store)
    assert glovebox("data")[0] == 0  # from artifacts/, without a copy in the store
    assert not home.store.exists()
    assert sorted(path for path in home.root.rglob("*") if path in there) == [
        path for path in there if not path.is_relative_to(home.store)
    ]


def test_a_page_is_written_where_there_is_room_for_it(glovebox: Glovebox, tmp_path: Path) -> None:
    code, _, err = glovebox("data", "--page", str(tmp_path / "no" / "folder.html"))
    assert (code, "its folder is not there" in err) == (2, True)
    assert not (tmp_path / "no").exists()
    for taken in (tmp_path, tmp_path / "link"):
        if taken.name == "link":
            taken.symlink_to(tmp_path / "nowhere")
        code, _, err = glovebox("data", "--page", str(taken))
        assert (code, "is there already" in err) == (2, True)
