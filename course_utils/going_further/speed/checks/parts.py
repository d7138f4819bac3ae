"""What the check cell of a product in parts calls (chapter 07)."""

from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ....checks.common import verdict
from ....checks.inputs import Call, every_second_number, in_one_piece, tensors, written
from ....checks.judged import Answer, calling, judge
from .. import roofline as right


class Products(TorchDispatchMode):
    """Notes, while it is active, the left factors of `torch.bmm`, and what else makes a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[Tensor] = []
        self.copied: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        given = {x.untyped_storage().data_ptr() for x in args if isinstance(x, Tensor)}
        if name == "bmm":
            self.left.append(args[0])
        elif name == "copy_" or (
            isinstance(result, Tensor)
            and result.untyped_storage().data_ptr() not in given
            and "empty" not in name
        ):
            self.copied.add(name)
        return result


def _in_one_bmm(in_parts: Callable[[Tensor, Tensor, int], Tensor]) -> Answer:
    """The answer to a `Call`: "right" if one product of the weight's own memory is all it takes."""

    def answer(call: Call) -> str:
        weight, x, parts = call.args
        with Products() as noted:
            in_parts(weight, x, parts)
        if len(noted.left) != 1:
            raise AssertionError(
                f"calls torch.bmm {len(noted.left)} times. One call for all parts: only within a "
                "call does PyTorch give them to its threads"
            )
        if noted.copied:
            raise AssertionError(
                f"copies something ({', '.join(sorted(noted.copied))}). `view` and `expand` give "
                "the weight and x their new shapes where they lie"
            )
        (left,) = noted.left
        if left.untyped_storage().data_ptr() != weight.untyped_storage().data_ptr():
            raise AssertionError("has x on the left of torch.bmm. The weight belongs there")
        wanted = (parts, weight.size(0) // parts, weight.size(1))
        if left.shape != wanted:
            raise AssertionError(
                f"gives torch.bmm a left side of shape {tuple(left.shape)}, expected {wanted}: "
                "(parts, D_out / parts, D_in)"
            )
        return "right"

    return answer


@st.composite
def _products(draw: st.DrawFn) -> Call:
    parts = draw(st.sampled_from((1, 2, 3, 1, 2, 3, 8)))
    rows, d_in = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    dtype = draw(st.sampled_from((torch.float32, torch.float64)))
    above = draw(st.integers(0, 1))
    weight = draw(tensors((above + parts * rows, d_in), (dtype,), layouts=(in_one_piece,)))
    x = draw(tensors((1, d_in), (dtype,), layouts=(in_one_piece, every_second_number)))
    return Call("in_parts", (weight[above:], x, parts))


def _interleaved(weight: Tensor, x: Tensor, parts: int) -> Tensor:
    return right.in_parts(weight, x, parts).view(-1, parts).T.reshape(1, -1)


def _turned(weight: Tensor, x: Tensor, parts: int) -> Tensor:
    return right.in_parts(weight, x, parts).view(parts, -1).T.reshape(1, -1)


WRONG_PRODUCTS = [
    (
        calling(_interleaved),
        "The right numbers in another order: each part holds rows of the weight that follow one "
        "another.",
    ),
    (
        calling(_turned),
        "The right numbers in another order: those of the first part come first, then those of "
        "the second.",
    ),
]


@verdict
def check_in_parts(in_parts: Callable[[Tensor, Tensor, int], Tensor]) -> str:
    """Chapter 07, exercise 2. Returns a verdict; raises AssertionError on a wrong product."""
    weight, x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [3.0, 4.0]]), torch.ones(1, 2)
    first = [Call("in_parts", (weight, x, parts)) for parts in (2, 1, 4)]
    first.append(Call("in_parts", (torch.arange(12.0).view(6, 2), x, 3)))
    expected = calling(right.in_parts)
    judge(
        calling(in_parts),
        expected,
        _products(),
        WRONG_PRODUCTS,
        first=first,
        exact=lambda call: expected(call.double()),
        advice="It is x @ weight.T.",
    )
    manner = _in_one_bmm(in_parts), _in_one_bmm(right.in_parts)
    judge(*manner, _products(), first=first, number=20)
    for row in (x, -2 * x, 3 * x):  # as token after token
        if not torch.equal(found := in_parts(weight, row, 2), row @ weight.T):
            raise AssertionError(
                f"With the same weight and another x, in_parts gives {written(found)}, expected "
                f"{written(row @ weight.T)}. Keep nothing from one call to the next."
            )
    return "in_parts is right: the same product, in one call, and nothing is copied."
