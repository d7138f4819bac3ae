"""What the check cell of one more chunk of keys calls (chapter 08)."""

import math
from collections.abc import Callable
from functools import partial

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from ....attention import softmax
from ....checks.common import verdict
from ....checks.elsewhere import follows_its_device
from ....checks.inputs import Call, random
from ....checks.judged import Answer, gradients, judge
from .. import flash_attention as right
from ..flash_attention import State
from .common import (
    FLOATS,
    HIDDEN,
    Named,
    joined,
    largest,
    leading,
    masks,
    numbers,
    results,
    roughly,
)

CHUNKS = {  # scores of one query, chunk by chunk
    "two keys, one at a time": [[1.0], [3.0]],
    "the largest first": [[5.0, 1.0], [2.0], [0.0, 4.0, 3.0]],
    "the largest last": [[0.0, 1.0], [2.0, 3.0], [9.0]],
    "scores of 2000": [[2000.0, 1990.0], [1995.0], [2001.0]],
    "scores of -2000": [[-2001.0], [-2000.0, -1999.0]],
    "a hidden key": [[1.0, HIDDEN], [2.0, 0.5]],
    "a chunk of hidden keys, later": [[1.0, 2.0], [HIDDEN, HIDDEN], [0.5]],
    "a chunk of hidden keys at the start": [[HIDDEN, HIDDEN], [-2000.0, -1999.0]],
    "hidden keys only": [[HIDDEN, HIDDEN], [HIDDEN]],
}
NAMES = ("m", "l", "a", "scores", "v")
STATE = ("m, the largest score", "l, the sum", "a, the weighted sum of values")
LEVELS = {
    torch.float64: (0.0, 0.0, 3.0, -3.0, 1e4, -1e4),
    torch.float32: (0.0, 0.0, 3.0, -3.0),
}


def _told(chunks: list[list[float]]) -> list[Named]:
    """The calls of `absorb`, one after the other, with the course's state before each."""
    huge = any(1000 < abs(score) < math.inf for chunk in chunks for score in chunk)
    dtype = torch.float64 if huge else torch.float32
    calls, state = [], right.nothing_yet(torch.zeros(1, 2, dtype=dtype))
    for chunk in chunks:
        scores = torch.tensor([chunk], dtype=dtype)
        v = torch.arange(1, len(chunk) + 1, dtype=dtype)
        v = torch.stack([v, 1 - v], dim=1)
        calls.append(Named("absorb", (*state, scores, v), names=NAMES))
        state = right.absorb(state, scores, v)
    return calls


def scores_of(draw: st.DrawFn, shape: list[int], dtype: torch.dtype) -> Tensor:
    """Scores on a level of their own in each row; some are hidden, in some rows all."""
    scores = numbers(draw, shape, dtype)
    levels = [draw(st.sampled_from(LEVELS[dtype])) for _ in range(math.prod(shape[:-1]))]
    scores = scores + torch.tensor(levels, dtype=dtype).view(*shape[:-1], 1)
    if draw(st.booleans()):
        scores = scores.masked_fill(~masks(draw, shape), HIDDEN)
    return scores


@st.composite
def _absorbed(draw: st.DrawFn) -> Named:
    lead, dtype = leading(draw), draw(st.sampled_from(FLOATS))
    num_queries, d = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    state = right.nothing_yet(torch.zeros(*lead, num_queries, d, dtype=dtype))
    for chunk in range(2):
        num_keys = draw(st.integers(1, 3))
        scores = scores_of(draw, [*lead, num_queries, num_keys], dtype)
        v = numbers(draw, [*lead, num_keys, d], dtype)
        if chunk or not draw(st.booleans()):
            break
        state = right.absorb(state, scores, v)
    return Named("absorb", (*state, scores, v), names=NAMES)


def _in_parts(absorb: Callable) -> Callable:
    return lambda m, l, a, scores, v: absorb((m, l, a), scores, v)  # noqa: E741


def _nan_of(call: Call) -> str:
    row_max, _, _, scores, _ = call.args
    if (torch.maximum(row_max, scores.amax(-1, keepdim=True)) == HIDDEN).any():
        return (
            "Where a row has met no visible key its largest score is -inf, and -inf - (-inf) is "
            "not a number: subtract 0 there instead"
        )
    return (
        "Subtract the largest score of old and new together, from all scores and from the old "
        "largest one, before exp, so that no power is above 1: decay is exp(old largest - new "
        "largest)"
    )


def _size(call: Call) -> float:
    row_max, total, output, scores, v = call.args
    return largest(row_max, scores) * largest(total) * largest(output, v)


def _absorbing(absorb: Callable) -> Answer:
    return results(_in_parts(absorb), STATE, _nan_of)


