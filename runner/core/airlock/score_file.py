"""Reads score.json, the evaluator's only output. TRUSTED; the evaluator is trusted but had hostile input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from runner.core.base.launching import Costs
from runner.core.base.values import Evaluation, Score
from trainer.wire import strict_json
from trainer.wire.refusal import Reason

MAX_BYTES = 16 << 10
FORMAT = "glovebox-score/1"


def read(path: Path) -> Score | None:
    """The score, or None if the evaluator left nothing usable (it failed, or was killed)."""
    try:
        with path.open("rb") as file:
            raw = strict_json.loads(file.read(MAX_BYTES + 1), max_bytes=MAX_BYTES, max_depth=1)
    except (OSError, strict_json.StrictJsonError):
        return None
    if not isinstance(raw, dict) or raw.pop("format", None) != FORMAT:
        return None
    try:
        if raw.get("status") == "scored":
            raw["evaluation"] = _evaluation(raw)
        score = Score.model_validate(raw)
    except ValidationError:
        return None
    if score.status == "scored":
        complete = score.val_bpb is not None and score.val_bpb_bytes is not None and score.causality is not None
        return score if complete and 0 < (score.val_bpb or 0) < 64 else None
    return score if score.reason in list(Reason) else None


def _evaluation(raw: dict[str, Any]) -> Evaluation:
    """Take what says how the score was taken out of the flat document; raises ValidationError."""
    costs = {name: raw.pop(name, None) for name in Costs.model_fields}
    told = {name: raw.pop(name, None) for name in Evaluation.model_fields if name != "costs"}
    return Evaluation(**told, costs=Costs(**costs))
