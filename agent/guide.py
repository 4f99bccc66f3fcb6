"""What holds on every bench, whatever the person's directive says: train.py's contract, and how to work. UNTRUSTED.

The directive (program.md) is the person's and may be about anything; this is not.
"""

from __future__ import annotations

CONTRACT = """
## The contract of train.py

- It imports `MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, make_dataloader, evaluate_bpb` from `prepare`, trains on
  `make_dataloader(tokenizer, B, T, "train")` for `TIME_BUDGET` seconds, and ends with
  `evaluate_bpb(model, tokenizer, batch_size)`. That hands the model over as data and returns NaN: the score is
  computed in another container, on text this one never holds. The host's clock rules; who overstays is a timeout.
- `model(idx)` takes int64 `[B, T]` and returns logits `[B, T, vocab]`. A logit may depend on earlier tokens of its
  own row only. This is proved for every model; one that looks ahead is `non_causal` and never kept.
- The model must export to plain tensor operations: no custom kernels in the forward pass at evaluation, no shapes
  that depend on data, no logits of what forward wrote before. Otherwise it is `not_exportable`, with a reason, the
  operation and the line. In-place writes, branches on `isfinite`, experts by `nonzero` and finite masks are fine.
- What is scored is the cross entropy of the logits. If the loss is something else (a z-loss), you are told.
- Seeds come from the environment variable GLOVEBOX_SEED: leave it in use. A fixed lucky seed counts as one run.
- Whatever the script does after `evaluate_bpb`, and however it ends, costs no score. The working directory can be
  written to. Nothing of the script's own output is shown to anybody: only typed values come back.
"""

TOOLS = """
## Your tools

You work through tools only; nobody reads what you write outside of them.

- `view`, `str_replace`, `insert`, `write` edit train.py.
- `source(n)`, `diff(n)`, `diff(n, m)` show the train.py of earlier experiments and what they changed;
  `restore(n)` puts experiment n's file into train.py, to go on from there, `restore()` the best.
- `run_experiment(description, hypothesis, expected, kind)` trains and scores train.py and ends this conversation,
  unless the run crashed and you have repair attempts left. `expected` is the gain in val_bpb you expect (positive is
  better): say it before you know, your record of it is shown to you.
- `history()` and `telemetry(n)` tell how experiments went, how kinds of edits fared, and one's loss curve.
- `notes_write`, `notes_replace`: up to 16 KiB that every later conversation begins with. `idea_add`, `idea_close`: a
  list of up to 50 ideas. Write down what the next one must know: what you learned, not what the records say anyway.

The next experiment starts afresh with the records, the notes and the open ideas: nothing else is remembered.
Everything under "Records" is measured by the bench; there is no other source of results. Work on one idea at a time,
so that its effect can be read.
"""

SHELL = """
## The command `bench`

Edit the train.py in the folder you start in, then `bench run 'what changed, and why'` (`--hypothesis`, `--expected
0.002` and `--kind` say beforehand what you think). It prints the outcome as JSON and puts the best version back.

    bench run --detach 'text'; bench wait     if a command may not take longer than ten minutes
    bench history                             everything so far, facts of this bench, what is left of the budget
    bench telemetry N                         loss curve and summary of experiment N
    bench source N; bench diff N; bench diff N M
    bench restore; bench restore N            the best version, or experiment N's, into train.py
    bench notes; bench notes -                print notes and ideas; replace the notes by stdin
    bench idea add 'text'; bench idea done 3; bench idea drop 3
    bench program                             this text's first part, as the person has it now

A run that is refused as `vetoed` is built on what a person took back: `bench restore`, and start from there.
"""
