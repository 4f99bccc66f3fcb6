"""Why the evaluator refused a model: the closed list of codes that may leave the room. TRUSTED.

Details would leak validation data and hand the agent a free-text channel, so a refusal is one code;
the explanation goes to the quarantine log for people.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """One word per class of refusal; part of the score schema."""

    MISSING = "missing"  # no graph or no weights
    GRAPH_FORMAT = "graph_format"  # not our JSON, or ill-formed
    GRAPH_LIMIT = "graph_limit"  # too many nodes, bytes, elements, dimensions
    OP_NOT_ALLOWED = "op_not_allowed"  # an operation outside the allow-list
    BAD_ARGUMENT = "bad_argument"  # arguments the operation does not accept
    WEIGHTS_FORMAT = "weights_format"  # malformed, missing or wrongly typed weights
    COMPUTE_LIMIT = "compute_limit"  # FLOPs, memory or time above policy
    SHAPE_MISMATCH = "shape_mismatch"  # a value is not what the dry run said it would be
    OUTPUT_SHAPE = "output_shape"  # not floating [rows, seq_len, vocab]
    NOT_FINITE = "not_finite"  # NaN or infinity in logits or where the proof forbids it
    NON_CAUSAL = "non_causal"  # a logit depends on a later token or on another row
    PROOF_CONTRADICTED = "proof_contradicted"  # the audit saw a proved model look ahead: an incident
    NONDETERMINISTIC = "nondeterministic"  # the same input gives another score, on one thread too
    NOT_PROVED = "not_proved"  # causality neither proved nor audited as policy asks
    OUT_OF_MEMORY = "out_of_memory"  # of the GPU: a smaller model, or smaller values between its layers
    OTHER_BRANCH = "other_branch"  # forward branches on the tokens, and another way than when it was handed over
    EXECUTION = "execution"  # an operation failed while running


class Refused(Exception):
    """The handed-over model is not scored. `reason` may cross to the runner; `detail` may not."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
