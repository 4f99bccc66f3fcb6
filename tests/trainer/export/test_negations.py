"""What a mask hides is said by what it shows: the same numbers, in words that the proof understands."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch

from trainer.evaluator.causality import prove
from trainer.evaluator.model import graph, program
from trainer.export.capture import MODES

ROWS, T, VOCAB = 2, 8, 8
CPU = torch.device("cpu")
SEEN = torch.ones(T, T).tril().bool()
Hide = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Model(torch.nn.Module):
    """Attention by hand: `hide` says what the mask hides, of a mask by tokens [rows, T, T] and a triangle [T, T]."""

    def __init__(self, hide: Hide, value: float | torch.Tensor, fill: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.hide, self.fill = torch.nn.Embedding(VOCAB, VOCAB), hide, fill
        self.value = torch.nn.Buffer(value) if isinstance(value, torch.Tensor) else value

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        x = self.table(idx)
        scores = x @ x.mT
        hidden = self.hide((idx[:, :, None] + idx[:, None]) % 3 > 0, SEEN)
        if self.fill == "where":
            weights = torch.where(hidden, self.value, scores)
        else:
            weights = scores.masked_fill(hidden, self.value)
        return weights @ x


HIDDEN: dict[str, Hide] = {
    "not both": lambda some, seen: ~(some & seen),
    "not, not both": lambda some, seen: ~~~(some & seen),
    "either is not": lambda some, seen: ~some | ~seen,
    "not one nor the other": lambda some, seen: torch.logical_or(~some, torch.logical_or(seen, ~seen) & ~seen),
    "a product is zero": lambda some, seen: some * seen == 0,
    "a sum of products is zero": lambda some, seen: (some.int() * seen + some.int() * seen) == 0,
    "a number is zero": lambda some, seen: (some.float() * seen) == 0,
    "there is no bit": lambda some, seen: ~((some & seen) != 0),
    "seen in another shape": lambda some, seen: (~(some & seen)[:, None]).squeeze(1).mT.mT,
    "joined again": lambda some, seen: torch.cat([(~(some & seen))[..., :4], (~(some & seen))[..., 4:]], -1),
}


def bound(model: torch.nn.Module, mode: str) -> program.Program:
    with torch.no_grad():
        document, tensors = MODES[mode](model.eval(), torch.zeros(ROWS, T, dtype=torch.int64)).document()
    parsed = graph.parse(json.dumps(document).encode(), CPU)
    limits = program.Limits()
    return program.prepare(parsed, tensors, rows=ROWS, seq_len=T, vocab=VOCAB, device=CPU, limits=limits)


def says_the_same(model: torch.nn.Module, mode: str, rtol: float = 0.0) -> program.Program:
    prog = bound(model, mode)
    torch.manual_seed(1)
    idx = torch.randint(0, VOCAB, (ROWS, T))
    torch.testing.assert_close(prog(idx), model(idx), rtol=rtol, atol=rtol, equal_nan=True)
    return prog


@pytest.mark.parametrize(("mode", "fill"), [("functional", "masked_fill"), ("direct", "where")])
@pytest.mark.parametrize("name", HIDDEN)
def test_what_is_hidden_is_proved_to_be(name: str, fill: str, mode: str) -> None:
    model = Model(HIDDEN[name], 0.0, fill)
    assert prove(says_the_same(model, mode)).proved is (name != "joined again")  # nobody's opposite


@pytest.mark.parametrize("value", [-1, torch.tensor(0.5), torch.tensor(2), torch.tensor(0.25, dtype=torch.float64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_filled_value_is_of_the_type_of_what_it_fills(dtype: torch.dtype, value: float | torch.Tensor) -> None:
    model = Model(HIDDEN["not both"], 0.0, "masked_fill").to(dtype)
    model.value = value
    assert says_the_same(model, "functional")(torch.zeros(ROWS, T, dtype=torch.int64)).dtype is dtype


@pytest.mark.parametrize("mode", MODES)
def test_a_mask_that_is_written_to_afterwards_is_not_what_was_negated(mode: str) -> None:
    def hide(some: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        mask = some & seen
        hidden = ~mask
        mask |= True
        mask[..., :2] = False
        return hidden & ~mask | hidden

    says_the_same(Model(hide, 0.0, "masked_fill"), mode)


@pytest.mark.parametrize("mode", MODES)
def test_nan_is_no_zero(mode: str) -> None:
    """NaN == 0 is false, and so is the negation of its truth."""

    def hide(some: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        number = torch.where(some, float("nan"), 0.0) * seen
        return (number == 0) | (number != 0) & seen.mT

    says_the_same(Model(hide, 0.0, "masked_fill"), mode)


def test_a_choice_that_is_known_as_it_stands_is_left_alone() -> None:
    """Of `a or b` the proof knows where neither is: said the other way round it would not."""

    class Either(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(VOCAB, VOCAB)

        def forward(self, idx: torch.Tensor) -> torch.Tensor:
            x, some = self.table(idx), (idx[:, :, None] + idx[:, None]) % 3
            shown = ((some > 0) & SEEN) | ((some == 0) & SEEN.tril(-1))
            return torch.where(shown, x @ x.mT, 0.0) @ x

    assert prove(says_the_same(Either(), "functional")).proved


class Plain(torch.nn.Module):
    """Whatever it is told of tokens and their embedding."""

    def __init__(self, core: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.core = torch.nn.Embedding(VOCAB, VOCAB), core

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        return self.core(self.table(idx), idx)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fill", [0, 0.0, 1.0])
def test_integers_that_are_filled_keep_their_bits(fill: float, mode: str) -> None:
    """A choice between an integer and 0.0 is a float, of 24 bits; a hash of tokens has more."""

    def hashed(x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
        found = (idx * 2654435761 + 12345).masked_fill(~(idx != 0), fill)
        return x * (found % VOCAB).unsqueeze(-1)

    says_the_same(Plain(hashed), mode)


@pytest.mark.parametrize("fill", [0, True, 0.0])
def test_truths_that_are_filled_stay_truths(fill: float) -> None:
    def hidden(x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
        return x.masked_fill((idx > 3).masked_fill(~(idx > 1), fill)[..., None], 0.0)

    says_the_same(Plain(hidden), "functional")


def test_a_condition_may_be_longer_than_python_can_recurse() -> None:
    """A flag that is set somewhere in a loop over time, and looked at after it."""

    def flagged(x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
        flag = idx < 0
        for step in range(1500):
            flag = (flag | (idx == step)).view(ROWS, T)
        return x.masked_fill(flag[..., None], 0.0)

    says_the_same(Plain(flagged), "direct")


@torch.library.custom_op("glovebox_tests::logical_not", mutates_args=())
def logical_not(x: torch.Tensor) -> torch.Tensor:
    """Nothing of the kind."""
    return x.roll(-1, 1)


@logical_not.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


@pytest.mark.parametrize("mode", MODES)
def test_somebody_elses_operation_of_that_name_is_what_it_is(mode: str) -> None:
    def turned(x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
        return x.masked_fill(logical_not(idx > 2)[..., None], 0.0)

    assert not prove(says_the_same(Plain(turned), mode)).proved


def test_numbers_that_are_compared_with_zero_need_not_be_numbers() -> None:
    """The first row of strictly causal attention is NaN, and is not zero."""

    def counted(x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
        weights = (x @ x.mT).masked_fill(~SEEN.tril(-1), float("-inf")).softmax(-1)
        return x + (weights != 0).float().tril(-1).sum(-1, keepdim=True)

    prog = says_the_same(Plain(counted), "functional")
    proof = prove(prog)
    prog(torch.zeros(ROWS, T, dtype=torch.int64), proof.obligations.watch())
    proof.obligations.discharge()
    assert proof.proved


@pytest.mark.parametrize("mode", MODES)
def test_what_is_ranked_keeps_the_sign_of_its_zeros(mode: str) -> None:
    def ranked(x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
        values = torch.stack([x * 0.0, -(x * 0.0), x]).sort(dim=0, stable=True).values
        best = torch.stack([-(x * 0.0), x - 9]).topk(1, 0).values[0]
        return x + (1 / values).clamp(-1, 1).sum(0) + (1 / best).clamp(-1, 1)

    says_the_same(Plain(ranked), mode)
