"""report.html in a real browser: it renders, asks for nothing, runs nothing, and can be read on a phone and in the dark."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.base.values import Crash, Experiment, Status
from runner.core.evidence.git_line import GitLine
from runner.core.evidence.ledger import Ledger
from runner.core.policy.policy_files import Policies
from runner.people.pages import report
from tests import chromium
from tests.people.pages.test_report import EVIL
from tests.samples import experiment

pytestmark = pytest.mark.slow
MOBILE = 390  # CSS pixels
MOST_BYTES = 3 << 20
MOST_SECONDS = 3.0
# Relative luminance and contrast: WCAG 2.2, success criterion 1.4.3.
CONTRAST = """(() => {
  const lum = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126*r + 0.7152*g + 0.0722*b };
  const page = lum(getComputedStyle(document.body).backgroundColor);
  return Math.min(...[...document.querySelectorAll('h1, p, td, th, summary, pre span, li')].map(e => {
    const own = lum(getComputedStyle(e).color);
    return (Math.max(own, page) + 0.05) / (Math.min(own, page) + 0.05) }));
})()"""


CHARTS = "[...document.querySelectorAll('.plot svg')].map(x => x.getBoundingClientRect()).filter(x => x.height)"
# Cells of one word that was broken into lines.
WORDS = """[...document.querySelectorAll('td:not(.text)')].filter(x => /^\\w+$/.test(x.textContent)).filter(x => {
  const range = document.createRange(); range.selectNodeContents(x);
  return new Set([...range.getClientRects()].map(r => r.top)).size > 1 }).map(x => x.textContent)"""


def night(home: Home, count: int) -> Ledger:
    """A synthetic ledger of `count` experiments on real sources, every fifteenth kept."""
    ledger = Ledger(home.ledger)
    ledger.begin_run("t", "2026-01-01T00:00:00+00:00", "demo-1", "f" * 64)
    line, seed = GitLine(home.line), (SOURCE / "trainer" / "train.py").read_text()
    for number in range(1, count + 1):
        row = row_of(number)
        source = seed.replace("MATRIX_LR = 0.02", f"MATRIX_LR = {0.02 + number / 1e5:.5f}").encode()
        (home.snapshots / f"{row.snapshot}.py").parent.mkdir(exist_ok=True)
        (home.snapshots / f"{row.snapshot}.py").write_bytes(source)
        kept = row.status is Status.KEEP
        commit = line.commit("t", number, source, row.description) if kept else f"{number:040x}"
        if kept:
            line.advance("t", commit)
        ledger.open_experiment("t", started="", description="", snapshot=row.snapshot, size=1, run=row.run)
        ledger.close_experiment(row.model_copy(update={"commit": commit}))
    return ledger


def row_of(number: int) -> Experiment:
    description = (
        f"{number}: {EVIL}" if number % 40 == 2 else f"idea {number}: a change of one dial, in one line of words"
    )
    if number % 15 == 1:
        return experiment(
            number, claimed=0.002 if number > 1 else None, val_bpb=1.0 - number / 1e4, description=description
        )
    if number % 11 == 5:
        crash = Crash(error="RuntimeError", line=number, message="matrix product of 3 x 4 and 5 x 6")
        return experiment(
            number, status=Status.CRASH, val_bpb=None, reason="exception", crash=crash, description=description
        )
    if number % 29 == 3:
        return experiment(number, status=Status.NON_CAUSAL, val_bpb=None, reason="non_causal", description=description)
    return experiment(
        number,
        status=Status.DISCARD,
        claimed=-0.01,
        val_bpb=1.02 - number / 1e4 + (number % 7) / 100,
        description=description,
    )


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    with chromium.page(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
def small(home: Home, policies: Policies) -> Path:
    return report.write(home, night(home, 45), policies, "t")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [MOBILE, 1100])
def test_it_renders_quietly_and_legibly(tab: chromium.Page, small: Path, width: int, dark: bool) -> None:
    seen = tab.open(small, width=width, dark=dark)
    assert seen.complaints == []
    assert [url for url in seen.requests if not url.startswith("data:")] == []
    assert tab.evaluate("document.scripts.length") == 0
    assert tab.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out: wide parts scroll inside
    assert tab.evaluate(f"{CHARTS}.length") == 1  # the one that was drawn for this width
    assert tab.evaluate(f"{CHARTS}[0].height") > 200
    assert tab.evaluate(f"{CHARTS}[0].right") <= width
    assert tab.evaluate(WORDS) == []  # none is broken at any letter
    assert float(tab.evaluate("parseFloat(getComputedStyle(document.querySelector('td.text')).fontSize)")) >= 14
    assert tab.evaluate(CONTRAST) >= 4.5
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") is not dark
    small.with_suffix(".png").unlink(missing_ok=True)
    tab.screenshot(small.with_suffix(".png"))
    assert small.with_suffix(".png").stat().st_size > 20_000


def test_every_section_is_there(tab: chromium.Page, small: Path) -> None:
    tab.open(small)
    text = tab.evaluate("document.body.innerText")
    for part in (
        "0.9999 → 0.9969", "What was kept", "What kinds of edits did", "All experiments", "Crashes", "RuntimeError",
        "From the baseline to the best", "glovebox best --tag t", "steps", "tokens/s",
        "Security events", "a model that looks ahead was not scored", "What was not verified", "no calls to a model",
        "What it was trained and scored on", "Artifact demo-1: a made-up language", "Licence: not said",
        "How to check it", "0 of 45 experiments have a receipt", "glovebox export --tag t",
    ):  # fmt: skip
        assert part in text


def test_a_training_may_leave_out_any_of_its_figures(home: Home, policies: Policies) -> None:
    """They are its own words: one that told tokens and no seconds left its tag without a page."""
    names = ("num_steps", "total_tokens_M", "training_seconds")
    for number in range(8):
        told = {name: 1.5 for at, name in enumerate(names) if number >> at & 1}
        row = experiment(number + 1, summary=told)
        ledger = Ledger(home.ledger)
        if number == 0:
            ledger.begin_run("t", "2026-01-01T00:00:00+00:00", "demo-1", "f" * 64)
        ledger.open_experiment("t", started="", description="", snapshot=row.snapshot, size=1, run=row.run)
        ledger.close_experiment(row.model_copy(update={"status": Status.DISCARD, "summary": told}))
        text = report.write(home, ledger, policies, "t").read_text()
        assert ("1,000,000" in text) is (number == 6 or number == 7)
        ledger.close()


def test_the_eye_that_looks_sees_scripts_requests_and_violations(tab: chromium.Page, small: Path) -> None:
    """The positive control: the same page with what must not be in it."""
    text = small.read_text()
    bad = small.with_name("bad.html")
    extra = (
        '<script>console.log("ran")</script><img src="https://example.invalid/x.png"><p style="width:3000px">wide</p>'
    )
    bad.write_text(text.replace("<main>", f"<main>{extra}"))
    guarded = tab.open(bad)
    assert any("script-src" in line or "default-src" in line for line in guarded.complaints)
    assert tab.evaluate("document.documentElement.scrollWidth") > 1100
    start = text.index("<meta http-equiv")
    open_page = (text[:start] + text[text.index(">", start) + 1 :]).replace("<main>", f"<main>{extra}")
    bad.write_text(open_page)
    unguarded = tab.open(bad)
    assert any("ran" in line for line in unguarded.complaints)
    assert any("example.invalid" in url for url in unguarded.requests)


def test_hostile_descriptions_make_no_element(tab: chromium.Page, small: Path) -> None:
    tab.open(small)
    assert tab.evaluate("document.querySelectorAll('main img, main script').length") == 0
    assert "<script>alert(1)</script>" in tab.evaluate("document.body.innerText")


def test_five_hundred_experiments_stay_small_and_quick(tab: chromium.Page, home: Home, policies: Policies) -> None:
    ledger = night(home, 500)
    report.write(home, ledger, policies, "t")  # matplotlib finds its fonts once
    began = time.monotonic()
    page = report.write(home, ledger, policies, "t")
    spent = time.monotonic() - began
    assert page.stat().st_size < MOST_BYTES
    print(f"500 experiments: {spent:.2f} s, {page.stat().st_size / 1e6:.2f} MB")
    assert tab.open(page, width=MOBILE).complaints == []
    assert tab.evaluate("document.querySelectorAll('tr').length") > 500
