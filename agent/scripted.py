"""A scripted agent: four real edits of the seed train.py, through the same tools a model uses. UNTRUSTED.

It needs no model and no key, so it shows and tests the whole bench: two changes that help, one that hurts and one
that crashes, after the baseline that the runner itself ran.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

from agent.client import Bench, Interrupted, Refused
from agent.tools import EditError, Editor


class Proposal(NamedTuple):
    """One experiment: what it says and what it does to the file."""

    description: str
    edit: Callable[[Editor], None]


def _head_rate(editor: Editor) -> None:
    editor.str_replace("HEAD_LR = 0.004 if CUDA else 0.001 ", "HEAD_LR = 0.004 ")


def _small_batch(editor: Editor) -> None:
    editor.str_replace("TOTAL_BATCH = 2**19 if CUDA else 2**14 ", "TOTAL_BATCH = 2**19 if CUDA else 2**11 ")


def _squeezed(editor: Editor) -> None:
    """No token can be much more probable than another: worse at any pace, where a learning rate is a matter of luck."""
    editor.str_replace("SOFTCAP = 15.0 ", "SOFTCAP = 0.5 ")


def _wrong_shape(editor: Editor) -> None:
    editor.str_replace("self.qkv(x).view(B, T, 3, -1, HEAD_DIM)", "self.qkv(x).view(B, T, 2, -1, HEAD_DIM)")


PROPOSALS = (
    Proposal("raise the head's learning rate on CPU from 0.001 to 0.004", _head_rate),
    Proposal("an eighth of the batch on CPU: eight times the optimizer steps", _small_batch),
    Proposal("a softcap of half a nat on the logits", _squeezed),
    Proposal("one fused projection for keys and values", _wrong_shape),
)


def main() -> int:
    """Propose everything once, or until the runner says stop."""
    editor, bench = Editor(), Bench()
    for proposal in PROPOSALS[max(0, len(bench.history()["rows"]) - 1) :]:
        try:
            proposal.edit(editor)
            answer = bench.run_experiment(proposal.description)
        except (EditError, Interrupted, Refused) as error:
            print(f"{proposal.description}: {error}", file=sys.stderr)
            continue
        feedback = answer["feedback"]
        print(f"experiment {feedback['experiment']}: {feedback['status']} {feedback['val_bpb']}", flush=True)
        if answer["done"]:
            break
    return 0
