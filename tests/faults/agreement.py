"""Ledger, chain, git line, results.tsv, what ran and train.py of a stand-in night tell the same story."""

from __future__ import annotations

from collections import Counter

from runner.core.base.home import Home
from runner.core.base.values import INTERRUPTED, Status
from runner.core.evidence import audit_chain, verify
from runner.core.evidence.git_line import GitLine
from runner.core.evidence.ledger import Ledger
from runner.core.evidence.texts import Texts
from tests.faults import driver


def agree(home: Home) -> None:
    """Ledger, chain, git, results.tsv, containers and train.py tell the same story."""
    found = verify.verify(home)
    assert found.failures == []
    ledger = Ledger(home.ledger, read_only=True)
    rows, reruns = ledger.experiments(driver.TAG), ledger.reruns(driver.TAG)
    assert [row.id for row in rows] == list(range(1, ledger.last_number(driver.TAG) + 1))
    assert ledger.open_numbers(driver.TAG) == []
    assert ledger.open_reruns(driver.TAG) == []
    lines = (home.tag(driver.TAG) / "results.tsv").read_text().splitlines()
    assert len(lines) == len(rows) + 1
    chain = audit_chain.verify(home.audit)
    ended = Counter((e["data"]["tag"], e["data"]["id"]) for e in chain if e["kind"] == "finished")
    assert set(ended.values()) <= {1}
    assert len(ended) == len(rows)
    ran = Counter(line.split()[0] for line in (home.root / "ran.log").read_text().splitlines())
    assert set(ran.values()) <= {1}  # no run was made twice under one name
    assert set(ran) <= {row.run for row in rows} | {rerun.run for rerun in reruns}  # and none is unknown
    unknown = {row.run for row in rows if row.reason != INTERRUPTED} - set(ran)
    assert unknown == set()  # what counts did run
    steers = Texts(ledger).steers(driver.TAG)
    assert len({one.request for one in steers}) == len(steers)  # each was taken in once
    asked = Counter((e["data"]["tag"], e["data"]["id"]) for e in chain if e["kind"] == "steered")
    assert asked == Counter((one.tag, one.id) for one in steers)
    keeps = [row for row in rows if row.status is Status.KEEP]
    line = GitLine(home.line)
    assert line.head(driver.TAG) == keeps[-1].commit
    assert home.work.read_bytes() == line.content(keeps[-1].commit)