def _wrong(
    new_max: Callable[[Tensor, Tensor], Tensor] = torch.maximum,
    kept: Callable[[Tensor], Tensor] = torch.clone,
    subtracted: Callable[[Tensor], Tensor] = torch.clone,
    decay: Callable[[Tensor, Tensor], Tensor] = lambda old, shift: torch.exp(old - shift),
    decay_total: bool = True,
    decay_output: bool = True,
    add_total: Callable[[Tensor], Tensor] = lambda weights: weights.sum(-1, keepdim=True),
    add_output: Callable[..., Tensor] = lambda weights, v, scores: weights @ v,
    finished: bool = False,
) -> Callable:
    """`absorb`, with what may go wrong in it as arguments."""

    def absorb(state: State, scores: Tensor, v: Tensor) -> State:
        row_max, total, output = state
        largest = new_max(row_max, scores.amax(dim=-1, keepdim=True))
        shift = subtracted(largest.masked_fill(largest == HIDDEN, 0.0))
        factor, weights = decay(row_max, shift), torch.exp(scores - shift)
        total = total * (factor if decay_total else 1.0) + add_total(weights)
        output = output * (factor if decay_output else 1.0) + add_output(weights, v, scores)
        return kept(largest), total, output / total if finished else output

    return absorb


SCALE = (
    "is not scaled down: all that was added up relative to the old largest score must be "
    "multiplied by exp(old largest - new largest)."
)
WRONG_ABSORBS = [
    (_wrong(decay_total=False, decay_output=False), f"What is old {SCALE}"),
    (_wrong(decay_total=False), f"The old sum {SCALE}"),
    (_wrong(decay_output=False), f"The old weighted sum {SCALE}"),
    (_wrong(add_total=lambda weights: 0.0), "The new weights are not in the sum."),
    (_wrong(add_output=lambda *_: 0.0), "The new values are not in it."),
    (_wrong(finished=True), "It is divided by the sum: that comes at the very end."),
    (
        _wrong(new_max=lambda old, new: new),
        "That is the largest of the new scores only; the old largest one counts, too.",
    ),
    (_wrong(new_max=lambda old, new: old), "The largest score was not brought up to date."),
    (
        _wrong(subtracted=torch.zeros_like),
        "No largest score is subtracted before exp: large scores overflow.",
    ),
    (
        _wrong(new_max=lambda old, new: torch.maximum(old, new.amax())),
        "Each row has a largest score of its own: amax over dim=-1 with keepdim=True.",
    ),
    (
        _wrong(kept=lambda largest: largest.masked_fill(largest == HIDDEN, 0.0)),
        "0 takes the place of -inf only for subtracting: the state keeps the -inf, or scores of "
        "-2000 that come later would seem to be small.",
    ),
    (
        _wrong(add_total=lambda weights: weights.mean(-1, keepdim=True)),
        "That is the mean of the new weights; it is their sum that is added.",
    ),
    *(
        (
            _wrong(add_output=lambda weights, v, scores, softmax=softmax: softmax(scores) @ v),
            "The new weights are divided by their sum: that comes at the very end.",
        )
        for softmax in (softmax, partial(torch.softmax, dim=-1))
    ),
]


@verdict
def check_absorb(absorb: Callable[[State, Tensor, Tensor], State]) -> str:
    """Chapter 08, exercise 1. Returns a verdict; raises AssertionError on a wrong state."""
    expected = _absorbing(right.absorb)
    judge(
        _absorbing(absorb),
        expected,
        _absorbed(),
        [(_absorbing(wrong), advice) for wrong, advice in WRONG_ABSORBS],
        first=[call for chunks in CHUNKS.values() for call in _told(chunks)],
        exact=roughly(expected, _size),
        number=100,
    )

    def walk(absorb: Callable) -> Answer:
        def two_chunks(*given: Tensor) -> Tensor:
            state = right.nothing_yet(torch.zeros(3, 2, dtype=torch.float64))
            for scores, v in (given[:2], given[2:]):
                state = absorb(state, scores, v)
            return joined(*right.finish(state))

        return gradients(two_chunks)

    given = random(0, 3, 2), random(1, 2, 2), random(2, 3, 4), random(3, 4, 2)
    steep = Call("Two chunks, absorbed and finished:", given)
    judge(walk(absorb), walk(right.absorb), st.just(steep), first=[steep], number=1)

    def use(_: nn.Module, device: torch.device) -> tuple:
        state = right.nothing_yet(torch.zeros(2, 3, 4, device=device))
        return absorb(state, torch.zeros(2, 3, 5, device=device), torch.ones(5, 4, device=device))

    follows_its_device(use, "absorb")
    return "absorb is right: any chunks, huge scores, hidden keys, and rows that see nothing."
