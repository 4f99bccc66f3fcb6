"""Why a model cannot be handed over: the closed list, and the exception that carries one of it. UNTRUSTED side."""

from __future__ import annotations

from enum import StrEnum


class Why(StrEnum):
    """Closed list of reasons a model cannot be handed over."""

    DATA_DEPENDENT = "data_dependent_shape"
    CONTROL_FLOW = "data_dependent_control_flow"
    CUSTOM_OP = "custom_op"
    UNSUPPORTED_OP = "unsupported_op"
    HIGHER_ORDER = "higher_order_op"
    RANDOM = "random_numbers"
    MUTATION = "mutation"
    SIGNATURE = "forward_signature"
    OUTPUT_SHAPE = "output_shape"
    LIMIT = "over_limit"
    OTHER = "other"


class NotExportable(RuntimeError):
    """The model cannot be handed over; `why` says which rule it breaks, `op` by which ATen operation, if by one."""

    def __init__(self, why: Why, detail: str, op: str = "") -> None:
        super().__init__(f"{why}: {detail}")
        self.why, self.op = why, op
