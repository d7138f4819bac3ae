"""What the check cells of chapter 10 call, as `course_utils.checks` does for the core."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import checks
from ..checks import verdict
from ..transformer import DecoderLayer, FeedForward
from .tensor_parallel import Group, in_threads, split_layer

PASSES = checks.PASSES
ROWS = ("W_q.weight", "W_k.weight", "W_v.weight", "fc1.weight", "fc1.bias")
COLUMNS = ("W_o.weight", "fc2.weight")


def _numbered(d_model: int, d_ff: int, num_heads: int) -> dict[str, Tensor]:
    """The parameters of a layer in which no two numbers are the same."""
    state = DecoderLayer(d_model, d_ff, num_heads).state_dict()
    start, numbered = 0, {}
    for name, tensor in state.items():
        numbered[name] = torch.arange(start, start + tensor.numel()).view(tensor.shape).double()
        start += tensor.numel()
    return numbered


@verdict
def check_split_layer(split_layer: Callable[..., dict[str, Tensor]]) -> str:
    """Chapter 10, exercise 1. Returns a verdict; raises AssertionError on a wrong cut."""
    whole = _numbered(16, 24, 4)
    for size in (1, 2, 4):
        for rank in range(size):
            part = split_layer(dict(whole), Group(rank, size), 4)
            if not isinstance(part, dict):
                raise AssertionError(
                    f"Expected a dict with the names that came in, found {type(part).__name__}."
                )
            if part.keys() != whole.keys():
                missing, extra = sorted(whole.keys() - part), sorted(part.keys() - whole)
                raise AssertionError(
                    "Expected a dict with the names that came in, each whole or cut; missing: "
                    f"{', '.join(missing) or 'none'}; new: {', '.join(extra) or 'none'}."
                )
            for name, tensor in whole.items():
                _check_part(name, part[name], tensor, rank, size)
    for d_model, d_ff, heads, size, what in (
        (24, 24, 6, 4, "6 heads"),
        (16, 18, 4, 4, "18 hidden"),
    ):
        try:
            split_layer(_numbered(d_model, d_ff, heads), Group(0, size), heads)
        except ValueError:
            continue
        except AssertionError:
            raise AssertionError(
                f"{what} were refused to {size} ranks with an assert. Raise ValueError instead."
            ) from None
        raise AssertionError(
            f"{what} were shared by {size} ranks without complaint. Raise ValueError: a part that "
            "begins inside a head gives wrong numbers, not an error, further on."
        )
    return "split_layer is right: for 1, 2 and 4 ranks, and it refuses what has no equal parts."


def _check_part(name: str, found: object, whole: Tensor, rank: int, size: int) -> None:
    """Raise AssertionError unless `found` is what a rank holds of a layer's parameter."""
    where = f"Rank {rank} of {size}, {name}"
    dim = 0 if name.endswith(ROWS) else 1 if name.endswith(COLUMNS) else None
    expected = whole if dim is None else whole.chunk(size, dim)[rank]
    if not isinstance(found, Tensor):
        raise AssertionError(f"{where} is a {type(found).__name__}, expected a tensor.")
    if found.shape != expected.shape:
        reason = "Every rank needs it whole."
        if name.endswith("fc2.bias"):
            reason = "It belongs to the sum over the ranks, not to a part: it stays whole."
        elif dim == 0:
            reason = (
                "nn.Linear keeps (D_out, D_in): a part of the outputs is a part of dimension 0."
            )
        elif dim == 1:
            reason = (
                "Its inputs are what this rank has made. nn.Linear keeps (D_out, D_in): a part of "
                "the inputs is a part of dimension 1."
            )
        raise AssertionError(
            f"{where} has shape {tuple(found.shape)}, expected {tuple(expected.shape)}. {reason}"
        )
    if torch.equal(found, expected):
        return
    if rank and dim is not None and torch.equal(found, whole.chunk(size, dim)[0]):
        raise AssertionError(f"{where} is the part of rank 0. Which part is this rank's?")
    raise AssertionError(
        f"{where} has the right shape and other numbers. Parts are neighbours in one piece (the "
        "first rank has the first rows): a head's rows lie next to each other."
    )


