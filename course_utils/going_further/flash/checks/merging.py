"""What the check cell of merged parts calls (chapter 08)."""

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
from .chunks import LEVELS, scores_of
from .common import FLOATS, HIDDEN, Named, joined, largest, leading, numbers, results, roughly


@st.composite
def _parts(draw: st.DrawFn) -> Named:
    """Outputs and log-sum-exps of parts; where a part saw no key, 0 and -inf."""
    lead, dtype = leading(draw), draw(st.sampled_from(FLOATS))
    num_parts, num_queries, d = (draw(st.integers(1, most)) for most in (6, 3, 3))
    outputs = numbers(draw, [num_parts, *lead, num_queries, d], dtype)
    lses = scores_of(draw, [num_parts, *lead, num_queries], dtype)
    lses = lses + draw(st.sampled_from(LEVELS[dtype]))
    outputs = outputs.masked_fill((lses == HIDDEN).unsqueeze(-1), 0.0)
    return Named("merge", (outputs, lses), names=("outputs", "lses"))


def _merging(merge: Callable) -> Answer:
    def why(call: Call) -> str:
        if (call.args[1] == HIDDEN).all(0).any():
            return (
                "Where every part has -inf, a plain softmax divides 0 by 0, and -inf - (-inf) is "
                "not a number. `softmax`, from notebook 01, minds that"
            )
        return (
            "Large log-sum-exps overflow in exp, and where a part has -inf, 0 times infinity is "
            "not a number. `softmax`, from notebook 01, and `logsumexp` mind both"
        )

    return results(merge, ("the output", "the log-sum-exp"), why)


def _weighted(shares: Tensor, outputs: Tensor) -> Tensor:
    return (shares.unsqueeze(-1) * outputs).sum(dim=0)


def _with(
    output: Callable[[Tensor, Tensor], Tensor] | None = None,
    lse: Callable[[Tensor], Tensor] = lambda lses: lses.logsumexp(dim=0),
) -> Callable:
    """`merge` with another output, or another log-sum-exp."""

    def merge(outputs: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
        merged = right.merge(outputs, lses)[0] if output is None else output(outputs, lses)
        return merged, lse(lses)

    return merge


WRONG_MERGES = [
    *(
        (
            _with(lambda outputs, lses, softmax=softmax: _weighted(softmax(lses), outputs)),
            "The weights of one query must add up to 1 over the parts, the first dimension.",
        )
        for softmax in (softmax, partial(torch.softmax, dim=-1))
    ),
    (
        _with(lambda outputs, lses: outputs.sum(dim=0)),
        "That is the sum; the parts' weights must add up to 1.",
    ),
    (
        _with(lambda outputs, lses: outputs.mean(dim=0)),
        "That is the mean; a part counts by the sum of its powers, exp(lse).",
    ),
    (
        _with(lambda outputs, lses: _weighted((lses - lses.logsumexp(0)).sigmoid(), outputs)),
        "A part's share is exp(lse) divided by the sum of all exp(lse).",
    ),
    (
        _with(lse=lambda lses: lses.sum(dim=0)),
        "That is their sum, and it is the powers that add up, not the logarithms.",
    ),
    (_with(lse=lambda lses: lses.mean(dim=0)), "That is their mean; it is the powers that add up."),
    (_with(lse=lambda lses: lses.amax(dim=0)), "That is the largest of them."),
    (
        _with(lse=lambda lses: lses.exp().sum(dim=0).log()),
        "exp(lse) overflows where it is large: `logsumexp` subtracts the largest first.",
    ),
    (
        _with(lse=lambda lses: lses.logsumexp(dim=0).exp()),
        "The logarithm is missing: that is the sum of the powers.",
    ),
    (
        _with(lse=lambda lses: lses.logsumexp(dim=0).masked_fill(lses.amax(0) == HIDDEN, 0.0)),
        "Where no part saw a key there is no power, and the logarithm of 0 is -inf, not 0.",
    ),
]


@verdict
def check_merge(merge: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> str:
    """Chapter 08, exercise 3. Returns a verdict; raises AssertionError on a wrong merge."""
    easy = torch.tensor([[[2.0], [0.0]], [[6.0], [4.0]]]), torch.tensor([[0.0, 1.0], [0.0, 3.0]])
    expected = _merging(right.merge)
    judge(
        _merging(merge),
        expected,
        _parts(),
        [(_merging(wrong), advice) for wrong, advice in WRONG_MERGES],
        first=[Named("merge", easy, names=("outputs", "lses"))],
        exact=roughly(expected, lambda call: largest(call.args[0]) * largest(call.args[1])),
        number=100,
    )
    steep = Call("merge", (random(0, 3, 2, 4), random(1, 3, 2)))
    both = (gradients(lambda *parts, m=m: joined(*m(*parts))) for m in (merge, right.merge))
    judge(*both, st.just(steep), first=[steep], number=1)

    def use(_: nn.Module, device: torch.device) -> tuple:
        return merge(torch.zeros(3, 2, 4, device=device), torch.zeros(3, 2, device=device))

    follows_its_device(use, "merge")
    return "merge is right: any number of parts, large scores, and parts that saw nothing."
