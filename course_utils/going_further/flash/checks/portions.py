"""What the check cells of portions of keys call: one more, and several merged (chapter 08)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ....attention import softmax
from ....checks.common import ask, difference, known, tensor, verdict
from ..flash_attention import State, finish, flash_attention, nothing_yet
from ..flash_attention import absorb as right_absorb
from .common import EXACT, HIDDEN, plain, several

ROWS = {  # scores of one query, in the portions in which they come
    "two keys, one at a time": [[1.0], [3.0]],
    "the largest first": [[5.0, 1.0], [2.0], [0.0, 4.0, 3.0]],
    "the largest last": [[0.0, 1.0], [2.0, 3.0], [9.0]],
    "scores of 2000": [[2000.0, 1990.0], [1995.0], [2001.0]],
    "scores of -2000": [[-2001.0], [-2000.0, -1999.0]],
    "a hidden key": [[1.0, HIDDEN], [2.0, 0.5]],
    "a portion of hidden keys, later": [[1.0, 2.0], [HIDDEN, HIDDEN], [0.5]],
    "a portion of hidden keys at the start": [[HIDDEN, HIDDEN], [-2000.0, -1999.0]],
    "hidden keys only": [[HIDDEN, HIDDEN], [HIDDEN]],
}


@verdict
def check_absorb(absorb: Callable[[State, Tensor, Tensor], State]) -> str:
    """Chapter 08, exercise 1. Returns a verdict; raises AssertionError on a wrong state."""
    torch.manual_seed(0)
    for name, portions in ROWS.items():
        q = torch.zeros(2, 3, 4, dtype=torch.float64)
        found = expected = nothing_yet(q)
        for number, portion in enumerate(portions, start=1):
            scores = torch.tensor(portion, dtype=torch.float64).expand(2, 3, -1).clone()
            v = torch.randn(2, len(portion), 4, dtype=torch.float64)
            before = found
            given = tuple(part.clone() for part in found)
            found = ask(absorb, given, scores.clone(), v)
            found = several(found, ("m", "l", "a"))
            expected = right_absorb(expected, scores, v)
            where = f"{name}, portion {number} {portion}"
            _judge_state(found, expected, before, scores, v, where)
    return "absorb is right: any portions, huge scores, hidden keys, and rows that see nothing."


def _judge_state(
    found: tuple, expected: State, before: State, scores: Tensor, v: Tensor, where: str
) -> None:
    names = ("m (the largest score)", "l (the sum)", "a (the weighted sum of values)")
    for part, right, name in zip(found, expected, names, strict=True):
        tensor(part, f"{where}: {name}", right.shape)
        if part.isnan().any():
            raise AssertionError(
                f"{where}: {name} is NaN. Where a row has met no visible key its largest score is "
                "-inf, and -inf - (-inf) is not a number: subtract 0 there instead."
                if (expected[0] == HIDDEN).any()
                else f"{where}: {name} is NaN. Subtract the largest score *so far* from all scores "
                "and from the old largest one before exp, so that no power is above 1: decay is "
                "exp(old largest - new largest)."
            )
        if part.isinf().any() and not right.isinf().any():
            raise AssertionError(
                f"{where}: {name} is infinite. Subtract the largest score of old *and* new before "
                "exp: then no power is above 1."
            )
    finished = zip(finish(found), finish(expected), strict=True)
    if not any(difference(*both, **EXACT) for both in finished):
        return
    row_max, total, output = before
    new_max = torch.maximum(row_max, scores.amax(dim=-1, keepdim=True))
    shift = new_max.masked_fill(new_max == HIDDEN, 0.0)
    weights, decay = torch.exp(scores - shift), torch.exp(row_max - shift)
    scale = (
        "is not scaled down: all that was added up relative to the old largest score must be "
        "multiplied by exp(old largest - new largest)."
    )
    mistakes = {
        1: [
            (total + weights.sum(-1, keepdim=True), f"The old sum {scale}"),
            (decay * total, "The new weights are not in it."),
        ],
        2: [
            (output + weights @ v, f"The old weighted sum {scale}"),
            (decay * output, "The new values are not in it."),
            (expected[2] / expected[1], "It is divided by the sum: that comes at the very end."),
        ],
        0: [
            (scores.amax(dim=-1, keepdim=True), "That is the largest of the new scores only."),
            (row_max, "It was not brought up to date."),
        ],
    }
    how = [difference(part, right, **EXACT) for part, right in zip(found, expected, strict=True)]
    for i, wrong in mistakes.items():
        if how[i] and (why := known(found[i], wrong, **EXACT)):
            raise AssertionError(f"{where}: {names[i]} {how[i]}. {why}")
    i = next(i for i in (0, 1, 2) if how[i])
    raise AssertionError(f"{where}: {names[i]} {how[i]}.")


@verdict
def check_merge(merge: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> str:
    """Chapter 08, exercise 3. Returns a verdict; raises AssertionError on a wrong merge."""
    torch.manual_seed(0)
    for loud, sizes, leading in ((1, (4, 1, 7), ()), (400, (3, 5), (2,)), (1, (3, 0, 2), (2, 2))):
        q = loud * torch.randn(*leading, 2, 4, dtype=torch.float64)
        k, v = torch.randn(2, *leading, sum(sizes), 4, dtype=torch.float64)
        parts = zip(k.split(sizes, dim=-2), v.split(sizes, dim=-2), strict=True)
        outputs, lses = map(
            torch.stack, zip(*(flash_attention(q, *part) for part in parts), strict=True)
        )
        found = several(ask(merge, outputs, lses), ("output", "log-sum-exp"))
        where = f"parts of {' and '.join(map(str, sizes))} keys" + ", large scores" * (loud > 1)
        _judge_merge(found, plain(q, k, v), outputs, lses, where)
    outputs, lses = torch.zeros(2, 3, 4), torch.full((2, 3), HIDDEN)
    found = several(ask(merge, outputs, lses), ("output", "log-sum-exp"))
    _judge_merge(found, (outputs[0], lses[0]), outputs, lses, "no part saw a key")
    return "merge is right: two parts and three, large scores, and parts that saw nothing."


def _judge_merge(found: tuple, right: tuple, outputs: Tensor, lses: Tensor, where: str) -> None:
    output = tensor(found[0], f"{where}: the output", right[0].shape)
    lse = tensor(found[1], f"{where}: the log-sum-exp", right[1].shape)
    if output.isnan().any() or lse.isnan().any():
        raise AssertionError(
            f"{where}: there is NaN. Large log-sum-exps overflow in exp, and where every part has "
            "-inf a softmax divides 0 by 0. `softmax`, from notebook 01, minds both."
        )
    if how := difference(output, right[0], **EXACT):
        mistakes = [
            (
                (softmax(lses).unsqueeze(-1) * outputs).sum(dim=0),
                " The weights of one query must add up to 1 over the parts, the first dimension.",
            ),
            (outputs.sum(dim=0), " That is the sum; the parts' weights must add up to 1."),
            (
                outputs.mean(dim=0),
                " That is the mean; a part counts by the sum of its powers, exp(lse).",
            ),
        ]
        raise AssertionError(f"{where}: the output {how}.{known(output, mistakes, **EXACT)}")
    if how := difference(lse, right[1], **EXACT):
        mistakes = [
            (
                lses.sum(dim=0),
                " That is their sum, and it is the powers that add up, not the logarithms.",
            ),
            (lses.amax(dim=0), " That is the largest of them."),
        ]
        raise AssertionError(f"{where}: the log-sum-exp {how}.{known(lse, mistakes, **EXACT)}")