def _ranks(size: int, program: Callable[[Group], object]) -> list:
    """What each rank's program returned; an error that ranks cause each other is a wrong answer."""
    try:
        return in_threads(size, program)
    except RuntimeError as error:
        if "All ranks must" not in str(error):
            raise
        raise AssertionError(str(error)) from None


@verdict
def check_regions(
    copy_to: Callable[[Tensor, Group], Tensor], reduce_from: Callable[[Tensor, Group], Tensor]
) -> str:
    """Chapter 10, exercise 2. Returns a verdict; raises AssertionError on a wrong sum."""
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
        for rank, (copied, total, of_part, of_x, count) in enumerate(_ranks(size, program)):
            who = f"Rank {rank} of {size}: "
            _compare(copied, x, who + "copy_to gave back", "Forward, f is the identity.")
            hint = "Forward, g is the sum over all ranks."
            _compare(total, whole, who + "reduce_from gave", hint)
            hint = "Backward, g hands the gradient on as it is: every rank has it already."
            _compare(of_part, 2 * whole, who + "through reduce_from, the gradient is", hint, size)
            hint = "Backward, f adds up what comes back from all ranks."
            expected = 2 * whole * weights.sum(0)
            _compare(of_x, expected, who + "through copy_to, the gradient is", hint, size)
            if count != (0, 1, 1):
                raise AssertionError(
                    f"{who}all-reduces in copy_to, in reduce_from and backward: {count}; expected "
                    "0, 1 and 1."
                )
    return "copy_to and reduce_from are right, forward and backward, with one all-reduce each way."


def _compare(found: object, expected: Tensor, what: str, hint: str, size: int = 0) -> None:
    """Raise AssertionError, with a hint, unless `found` is `expected`."""
    if not isinstance(found, Tensor):
        raise AssertionError(f"{what} {found!r}, expected a tensor. {hint}")
    if found.shape != expected.shape:
        raise AssertionError(
            f"{what} shape {tuple(found.shape)}, expected {tuple(expected.shape)}. {hint}"
        )
    if torch.allclose(found.to(expected.dtype), expected, rtol=0, atol=1e-9):
        return
    times = (found / expected).flatten()
    if size > 1 and torch.allclose(times, times.new_tensor(size), atol=1e-6):
        raise AssertionError(f"{what} {size} times too large, the number of ranks. {hint}")
    if size > 1 and torch.allclose(times, times.new_tensor(1 / size), atol=1e-6):
        raise AssertionError(
            f"{what} {size} times too small, as a mean over the ranks would be. {hint}"
        )
    at = (found - expected).abs().argmax()
    raise AssertionError(
        f"{what} {found.flatten()[at].item():.5g} where {expected.flatten()[at].item():.5g} was "
        f"expected. {hint}"
    )


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
    """Chapter 10, exercise 3. Returns a verdict; raises AssertionError on a wrong block."""
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

        for rank, (y, of_x, of_bias, count) in enumerate(_ranks(size, program)):
            who = f"Rank {rank} of {size}: "
            _check_block(y, expected.detach(), block, x, who, size)
            hint = (
                "x comes from every rank's copy: its gradient is a sum. Did x go through copy_to?"
            )
            _compare(of_x, expected_x.grad, who + "the gradient of x is", hint)
            hint = "Added whole, after the sum, it has its whole gradient on every rank."
            _compare(of_bias, block.fc2.bias.grad, who + "the gradient of fc2.bias is", hint, size)
            if count != (1, 1):
                raise AssertionError(
                    f"{who}{count[0]} all-reduces forward and {count[1]} backward; expected one "
                    "each way."
                )
    return "parallel_feed_forward is right: values and gradients, one all-reduce each way."


