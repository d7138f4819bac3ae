"""What the check cell of guessed tokens calls: which of them are kept (chapter 10)."""

from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor

from ....checks.common import verdict
from ....checks.inputs import Call
from ....checks.judged import Answer, calling, judge
from .. import speculative


def _tokens(guesses: list[int], likeliest: list[int]) -> Call:
    given = (torch.tensor(row, dtype=torch.long) for row in (guesses, likeliest))
    return Call("accept_greedy", tuple(given))


@st.composite
def _guesses(draw: st.DrawFn) -> Call:
    """Few different tokens, so that guesses are right by chance, also after a wrong one."""
    likeliest = draw(st.lists(st.integers(0, 3), min_size=1, max_size=6))
    return _tokens([draw(st.sampled_from((token, 0, 1))) for token in likeliest[:-1]], likeliest)


EASY = [
    ([5, 6, 7], [5, 6, 8, 9]),
    ([5, 6, 7], [5, 6, 7, 9]),
    ([5, 6, 7], [4, 6, 7, 9]),
    ([5, 6, 7, 8], [5, 1, 7, 8, 2]),
    ([3, 3], [3, 4, 3]),
    ([], [9]),
    ([*range(12)], [*range(12), 3]),
]


def _written(accept_greedy: Callable[[Tensor, Tensor], Tensor]) -> Answer:
    """The answer to a `Call`: the tokens as a list, if they come as a tensor (n,) of ids."""
    called = calling(accept_greedy)

    def answer(call: Call) -> list[int]:
        found = called(call)
        if not isinstance(found, Tensor):
            kind = "None" if found is None else f"a {type(found).__name__}"
            raise AssertionError(f"is {kind}, expected a tensor of tokens")
        if found.dim() != 1 or found.dtype != torch.int64:
            shape = tuple(found.shape)
            raise AssertionError(
                f"has shape {shape} and dtype {found.dtype}, expected tokens (n,) of torch.int64"
            )
        return found.tolist()

    return answer


def _right(guesses: Tensor, likeliest: Tensor) -> int:
    return int((guesses == likeliest[:-1]).long().cumprod(0).sum())


LATER = "After a wrong guess, later ones were made for another text, even if they agree."
OWN = "Where a guess is wrong, the model's own token is written in its place."
MORE = "The pass brings one token more: what comes instead of, or after, the guesses."
WRONG = [
    (lambda g, m: m[: _right(g, m)], MORE),
    (
        lambda g, m: torch.cat([g[: _right(g, m)], m[-1:]]),
        "Take the model's token of *that* place.",
    ),
    (lambda g, m: g[: _right(g, m) + 1], OWN),
    (lambda g, m: m, LATER),
    (lambda g, m: m[: (g == m[:-1]).sum() + 1], LATER),
    (lambda g, m: torch.cat([m[:-1][g == m[:-1]], m[-1:]]), LATER),
    (lambda g, m: m[: _right(g, m) + 2], "One token too many after the last right guess. " + LATER),
    (
        lambda g, m: m[: (g == m[1:]).long().cumprod(0).sum() + 1],
        "likeliest[i] is what the model writes in the place of guess i.",
    ),
]


@verdict
def check_accept_greedy(accept_greedy: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Chapter 10, exercise 4. Returns a verdict; raises AssertionError on wrong tokens."""
    judge(
        _written(accept_greedy),
        _written(speculative.accept_greedy),
        _guesses(),
        [(_written(wrong), advice) for wrong, advice in WRONG],
        first=[_tokens(*rows) for rows in EASY],
        number=100,
        advice="Expected are the guesses up to the first wrong one, and then the model's token.",
    )
    return "accept_greedy is right: as far as the guesses go, and one token more."
