"""What the check cells of sums over the ranks call: f and g, a feed-forward block (chapter 11)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ....checks.common import has_shape, refuse_known, verdict
from ....transformer import DecoderLayer, FeedForward
from ..groups import Group
from ..tensor_parallel import split_layer
from .common import compare, on_all_ranks


@verdict
def check_regions(
    copy_to: Callable[[Tensor, Group], Tensor], reduce_from: Callable[[Tensor, Group], Tensor]
) -> str:
    """Chapter 11, exercise 2. Returns a verdict; raises AssertionError on a wrong sum."""
    torch.manual_seed(0)
    for size in (2, 3, 1):
        x, weights = torch.randn(4).double(), torch.randn(size, 4).double()

        def program(group: Group, x: Tensor = x, weights: Tensor = weights) -> tuple:
            mine = x.clone().requires_grad_()
            copied = copy_to(mine, group)
            after_f = len(group.calls)
            part = copied * weights[group.rank]
            part.retain_grad()
            total = reduce_from(part, group)
            if not isinstance(total, Tensor):
                raise AssertionError(f"reduce_from gave {total!r}. Does g return its result?")
            after_g = len(group.calls)
            (total**2).sum().backward()
            count = after_f, after_g - after_f, len(group.calls) - after_g
            return copied.detach(), total.detach(), part.grad, mine.grad, count

        whole = x * weights.sum(0)
        for rank, (copied, total, of_part, of_x, count) in enumerate(on_all_ranks(size, program)):
            who = f"Rank {rank} of {size}: "
            compare(copied, x, who + "copy_to gave back", "Forward, f is the identity.")
            hint = "Forward, g is the sum over all ranks."
            compare(total, whole, who + "reduce_from gave", hint)
            hint = "Backward, g hands the gradient on as it is: every rank has it already."
            compare(of_part, 2 * whole, who + "through reduce_from, the gradient is", hint, size)
            hint = "Backward, f adds up what comes back from all ranks."
            expected = 2 * whole * weights.sum(0)
            compare(of_x, expected, who + "through copy_to, the gradient is", hint, size)
            if count != (0, 1, 1):
                raise AssertionError(
                    f"{who}all-reduces in copy_to, in reduce_from and backward: {count}; expected "
                    "0, 1 and 1."
                )
    return "copy_to and reduce_from are right, forward and backward, with one all-reduce each way."


def _part_of_block(whole: DecoderLayer, group: Group) -> FeedForward:
    """This rank's part of the layer's feed-forward block."""
    part = FeedForward(2, 2).double()
    mine = split_layer(whole.state_dict(), group, whole.attention.num_heads)
    for name, parameter in part.named_parameters():
        parameter.data = mine[f"feed_forward.{name}"].clone()
    return part


@verdict
def check_parallel_feed_forward(
    parallel_feed_forward: Callable[[Tensor, nn.Module, Group], Tensor],
) -> str:
    """Chapter 11, exercise 3. Returns a verdict; raises AssertionError on a wrong block."""
    torch.manual_seed(0)
    whole = DecoderLayer(8, 12, 4).double()
    block, x = whole.feed_forward, torch.randn(2, 3, 8).double()
    expected_x = x.clone().requires_grad_()
    expected = block(expected_x)
    (expected**2).sum().backward()
    for size in (2, 4, 1):

        def program(group: Group) -> tuple:
            part, mine = _part_of_block(whole, group), x.clone().requires_grad_()
            y = parallel_feed_forward(mine, part, group)
            forward = len(group.calls)
            if isinstance(y, Tensor) and y.requires_grad:
                (y**2).sum().backward()
            return y, mine.grad, part.fc2.bias.grad, (forward, len(group.calls) - forward)

        for rank, (y, of_x, of_bias, count) in enumerate(on_all_ranks(size, program)):
            who = f"Rank {rank} of {size}: "
            _check_block(y, expected.detach(), block, who, size)
            hint = (
                "x comes from every rank's copy: its gradient is a sum. Did x go through copy_to?"
            )
            compare(of_x, expected_x.grad, who + "the gradient of x is", hint)
            hint = "Added whole, after the sum, it has its whole gradient on every rank."
            compare(of_bias, block.fc2.bias.grad, who + "the gradient of fc2.bias is", hint, size)
            if count != (1, 1):
                raise AssertionError(
                    f"{who}{count[0]} all-reduces forward and {count[1]} backward; expected one "
                    "each way."
                )
    return "parallel_feed_forward is right: values and gradients, one all-reduce each way."


def _check_block(y: object, expected: Tensor, block: FeedForward, who: str, size: int) -> None:
    """Raise AssertionError, naming the usual mistakes, unless y is what the block gives."""
    if has_shape(y, expected.shape) and size > 1:
        bias, once = block.fc2.bias.detach().expand_as(expected), "Add it once, after the sum."
        mistakes = [
            ((size - 1) * bias, f"{who}fc2.bias is in the result {size} times. {once}"),
            (-bias, f"{who}fc2.bias is missing. {once}"),
        ]
        refuse_known(y.detach() - expected, mistakes, atol=1e-8)
    found = y.detach() if isinstance(y, Tensor) else y
    hint = "fc1, ReLU and fc2 without its bias make this rank's part, then the parts are added up."
    compare(found, expected, who + "the block gives", hint)
