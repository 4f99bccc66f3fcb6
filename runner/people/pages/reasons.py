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
    "keep": Meaning(
        "the baseline, or better than the best before it by the rule of policies/decision.yaml, or simpler"
    ),
    "discard": Meaning("not kept: no better, ended early, or for too much memory"),
    "crash": Meaning("it ended before a model was handed over, or used too much", "glovebox logs N trainer"),
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
        "train.py ended and no score was asked for, or what that raised was caught",
        "call evaluate_bpb(model, ...) at the end",
    ),
    "signal": Meaning("ended by a signal: a segfault, an abort, or a kill from the host", "glovebox logs N trainer"),
    "exit_code": Meaning(
        "the training ended with an exit code and no exception (75: its GPU was lost)", "glovebox logs N trainer"
    ),
    "diverged": Meaning("the loss became NaN or infinite", "a lower learning rate, warmup, gradient clipping"),
    "time_budget": Meaning("start, training and hand-over took longer than allowed", "glovebox doctor --clock"),
    "oom": Meaning(
        "more memory than policy or the host gives",
        "a smaller model or batch; for a new tag: trainer.memory_bytes in sandbox.yaml",
    ),
    "output": Meaning(
        "it printed more than policy allows", "print less; for a new tag: trainer.output_bytes in sandbox.yaml"
    ),
    "cancelled": Meaning("it was ended by the runner"),
    "early_stop": Meaning("its pace said that it could not win (policies/decision.yaml, early_stop)"),
    "interrupted": Meaning(
        "glovebox stop, Ctrl-C, or the runner, launcher, engine or disk failed: nothing is said of train.py",
        "run it again",
    ),
    # of a hand-over
    "data_dependent_shape": Meaning("rows are chosen by the tokens, and counted or mixed", "masks, where, gather"),
    "data_dependent_control_flow": Meaning("a number is read from tokens, and used", "tensor operations"),
    "custom_op": Meaning("an operation of somebody's own", "plain operations when not self.training"),
    "unsupported_op": Meaning(
        "an operation, or a type of weights, that has no plain words", "plain operations when not self.training"
    ),
    "higher_order_op": Meaning("an operation over functions that could not be unrolled", "a plain loop"),
    "random_numbers": Meaning("noise while it is evaluated", "if self.training:"),
    "mutation": Meaning("logits depend on what forward wrote before", "pass it from layer to layer"),
    "forward_signature": Meaning(
        "forward is not of one tensor of tokens to one tensor of logits", "forward(idx, targets=None)"
    ),
    "output_shape": Meaning(
        "logits are not floating [rows, positions, vocabulary]",
        "glovebox show N, or glovebox logs N evaluator, has the numbers",
    ),
    "over_limit": Meaning(
        "more operations, bytes or dimensions than the evaluator takes",
        "a shorter loop, a smaller model; glovebox logs N trainer",
    ),
    "other": Meaning("it could not be written as a graph, for a reason without a name", "glovebox logs N trainer"),
    # of an evaluation
    "missing": Meaning("there was no model to score", "glovebox logs N trainer"),
    "graph_format": Meaning("the graph is not of our format: something wrote it by itself", "evaluate_bpb(model, ...)"),
    "graph_limit": Meaning(
        "too many operations, values, checks or dimensions, or a type that is not taken",
        "glovebox logs N evaluator says which",
    ),
    "op_not_allowed": Meaning("an operation outside the evaluator's list", "docs/score.md"),
    "bad_argument": Meaning(
        "arguments that the operation does not accept, or cannot be trusted with", "plain sizes and strides"
    ),
    "weights_format": Meaning(
        "weights are missing, malformed, too large or of another type", "evaluate_bpb(model, ...)"
    ),
    "compute_limit": Meaning(
        "scoring takes more than policy allows, or far more than the baseline", "less work in forward"
    ),
    "shape_mismatch": Meaning("a value is not of the shape that was inferred", "another way to write that operation"),
    "not_finite": Meaning(
        "NaN or infinity, or a value that the proof rules out (a zero denominator, an empty mask row)",
        "docs/causality.md, obligations",
    ),
    "proof_contradicted": Meaning(
        "an audit saw a proved model look ahead: an incident; the run ends (on_contradiction)",
        "glovebox backup, then SECURITY.md",
    ),
    "nondeterministic": Meaning("the same input gives another score", "no scatter that adds, no uninitialised memory"),
    "not_proved": Meaning("it could not be shown that no logit looks ahead", "docs/causality.md says which forms can"),
    "out_of_memory": Meaning("the GPU has too little memory to score it", "a smaller model"),
    "other_branch": Meaning("forward branches on the tokens, another way than at hand-over", "no branch on tokens"),
    "execution": Meaning("an operation failed while it was scored", "glovebox logs N evaluator"),
    "evaluation_failed": Meaning("the evaluator was ended: time, memory or a crash", "glovebox logs N evaluator"),
    # of a verdict
    "not_confirmed": Meaning("it scored lower once, and not, or not at all, when it was run again"),
    "veto": Meaning(
        "a keep was taken back, by a person (glovebox veto) or by a pruning that was worse: the best before it ran "
        "once more and goes on"
    ),
    "nothing_proposed": Meaning(
        "the model budget of an experiment was used up before its agent changed anything: nothing ran",
        "raise experiment in policies/broker.yaml, or lower effort or max_tokens in policies/agent.yaml",
    ),
    "simpler": Meaning("no worse and shorter: kept for that"),
    "memory": Meaning("better, for more memory than policies/decision.yaml accepts"),
}
EVERY = {**OUTCOMES, **REASONS}
