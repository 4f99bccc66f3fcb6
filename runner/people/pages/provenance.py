"""What trained and scored: devices, images, versions, in a line each. TRUSTED; from the ledger and the audit chain."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from runner.core.base.values import Experiment

_IMAGE = re.compile(r"sha256:([0-9a-f]{12})[0-9a-f]{52}")
MAX_IMAGES = 4  # of a role; a tag has more only if its images were built again and again


class Images:
    """The images that the receipts of a tag name, by role, in the order in which they came; and how many those are."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self.seen: dict[str, list[str]] = {}
        self._numbers = set[int]()

    def receipts(self, rows: Sequence[Experiment]) -> int:
        """How many of these experiments have one."""
        return len(self._numbers & {row.id for row in rows})

    def take(self, entry: dict[str, Any]) -> None:
        """The next entry of the audit chain; what has not the form of a receipt is passed over."""
        data = entry.get("data")
        if entry.get("kind") != "finished" or not isinstance(data, dict) or data.get("tag") != self._tag:
            return
        if type(number := data.get("id")) is int:
            self._numbers.add(number)
        for one in data["containers"] if isinstance(data.get("containers"), list) else ():
            role, image = (one.get("role"), one.get("image")) if isinstance(one, dict) else (None, None)
            if role in ("trainer", "evaluator") and isinstance(image, str) and (match := _IMAGE.fullmatch(image)):
                known = self.seen.setdefault(role, [])
                if match[1] not in known:
                    known.append(match[1])


def lines(rows: Sequence[Experiment], images: Images) -> list[str]:
    """Devices, a line for each kind, then images and who wrote the page."""
    told = [f"Trained on {device}." for device in hardware(rows)]
    if any(row.speed is None and row.val_bpb is not None for row in rows):
        told.append("Trained on CPU.")
    parts = []
    for role, found in images.seen.items():
        more = f" and {len(found) - MAX_IMAGES} before" if len(found) > MAX_IMAGES else ""
        parts.append(f"{role} {', '.join(found[-MAX_IMAGES:])}{more}")
    with suppress(PackageNotFoundError):
        parts.append(f"page by glovebox {version('glovebox')}")
    return [*told, f"Images: {'; '.join(parts)}."] if images.seen else told


def hardware(rows: Sequence[Experiment]) -> list[str]:
    """What trained, a line for each kind: the GPU, its driver and clock, and which attention ran on it."""
    seen: dict[tuple[str, str, float | None], list[Experiment]] = {}
    for row in rows:
        if row.speed is not None:
            seen.setdefault((row.speed.name, row.speed.driver, row.speed.power_cap_w), []).append(row)
    told = []
    for (name, driver, cap), runs in seen.items():
        clocks = [row.speed.sm_mhz for row in runs if row.speed and row.speed.sm_mhz is not None]
        ways = sorted({way for row in runs for way in row.attention})
        parts = [
            name,
            f"driver {driver}",
            "" if cap is None else f"power cap {cap:.0f} W",
            f"{min(clocks):.0f} to {max(clocks):.0f} MHz" if clocks else "",
            f"attention: {', '.join(ways)}" if ways else "",
        ]
        told.append(", ".join(part for part in parts if part))
    return told
