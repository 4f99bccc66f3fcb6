"""A scripted agent: five real edits of the seed train.py, through the same tools a model uses. UNTRUSTED.

It needs no model and no key, so it shows and tests the whole bench: a baseline, two changes that help, one
that hurts and one that crashes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

from agent.client import Bench, Refused
from agent.tools import EditError, Editor


class Proposal(NamedTuple):
    """One experiment: what it says and what it does to the file."""

    description: str
    edit: Callable[[Editor], None]


def _leave(_: Editor) -> None:
    """The baseline: the file as it is."""


def _too_hot(editor: Editor) -> None:
    editor.str_replace("WARMDOWN = 0.4 ", "WARMDOWN = 1e-9 ")
    editor.str_replace("EMBED_LR = 0.3 ", "EMBED_LR = 3.0 ")


PROPOSALS = (
    Proposal("baseline", _leave),
    Proposal(
        "quarter the batch on CPU: four times the optimizer steps",
        lambda editor: editor.str_replace(
            "TOTAL_BATCH = 2**19 if CUDA else 2**13 ", "TOTAL_BATCH = 2**19 if CUDA else 2**11 "
        ),
    ),
    Proposal(
        "raise the Muon learning rate from 0.02 to 0.04",
        lambda editor: editor.str_replace("MATRIX_LR = 0.02 ", "MATRIX_LR = 0.04 "),
    ),
    Proposal("no learning rate warmdown and ten times the embedding rate", _too_hot),
    Proposal(
        "one fused projection for keys and values",
        lambda editor: editor.str_replace(
            "self.qkv(x).view(B, T, 3, -1, HEAD_DIM)", "self.qkv(x).view(B, T, 2, -1, HEAD_DIM)"
        ),
    ),
)


def main() -> int:
    """Propose everything once, or until the runner says stop."""
    editor, bench = Editor(), Bench()
    for proposal in PROPOSALS[len(bench.history()) :]:
        try:
            proposal.edit(editor)
            answer = bench.run_experiment(proposal.description)
        except (EditError, Refused) as error:
            print(f"{proposal.description}: {error}", file=sys.stderr)
            continue
        feedback = answer["feedback"]
        print(f"experiment {feedback['experiment']}: {feedback['status']} {feedback['val_bpb']}", flush=True)
        if answer["done"]:
            break
    return 0
