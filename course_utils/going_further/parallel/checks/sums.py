"""What the check cell of sums over the ranks calls: f and g (chapter 11)."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from ....checks.common import verdict
from ....checks.inputs import column_by_column, in_one_piece, random
from ....checks.judged import Answer, judge
from ..groups import Group
from ..tensor_parallel import copy_to, reduce_from
from .common import OnRanks, gradients, on_ranks, tensor_from

Region = Callable[[Tensor, Group], Tensor]


@st.composite
def _cases(draw: st.DrawFn) -> OnRanks:
    size, seed = draw(st.integers(1, 4)), draw(st.integers(0, 9))
    shape = draw(st.lists(st.integers(1, 3), max_size=3))
    dtype = draw(st.sampled_from((torch.float64, torch.float32)))
    layout = draw(st.sampled_from((in_one_piece, column_by_column)))
    return _case(size, layout(random(seed, *shape).to(dtype)), seed)


def _case(size: int, x: Tensor, seed: int = 0) -> OnRanks:
    factor = "factor" if seed else "(rank + 1)"
    return OnRanks(f"reduce_from({factor} * copy_to(x))", size, (x,), seed)


FIRST = [_case(size, torch.tensor([1.0, -2.0], dtype=torch.float64)) for size in (2, 3, 1)]


def _played(copy_to: Region, reduce_from: Region) -> Answer:
    """What comes of f, of a factor of each rank's own, and of g."""

    def program(case: OnRanks, group: Group) -> dict[str, object]:
        x = case.tensors[0].clone().requires_grad_()
        seed = case.seed + 100 + group.rank
        factor = random(seed, *x.shape).to(x.dtype) if case.seed else group.rank + 1
        if case.seed == 1 and group.rank == 0:
            factor = torch.zeros_like(x)  # nothing to add, and the ranks meet all the same
        with _of("copy_to"):
            copied = tensor_from(copy_to, (x, group), x.shape, x.dtype)
            if not copied.requires_grad:
                raise AssertionError("gives a result that has no gradient")
        calls, part = [0, len(group.calls)], copied * factor
        with _of("reduce_from"):
            total = tensor_from(reduce_from, (part, group), x.shape, x.dtype)
            calls.append(len(group.calls))
            of_part, of_x = gradients(total, [part, x])
        calls.append(len(group.calls))
        return {
            "what copy_to gives: forward, f is the identity": copied.detach(),
            "what reduce_from gives: forward, g is the sum over all ranks": total.detach(),
            "the gradient that reduce_from hands back: g hands it on as it is": of_part,
            "the gradient that copy_to hands back: f adds up what comes back from all": of_x,
            "how many all-reduces in copy_to, in reduce_from, and backward": [
                after - before for before, after in itertools.pairwise(calls)
            ],
        }

    return on_ranks(program)


@contextlib.contextmanager
def _of(name: str) -> Iterator[None]:
    """Says in a complaint which of the two functions it is about."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{name} {error}") from error


def _sum(x: Tensor, group: Group) -> Tensor:
    return group.all_reduce(x)


def _same(x: Tensor, group: Group) -> Tensor:
    return x.clone()


def _mean(x: Tensor, group: Group) -> Tensor:
    return group.all_reduce(x) / group.size


def _dropped(x: Tensor, group: Group) -> Tensor:
    group.all_reduce(x)
    return x.clone()


def _region(forward: Region, backward: Region) -> Region:
    class Region(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
            ctx.group = group
            return forward(x, group)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
            return backward(gradient, ctx.group), None

    return Region.apply


def _f(forward: Region = _same, backward: Region = _sum) -> Answer:
    return _played(_region(forward, backward), reduce_from)


def _g(forward: Region = _sum, backward: Region = _same) -> Answer:
    return _played(copy_to, _region(forward, backward))


NEW = "group.all_reduce gives a new tensor, and leaves the old one as it is: use what it returns."
AS_A_MEAN = "It is divided by the number of ranks, as a mean over the ranks would be."
EVERYBODY = "Backward, g hands the gradient on as it is: every rank has it already."
WRONG = [
    (_f(backward=_dropped), NEW),
    (_g(forward=_dropped), NEW),
    (_g(forward=_dropped, backward=_sum), NEW),
    (_f(backward=_mean), AS_A_MEAN),
    (_g(forward=_mean), AS_A_MEAN),
    (_g(backward=_sum), f"That is the number of ranks times too large. {EVERYBODY}"),
    (_g(backward=_mean), f"The sum and the division cancel each other out. {EVERYBODY}"),
    (
        _g(forward=_same, backward=_sum),
        "That is f. g is the other way round: all-reduce forward, the gradient as it is backward.",
    ),
    (
        _f(forward=_sum, backward=_same),
        "That is g. f is the other way round: the identity forward, all-reduce backward.",
    ),
]


@verdict
def check_regions(copy_to: Region, reduce_from: Region) -> str:
    """Chapter 11, exercise 2. Returns a verdict; raises AssertionError on a wrong sum."""
    right = _f()
    judge(
        _played(copy_to, reduce_from),
        right,
        _cases(),
        WRONG,
        first=FIRST,
        exact=lambda case: right(case.double()),
        number=40,
    )
    return "copy_to and reduce_from are right, forward and backward, with one all-reduce each way."
