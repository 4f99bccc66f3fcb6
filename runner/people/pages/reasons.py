"""What every outcome of an experiment and every reason for one means, and what to do. TRUSTED, constants.

Agents read shorter words (program.md); these are for people. docs/reasons.md has the same table.
"""

from __future__ import annotations

from typing import NamedTuple


class Meaning(NamedTuple):
    """One word of a row."""

    means: str
    remedy: str = ""  # what to do, where anything can be done


OUTCOMES = {
    "keep": Meaning("better than the best before it, by the rule of policies/decision.yaml"),
    "discard": Meaning("scored, and not better"),
    "crash": Meaning("train.py handed no model over", "glovebox logs N trainer"),
    "timeout": Meaning(
        "the host's clock ended it before it handed over", "glovebox doctor --clock says what it may take"
    ),
    "not_exportable": Meaning(
        "the model cannot be written as a graph", "docs/score.md lists what can, and what to write"
    ),
    "rejected": Meaning("the evaluator does not score that model", "glovebox logs N evaluator"),
    "non_causal": Meaning(
        "a logit may depend on a later token or another row", "what mixes positions must look back only"
    ),
}
REASONS = {
    # of a training
    "exception": Meaning("train.py raised; error and line are in the row", "glovebox logs N trainer has the traceback"),
    "no_hand_over": Meaning(
        "train.py ended well and never asked for its score", "call evaluate_bpb(model, ...) at the end"
    ),
    "signal": Meaning("the training was ended by a signal: a segfault, an abort", "glovebox logs N trainer"),
    "exit_code": Meaning("the training ended with an exit code and no exception", "glovebox logs N trainer"),
    "diverged": Meaning("the loss became NaN or infinite", "a lower learning rate, warmup, gradient clipping"),
    "time_budget": Meaning("start, training and hand-over took longer than allowed", "glovebox doctor --clock"),
    "oom": Meaning(
        "the container used more memory than policy gives", "a smaller model or batch; memory_bytes in sandbox.yaml"
    ),
    "output": Meaning("it printed more than policy allows", "print less; output_bytes in sandbox.yaml"),
    "cancelled": Meaning("it was ended from outside"),
    "early_stop": Meaning("its pace said that it could not win (policies/decision.yaml, early_stop)"),
    "interrupted": Meaning(
        "the runner, the launcher or the engine went away; nothing is said of train.py", "run it again"
    ),
    # of a hand-over
    "data_dependent_shape": Meaning("rows are chosen by the tokens, and counted or mixed", "masks, where, gather"),
    "data_dependent_control_flow": Meaning("a number is read from tokens, and used", "tensor operations"),
    "custom_op": Meaning("an operation of somebody's own", "plain operations when not self.training"),
    "unsupported_op": Meaning("an operation that has no plain words", "plain operations when not self.training"),
    "higher_order_op": Meaning("an operation over functions that could not be unrolled", "a plain loop"),
    "random_numbers": Meaning("noise while it is evaluated", "if self.training:"),
    "mutation": Meaning("logits depend on what forward wrote before", "pass it from layer to layer"),
    "forward_signature": Meaning("model(idx) cannot be called with token ids alone", "forward(idx, targets=None)"),
    "output_shape": Meaning("logits are not [rows, positions, vocabulary]", "the numbers are in the row's message"),
    "over_limit": Meaning(
        "more operations or bytes than policies/evaluator.yaml allows", "a shorter loop, a smaller model"
    ),
    "other": Meaning("it could not be written as a graph, for a reason without a name", "glovebox logs N trainer"),
    # of an evaluation
    "missing": Meaning("there was no model to score", "glovebox logs N trainer"),
    "graph_format": Meaning("the graph is not of our format: something wrote it by itself", "evaluate_bpb(model, ...)"),
    "graph_limit": Meaning(
        "too many operations, elements or dimensions; cap and count are in the log", "a smaller model"
    ),
    "op_not_allowed": Meaning("an operation outside the evaluator's list", "docs/score.md"),
    "bad_argument": Meaning("arguments that torch takes and cannot be trusted with", "plain sizes and strides"),
    "weights_format": Meaning("weights are missing, malformed or of another type", "evaluate_bpb(model, ...)"),
    "compute_limit": Meaning(
        "scoring takes more than policy allows, or far more than the baseline", "less work in forward"
    ),
    "shape_mismatch": Meaning("a value is not of the shape that was inferred", "another way to write that operation"),
    "not_finite": Meaning("NaN or infinity where numbers must be", "train longer, or clip"),
    "proof_contradicted": Meaning(
        "an audit saw a proved model look ahead: an incident, the tag stops", "keep the run's files; SECURITY.md"
    ),
    "nondeterministic": Meaning("the same input gives another score", "no scatter that adds, no uninitialised memory"),
    "not_proved": Meaning("it could not be shown that no logit looks ahead", "docs/causality.md says which forms can"),
    "out_of_memory": Meaning("the GPU has too little memory to score it", "a smaller model"),
    "other_branch": Meaning("forward branches on the tokens, another way than at hand-over", "no branch on tokens"),
    "execution": Meaning("an operation failed while it was scored", "glovebox logs N evaluator"),
    "evaluation_failed": Meaning("the evaluator was ended: time, memory or a crash", "glovebox logs N evaluator"),
    # of a verdict
    "not_confirmed": Meaning("it scored lower once, and not when it was run again"),
    "simpler": Meaning("no worse and shorter: kept for that"),
    "memory": Meaning("better, for more memory than policies/decision.yaml accepts"),
}


def meaning(word: str) -> Meaning | None:
    """Of an outcome or a reason; None if there is none of that name."""
    return OUTCOMES.get(word) or REASONS.get(word)
