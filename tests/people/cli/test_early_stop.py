"""`glovebox early-stop study`: on a screen and as a document."""

from __future__ import annotations

import json
from collections.abc import Callable

from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.evidence.ledger import Ledger
from tests.core.findings.test_early_stopping import night


def test_a_tag_is_studied(glovebox: Callable[..., tuple[int, str, str]], home: Home) -> None:
    code, _, err = glovebox("early-stop", "study")
    assert (code, "no experiment" in err) == (2, True)
    text = (SOURCE / "policies" / "decision.yaml").read_text()
    (home.root / "policies").mkdir(exist_ok=True)
    (home.root / "policies" / "decision.yaml").write_text(text.replace("rule: odds ", "rule: upstream "))
    ledger = Ledger(home.ledger)
    ledger.begin_run("t", "2026-01-01T00:00:00+00:00", "demo-1", "f" * 64)
    for row in night(80, 1, told=0.95):
        ledger.open_experiment("t", started="", description="", snapshot=row.snapshot, size=1, run=row.run)
        ledger.close_experiment(row)
    ledger.close()
    code, out, err = glovebox("early-stop", "study", "t")
    assert code == 0, err
    for part in ("t: 79 scored runs", "would have been ended", "time of training saved", "it would pay", "go together"):
        assert part in out
    code, out, _ = glovebox("early-stop", "study", "--json")
    told = json.loads(out)
    assert (code, told["tag"], told["study"]["runs"]) == (0, "t", 79)
    assert told["faster"] > 1.05