def _check_block(
    y: object, expected: Tensor, block: FeedForward, x: Tensor, who: str, size: int
) -> None:
    """Raise AssertionError, naming the usual mistakes, unless y is what the block gives."""
    if isinstance(y, Tensor) and y.shape == expected.shape and size > 1:
        bias = block.fc2.bias.detach()
        if torch.allclose(y.detach() - expected, (size - 1) * bias):
            raise AssertionError(
                f"{who}fc2.bias is in the result {size} times. Add it once, after the sum."
            )
        if torch.allclose(y.detach() - expected, -bias.expand_as(expected)):
            raise AssertionError(f"{who}fc2.bias is missing. Add it once, after the sum.")
    found = y.detach() if isinstance(y, Tensor) else y
    hint = "fc1, ReLU and fc2 without its bias make this rank's part, then the parts are added up."
    _compare(found, expected, who + "the block gives", hint)


@verdict
def check_cross_entropy(cross_entropy: Callable[[Tensor, Tensor, Group], Tensor]) -> str:
    """Chapter 10, exercise 4. Returns a verdict; raises AssertionError on a wrong loss."""
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

            for rank, (loss, gradient, sent) in enumerate(_ranks(size, program)):
                who = f"Rank {rank} of {size}: "
                _check_loss(loss, expected.detach(), targets.numel(), who, size)
                wanted = mine.grad.chunk(size, dim=-1)[rank]
                hint = (
                    "It should be softmax less one-hot, over the number of targets. Sums that need "
                    "a gradient go through reduce_from; group.all_reduce passes none."
                )
                _compare(gradient, wanted, who + "the gradient of its logits is", hint)
                if sent > 3 * targets.numel() * 8:
                    raise AssertionError(
                        f"{who}{sent} bytes were all-reduced for {targets.numel()} targets. "
                        "Three numbers per target are enough: the largest logit, the sum of "
                        "exponentials, the target's logit."
                    )
    return "cross_entropy is right, loss and gradient, and no logits are sent."


def _check_loss(loss: object, expected: Tensor, targets: int, who: str, size: int) -> None:
    if not isinstance(loss, Tensor) or loss.dim():
        shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise AssertionError(f"{who}expected one number, the mean over all targets; found {shape}.")
    if not loss.isfinite():
        raise AssertionError(
            f"{who}the loss is {loss.item()}. Subtract the largest logit of *all* ranks before the "
            "exponential."
        )
    if torch.isclose(loss.double(), targets * expected):
        raise AssertionError(f"{who}the loss is the sum over the targets. Expected their mean.")
    _compare(
        loss.detach(),
        expected,
        who + "the loss is",
        "It is the log of the sum of all exponentials, plus the maximum, less the target's logit: "
        "the first two over all ranks, the third from the rank that has it.",
        size,
    )


@verdict
def check_greedy_token(greedy_token: Callable[[Tensor, Group], Tensor]) -> str:
    """Chapter 10, exercise 5. Returns a verdict; raises AssertionError on a wrong token."""
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

        ranks = _ranks(size, program)
        for rank, (token, sent) in enumerate(ranks):
            who = f"Rank {rank} of {size}: "
            if not isinstance(token, Tensor) or token.shape != expected.shape:
                shape = tuple(token.shape) if isinstance(token, Tensor) else type(token).__name__
                raise AssertionError(f"{who}expected ids (B,), here (6,); found {shape}.")
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


EXERCISES = {
    "10": {
        "1: who holds what": (check_split_layer, ("split_layer",)),
        "2: f and g": (check_regions, ("copy_to", "reduce_from")),
        "3: a feed-forward block in parts": (
            check_parallel_feed_forward,
            ("parallel_feed_forward",),
        ),
        "4: a loss without the logits": (check_cross_entropy, ("cross_entropy",)),
        "5: the next token": (check_greedy_token, ("greedy_token",)),
    },
}
progress = partial(checks.progress, exercises=EXERCISES)
