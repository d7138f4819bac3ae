"""What the check cell of the feed-forward block in parts calls (chapter 11)."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from ....checks.common import verdict
from ....checks.inputs import random
from ....checks.judged import Answer, judge
from ....transformer import FeedForward
from .. import tensor_parallel as right
from ..groups import Group
from ..tensor_parallel import copy_to, reduce_from
from .common import OnRanks, gradients, on_ranks, tensor_from

Block = Callable[[Tensor, nn.Module, Group], Tensor]
NAME = "parallel_feed_forward"
OUTPUT = "the sum of fc1, ReLU and fc2 without its bias, and then the bias"
WEIGHTS = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")


@st.composite
def _cases(draw: st.DrawFn) -> OnRanks:
    size, seed, d_model = draw(st.integers(1, 4)), draw(st.integers(0, 9)), draw(st.integers(1, 5))
    shape = draw(st.lists(st.integers(1, 3), max_size=3))
    dtype = draw(st.sampled_from((torch.float64, torch.float32)))
    return OnRanks(NAME, size, (random(seed, *shape, d_model).to(dtype),), seed)


FIRST = [OnRanks(NAME, size, (random(0, 2, 3, 4),)) for size in (2, 4, 1)]


def _part(case: OnRanks, group: Group) -> FeedForward:
    """This rank's part of a block whose hidden units are two or three for each rank."""
    d_model, units = case.tensors[0].size(-1), 2 + case.seed % 2
    part = FeedForward(d_model, units).to(case.tensors[0].dtype)
    for number, name in enumerate(WEIGHTS):
        parameter = part.get_parameter(name)
        own = 0 if name == "fc2.bias" else 1 + group.rank
        parameter.data = random(100 * case.seed + 10 * own + number, *parameter.shape).to(
            parameter.dtype
        )
    return part


def _played(block: Block) -> Answer:
    """What the block gives, the gradients, and how often the ranks met."""

    def program(case: OnRanks, group: Group) -> dict[str, object]:
        part, x = _part(case, group), case.tensors[0].clone().requires_grad_()
        before = {name: weight.clone() for name, weight in part.state_dict().items()}
        y = tensor_from(block, (x, part, group), x.shape, x.dtype)
        calls = len(group.calls)
        for name, weight in before.items():
            if not torch.equal(weight, part.state_dict()[name]):
                raise AssertionError(f"changes {name} of the part when it is called")
        found: dict[str, object] = {OUTPUT: y.detach()}
        leaves = [x, *(part.get_parameter(name) for name in WEIGHTS)]
        for name, gradient in zip(("x", *WEIGHTS), gradients(y, leaves), strict=True):
            found[f"the gradient of {name}"] = gradient
        return found | {
            "how many all-reduces forward and backward": [calls, len(group.calls) - calls],
        }

    return on_ranks(program)


def _block(
    x: Tensor,
    part: nn.Module,
    group: Group,
    f: Callable = copy_to,
    g: Callable = reduce_from,
    relu: Callable = torch.relu,
    fc1_bias: bool = True,
    fc2_bias: str = "after the sum",
) -> Tensor:
    """The block, with what may go wrong in it as arguments."""
    bias = part.fc2.bias
    hidden = relu(F.linear(f(x, group), part.fc1.weight, part.fc1.bias if fc1_bias else None))
    y = F.linear(hidden, part.fc2.weight)
    if "on every rank" in fc2_bias:
        y = y + bias
    if fc2_bias == "in shares":
        y = y + bias / group.size
    if fc2_bias == "on rank 0":
        y = y + bias if group.rank == 0 else y
    y = g(y, group)
    return y + bias if "after the sum" in fc2_bias else y


def _alone(x: Tensor, group: Group) -> Tensor:
    return x


def _without_gradient(x: Tensor, group: Group) -> Tensor:
    return group.all_reduce(x)


ONCE = "Add it once, after the sum: every rank has all of it, and its whole gradient."
MISTAKES: list[tuple[dict, str]] = [
    ({"fc2_bias": "nowhere"}, f"fc2.bias is missing. {ONCE}"),
    ({"fc2_bias": "on every rank"}, f"fc2.bias is in the sum once for each rank. {ONCE}"),
    (
        {"fc2_bias": "on every rank and after the sum"},
        f"fc2.bias is in the sum once for each rank, and once more after it. {ONCE}",
    ),
    (
        {"fc2_bias": "in shares"},
        f"The gradient of fc2.bias is as many times too small as there are ranks. {ONCE}",
    ),
    ({"fc2_bias": "on rank 0"}, f"Only rank 0 learns its fc2.bias then. {ONCE}"),
    ({"fc1_bias": False}, "fc1.bias is missing: each rank has its hidden units' part of it."),
    ({"relu": lambda x: x}, "The ReLU is missing: it comes after fc1, on this rank's units."),
    (
        {"f": _alone},
        "x comes from every rank's copy: its gradient is a sum. Did x go through copy_to?",
    ),
    ({"g": _alone}, "The parts are not added up: reduce_from is missing."),
    ({"g": copy_to}, "The parts have to be added up by reduce_from, not by copy_to."),
    (
        {"f": reduce_from},
        "x has to go through copy_to, not reduce_from: forward it is the same on every rank.",
    ),
    ({"g": _without_gradient}, "group.all_reduce passes no gradient: use reduce_from."),
]


@verdict
def check_parallel_feed_forward(parallel_feed_forward: Block) -> str:
    """Chapter 11, exercise 3. Returns a verdict; raises AssertionError on a wrong block."""
    expected = _played(right.parallel_feed_forward)
    judge(
        _played(parallel_feed_forward),
        expected,
        _cases(),
        [(_played(partial(_block, **change)), advice) for change, advice in MISTAKES],
        first=FIRST,
        exact=lambda case: expected(case.double()),
        number=40,
    )
    return "parallel_feed_forward is right: values and gradients, one all-reduce each way."
