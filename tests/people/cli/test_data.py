"""`glovebox data`: an artifact in figures, on a screen and on a page."""

from __future__ import annotations

import json
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
    evil = "<script>alert(1)</script>"
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
    for part in ("mine-2", evil, "here", "documents to train on", "How long documents are", "near duplicates"):
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
    code, _, err = glovebox("data", "none-7")
    assert (code, "none-7" in err) == (4, True)
