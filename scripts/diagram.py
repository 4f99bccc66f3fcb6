"""Draws docs/images/rooms.svg, the picture of docs/architecture.md: python scripts/diagram.py [--check].

Standard library only. Boxes are rooms: who is trusted, what each may do; arrows are all that crosses. `--check`: exit 1
if the file is not what this draws.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

TARGET = Path(__file__).parents[1] / "docs" / "images" / "rooms.svg"
WIDTH, HEIGHT = 960, 470
# name, where (x, y), size, trusted, lines
BOXES = [
    ("agent", (20, 40), (200, 110), False, ("UNTRUSTED container", "no network, no key, no GPU", "one writable file")),
    ("broker", (20, 300), (200, 110), True, ("the only API key", "the only network", "budgets, rebuilt requests")),
    ("desk", (300, 40), (230, 150), True, (
        "decides, keeps the record:", "snapshot, filter, ledger,", "git line, audit chain",
        "no engine, no key, no network",
    )),
    ("launcher", (300, 300), (230, 110), True, (
        "the only engine socket", "starts, watches, ends, freezes", "one fixed kind of container",
    )),
    ("trainer", (650, 40), (290, 120), False, (
        "UNTRUSTED container, fresh each time", "runs train.py, no network", "training data, read-only",
    )),
    ("evaluator", (650, 300), (290, 130), True, (
        "fresh container, hostile input", "validation data, read-only", "proves the graph causal, scores it",
        "none of the agent's code",
    )),
]  # fmt: skip
# from, to, label, where the label goes
ARROWS = [
    ((220, 80), (300, 80), "train.py", (260, 72)),
    ((300, 130), (220, 130), "values", (260, 147)),
    ((120, 150), (120, 300), "requests, from an allow-list", (130, 230)),
    ((415, 190), (415, 300), "one request, one life", (425, 250)),
    ((530, 340), (650, 120), "starts, ends", (640, 262)),
    ((530, 370), (650, 370), "starts, ends", (590, 362)),
    ((530, 70), (650, 70), "snapshot", (590, 62)),
    ((650, 110), (530, 110), "telemetry", (590, 127)),
    ((880, 160), (880, 300), "graph and weights, as data", (720, 220)),
    ((650, 320), (530, 170), "score", (556, 222)),
]
STYLE = """
svg { font: 14px system-ui, sans-serif; color-scheme: light dark; }
svg { --fg: #202124; --soft: #5f6368; --bad: #b3261e; --good: #1e7e45; --bg: #fff; }
@media (prefers-color-scheme: dark) {
  svg { --fg: #e8eaed; --soft: #a9afb6; --bad: #f28b82; --good: #58c48a; --bg: #17181a; }
}
text { fill: var(--fg); } .soft { fill: var(--soft); font-size: 12px; } .name { font-weight: 600; font-size: 16px; }
rect { fill: var(--bg); stroke-width: 2; } .back { stroke: none; }
.trusted { stroke: var(--good); } .untrusted { stroke: var(--bad); stroke-dasharray: 6 4; }
line { stroke: var(--soft); stroke-width: 1.5; }
"""


def draw() -> str:
    """The whole picture."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="t">',
        '<title id="t">Rooms of Glovebox and what crosses between them</title>',
        f"<style>{STYLE}</style>",
        '<defs><marker id="end" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="context-stroke"/></marker></defs>',
        f'<rect class="back" width="{WIDTH}" height="{HEIGHT}"/>',
    ]
    for (x1, y1), (x2, y2), label, (x, y) in ARROWS:
        anchor = "start" if x1 == x2 else "middle"
        parts.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" marker-end="url(#end)"/>')
        parts.append(f'<text class="soft" x="{x}" y="{y}" text-anchor="{anchor}">{escape(label)}</text>')
    for name, (x, y), (width, height), trusted, lines in BOXES:
        kind = "trusted" if trusted else "untrusted"
        parts.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>')
        parts.append(f'<text class="name" x="{x + 12}" y="{y + 26}">{name}</text>')
        for at, line in enumerate(lines):
            parts.append(f'<text class="soft" x="{x + 12}" y="{y + 48 + 18 * at}">{escape(line)}</text>')
    parts.append('<text class="soft" x="20" y="450">solid: trusted; dashed: whatever runs there may be hostile</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main(argv: list[str]) -> int:
    """Draw, or compare."""
    if "--check" in argv:
        same = TARGET.is_file() and TARGET.read_text(encoding="utf-8") == draw()
        print("up to date" if same else f"{TARGET} is not what scripts/diagram.py draws: run it")
        return 0 if same else 1
    TARGET.write_text(draw(), encoding="utf-8")
    print(TARGET)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
