"""What the check cell of fewer heads calls (chapter 09)."""

from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from ....checks.common import verdict
from ....checks.elsewhere import beyond_the_card
from ....checks.inputs import Call, random
from ....checks.judged import calling, judge
from ..grouped_heads import pool_heads as right


@st.composite
def _weights(draw: st.DrawFn) -> Call:
    num_kv_heads, size, d_head, d_model = (draw(st.integers(1, most)) for most in (3, 6, 3, 5))
    num_heads, dtype = num_kv_heads * size, draw(st.sampled_from((torch.float64, torch.float32)))
    weight = random(draw(st.integers(0, 9)), num_heads * d_head, d_model, dtype=dtype)
    return Call("pool_heads", (weight, num_heads, num_kv_heads))


def _heads(call: Call) -> Tensor:
    """The weight as (G, H / G, d, D)."""
    weight, num_heads, num_kv_heads = call.args
    return weight.unflatten(0, (num_kv_heads, num_heads // num_kv_heads, -1))


def _far_apart(call: Call) -> Tensor:
    weight, num_heads, num_kv_heads = call.args
    heads = weight.unflatten(0, (num_heads // num_kv_heads, num_kv_heads, -1))
    return heads.mean(0).flatten(0, 1)


def _rows(call: Call) -> Tensor:
    weight, num_heads, num_kv_heads = call.args
    return weight.unflatten(0, (-1, num_heads // num_kv_heads)).mean(1)


def _every_nth(call: Call) -> Tensor:
    weight, num_heads, num_kv_heads = call.args
    return weight[:: num_heads // num_kv_heads]


def _over(count: Callable[[int, int], int]) -> Callable[[Call], Tensor]:
    return lambda call: _heads(call).sum(1).flatten(0, 1) / count(*call.args[1:])


def _one_of(head: int) -> Callable[[Call], Tensor]:
    return lambda call: _heads(call)[:, head].flatten(0, 1)


WRONG = [
    (
        _over(lambda h, g: 1),
        "These are sums. The queries expect keys of the old size: take the mean.",
    ),
    (_one_of(0), "This is the first head of each group, not the mean of the group."),
    (_one_of(-1), "This is the last head of each group, not the mean of the group."),
    (
        _rows,
        "Rows that follow one another were averaged: they belong to one head. A head is d_head "
        "rows, and the first rows of two heads belong together.",
    ),
    (
        _far_apart,
        "Each group must hold heads that follow one another (0 and 1, 2 and 3), because query head "
        "h asks key head h // group size. Here heads far apart were pooled.",
    ),
    (_over(lambda h, g: g), "The sum is divided by G. A group has H / G heads."),
    (_over(lambda h, g: h), "The sum is divided by H. A group has H / G heads."),
    (_every_nth, "These are single rows of the weight, not means."),
    (lambda call: _heads(call).amax(1).flatten(0, 1), "This is the largest of each group."),
    (lambda call: _heads(call).mean(1).flip(0).flatten(0, 1), "The groups are in reverse order."),
    (
        lambda call: _heads(call).float().mean(1).flatten(0, 1).to(call.args[0].dtype),
        "That is right to 7 digits only, as in float32. Keep the dtype of the weight.",
    ),
]


@verdict
def check_pool_heads(pool_heads: Callable[[Tensor, int, int], Tensor]) -> str:
    """Chapter 09, exercise 1. Returns a verdict; raises AssertionError on wrong weights."""
    rows = [[1.0, 2, 0], [3, 0, 5], [7, 4, 1], [0, 6, 2]]
    first = [Call("pool_heads", (torch.tensor(rows), *heads)) for heads in ((2, 1), (4, 2))]
    expected = calling(right)
    judge(
        calling(pool_heads),
        expected,
        _weights(),
        WRONG,
        first=first,
        exact=lambda call: expected(call.double()),
        number=80,
        advice="It is the mean of each group of H / G heads; head h is the rows h * d to "
        "(h + 1) * d of the weight, where d is the number of rows divided by H.",
    )

    def use(_: nn.Module, device: torch.device) -> Tensor:
        return pool_heads(torch.empty(12, 5, device=device), 4, 2)

    more = beyond_the_card(use, "pool_heads")
    return (
        f"pool_heads is right for groups of any size, from all heads together to each alone.{more}"
    )
