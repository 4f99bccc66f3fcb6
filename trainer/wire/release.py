"""Wait for the launcher's word. TRUSTED, shared by both rooms.

A container may be started ahead of its work. It imports what its image holds, and touches nothing else until the
launcher, on the host, has written GO: from then on train.py, or what a trainer handed over, is in place.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

GO = Path(os.environ.get("GLOVEBOX_GO", "/work/go.json"))
_INTERVAL = 0.01  # seconds


def wait() -> dict[str, Any]:
    """What the launcher wrote, as soon as it did; {} where there is no launcher, and so no file."""
    while True:
        try:
            text = GO.read_text()
        except FileNotFoundError:
            return {}
        if text.endswith("\n"):
            return dict(json.loads(text))
        time.sleep(_INTERVAL)
