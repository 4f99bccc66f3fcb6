"""report.html: one self-contained page per tag, rewritten after every experiment. TRUSTED.

No scripts, no external resources, a content security policy that forbids both, everything escaped.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from runner import plot, results
from runner.gitline import GitLine
from runner.home import Home
from runner.ledger import Ledger
from runner.records import Experiment, Status

_TEMPLATES = Path(__file__).parent / "templates"
MAX_DIFFS = 50
MAX_DIFF_CHARS = 20_000


def write(home: Home, ledger: Ledger, tag: str) -> Path:
    """Render the page of one tag; returns its path."""
    rows = ledger.experiments(tag)
    keeps = [row for row in rows if row.status is Status.KEEP]
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)
    text = environment.get_template(
        "report.html.j2"
    ).render(
        tag=tag,
        **ledger.run_info(tag),
        experiments=rows,
        baseline=keeps[0].val_bpb if keeps else None,
        best=keeps[-1].val_bpb if keeps else None,
        plot=Markup(plot.frontier(rows)),  # noqa: S704 - made by matplotlib, labels are drawn as paths
        diffs=_diffs(GitLine(home.line), keeps[-MAX_DIFFS:]),
    )
    path = home.tag(tag) / "report.html"
    results.replace_text(path, text)
    return path


def _diffs(line: GitLine, keeps: list[Experiment]) -> list[tuple[int, str, str]]:
    return [
        (new.id, new.description, line.diff(old.commit, new.commit)[:MAX_DIFF_CHARS])
        for old, new in itertools.pairwise(keeps)
    ]
