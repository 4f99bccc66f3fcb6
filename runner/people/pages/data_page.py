"""What an artifact's text is like, as one self-contained page. TRUSTED; numbers and what was signed, all escaped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from runner.core.airlock import invisible
from runner.core.data.statistics import Statistics
from runner.people.pages import plot

WORDS = {"train": "trained on", "val": "scored", "holdout": "held back for confirm"}
_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined
)


def render(found: Statistics) -> str:
    """The whole page."""
    train = found.sides[0]
    said = {name: invisible.printable(text) for name, text in found.provenance.items()}
    return _ENVIRONMENT.get_template("data.html.j2").render(
        found=replace(found, provenance=said),
        train=train,
        words=WORDS,
        lengths=Markup(plot.lengths(train.lengths)),  # noqa: S704 - made by matplotlib, labels are drawn as paths
        signed=sorted({**{f"profile {k}": str(v) for k, v in found.profile.items()}, **said}.items()),
    )
