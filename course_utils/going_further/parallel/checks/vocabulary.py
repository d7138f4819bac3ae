"""What the check cells of the cut vocabulary call: a loss, and the next token (chapter 11)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ....checks.common import has_shape, shape_or_type, verdict
from ..groups import Group
from .common import compare, on_all_ranks


@verdict
def check_cross_entropy(cross_entropy: Callable[[Tensor, Tensor, Group], Tensor]) -> str:
    """Chapter 11, exercise 4. Returns a verdict; raises AssertionError on a wrong loss."""
    torch.manual_seed(0)
    everywhere = torch.tensor([[0, 11, 5, 6], [3, 4, 7, 8]])
    spread = torch.randn(2, 4, 12).double()
    # In these, the largest logit of a row is far above those of all other parts.
    peaked = spread + 2000 * F.one_hot(everywhere.flip(0), 12)
    on_rank_0 = everywhere % 3  # all others have no target, and still take part
    for size in (2, 3, 4, 1):
        for logits, targets in (
            (spread, everywhere),
            (peaked, everywhere),
            (spread, on_rank_0),
        ):
            mine = logits.clone().requires_grad_()
            expected = F.cross_entropy(mine.flatten(0, 1), targets.flatten())
            expected.backward()

            def program(group: Group, logits: Tensor = logits, targets: Tensor = targets) -> tuple:
                part = logits.chunk(group.size, dim=-1)[group.rank].clone().requires_grad_()
                loss = cross_entropy(part, targets.clone(), group)
                sent = sum(call.nbytes for call in group.calls)
                if isinstance(loss, Tensor) and loss.requires_grad:
                    loss.sum().backward()
                return loss, part.grad, sent

            for rank, (loss, gradient, sent) in enumerate(on_all_ranks(size, program)):
                who = f"Rank {rank} of {size}: "
                _check_loss(loss, expected.detach(), targets.numel(), who, size)
                wanted = mine.grad.chunk(size, dim=-1)[rank]
                hint = (
                    "It should be softmax less one-hot, over the number of targets. Sums that need "
                    "a gradient go through reduce_from; group.all_reduce passes none."
                )
                compare(gradient, wanted, who + "the gradient of its logits is", hint)
                if sent > 3 * targets.numel() * 8:
                    raise AssertionError(
                        f"{who}{sent} bytes were all-reduced for {targets.numel()} targets. "
                        "Three numbers per target are enough: the largest logit, the sum of "
                        "exponentials, the target's logit."
                    )
    return "cross_entropy is right, loss and gradient, and no logits are sent."


def _check_loss(loss: object, expected: Tensor, targets: int, who: str, size: int) -> None:
    if not has_shape(loss, ()):
        raise AssertionError(
            f"{who}expected one number, the mean over all targets; found {shape_or_type(loss)}."
        )
    if not loss.isfinite():
        raise AssertionError(
            f"{who}the loss is {loss.item()}. Subtract the largest logit of *all* ranks before the "
            "exponential."
        )
    if torch.isclose(loss.double(), targets * expected):
        raise AssertionError(f"{who}the loss is the sum over the targets. Expected their mean.")
    compare(
        loss.detach(),
        expected,
        who + "the loss is",
        "It is the log of the sum of all exponentials, plus the maximum, less the target's logit: "
        "the first two over all ranks, the third from the rank that has it.",
        size,
    )


@verdict
def check_greedy_token(greedy_token: Callable[[Tensor, Group], Tensor]) -> str:
    """Chapter 11, exercise 5. Returns a verdict; raises AssertionError on a wrong token."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 12, generator=generator)
    logits[0, 11], logits[1, 0] = 9, 9
    logits[2] -= 50  # all negative
    logits[3, [4, 7, 10]] = 8  # the same largest logit on several ranks
    logits[4, [1, 2]] = 8  # and twice on one
    expected = logits.argmax(dim=-1)
    for size in (2, 3, 4, 1):

        def program(group: Group) -> tuple:
            token = greedy_token(logits.chunk(group.size, dim=-1)[group.rank].clone(), group)
            return token, sum(call.nbytes for call in group.calls)

        ranks = on_all_ranks(size, program)
        for rank, (token, sent) in enumerate(ranks):
            who = f"Rank {rank} of {size}: "
            if not has_shape(token, expected.shape):
                raise AssertionError(
                    f"{who}expected ids (B,), here (6,); found {shape_or_type(token)}."
                )
            if token.dtype != torch.int64:
                raise AssertionError(f"{who}the ids are {token.dtype}, expected torch.int64.")
            others = [theirs for theirs, _ in ranks if isinstance(theirs, Tensor)]
            if any(not torch.equal(theirs, token) for theirs in others):
                raise AssertionError(
                    f"The ranks took different tokens: {[theirs.tolist() for theirs in others]}. "
                    "All must take the same, the likeliest of all ranks': an all-reduce finds it."
                )
            for row in (token != expected).nonzero().flatten().tolist():
                _explain_token(token[row].item(), logits[row], size, who)
            if sent > 16 * len(logits):
                raise AssertionError(
                    f"{who}{sent} bytes were all-reduced for {len(logits)} rows. Two numbers "
                    "per row are enough: the largest logit, and who has it."
                )
    return "greedy_token is right: first, last, negative and equal logits, two numbers a row."


def _explain_token(found: int, row: Tensor, size: int, who: str) -> None:
    expected, width = row.argmax().item(), len(row) // size
    if found != expected and 0 <= found < len(row) and row[found] == row[expected]:
        raise AssertionError(
            f"{who}of equal logits, token {found} was taken; the lowest id is {expected}, which is "
            "what argmax on all logits takes."
        )
    if found == expected % width:
        raise AssertionError(
            f"{who}token {found} is the place within a rank's part; in the vocabulary it is "
            f"{expected}. A rank's part begins at rank * V / n."
        )
    raise AssertionError(
        f"{who}token {found} was taken, expected {expected}: the likeliest of all ranks', and the "
        "same on every rank."
    )
