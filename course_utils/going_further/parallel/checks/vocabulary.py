"""What the check cells of the cut vocabulary call: a loss, and the next token (chapter 11)."""

import math
from collections.abc import Callable
from functools import partial

import torch
from hypothesis import strategies as st
from torch import Tensor

from ....checks.common import verdict
from ....checks.inputs import random, tensors
from ....checks.judged import Answer, judge
from .. import tensor_parallel as right
from ..groups import Group
from .common import OnRanks, bytes_beyond, gradients, on_ranks, part_of, tensor_from

Loss = Callable[[Tensor, Tensor, Group], Tensor]
Token = Callable[[Tensor, Group], Tensor]
LOSS = "the mean of log(sum of all exponentials) + maximum - the target's logit, which one rank has"
GRADIENT = "the gradient of its logits: softmax less 1 at its own targets, over their number"
SCALE = "the largest logit, beside which a small loss is rounded"
UNEVEN = {"layouts": (lambda x: x,)}
SMALL = {"scales": (1.0, 0.0, 1e-3), "offsets": (0.0,), **UNEVEN}


@st.composite
def _logits_and_targets(draw: st.DrawFn) -> OnRanks:
    """Rows on different levels; in float32 only small ones, where all ways round alike."""
    size, width = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    dtype = draw(st.sampled_from((torch.float64, torch.float64, torch.float32)))
    kind = UNEVEN if dtype == torch.float64 else SMALL
    logits = draw(tensors((*shape, size * width), (dtype,), **kind))
    rows = torch.Size(shape).numel()
    targets = draw(st.lists(st.integers(0, size * width - 1), min_size=rows, max_size=rows))
    return OnRanks("cross_entropy", size, (logits, torch.tensor(targets).view(shape)))


def _losing(cross_entropy: Loss) -> Answer:
    def program(case: OnRanks, group: Group) -> dict[str, object]:
        logits, targets = case.tensors
        part = part_of(logits, group).requires_grad_()
        given = part, targets.clone(), group
        loss = tensor_from(cross_entropy, given, torch.Size(), part.dtype)
        (gradient,) = gradients(loss, [part])
        beyond = bytes_beyond(3 * targets.numel(), group)
        return {
            LOSS: loss.detach(),
            GRADIENT: gradient,
            SCALE: logits.abs().amax(),
            "bytes sent beyond the three numbers per target that are enough": beyond,
        }

    return on_ranks(program)


def _loss(
    part: Tensor,
    targets: Tensor,
    group: Group,
    top: str = "of each row",
    owner: str = "the owner",
    log: Callable = torch.log,
    again: bool = True,
    add: Callable = right.reduce_from,
    mean: Callable = torch.mean,
) -> Tensor:
    """The loss, with what may go wrong in it as arguments."""
    most, width = part.amax(-1), part.size(-1)
    if top == "of each row":
        most = group.all_reduce(most, "max")
    if top == "of all rows":
        most = group.all_reduce(most.amax(), "max").expand(most.shape)
    if top == "of this rank, as a constant":
        most = most.detach()
    if top == "none":
        most = torch.zeros_like(most)
    total = add(torch.exp(part - most[..., None]).sum(-1), group)
    index = targets - group.rank * width
    mine = (index >= 0) & (index < width)
    if owner == "one more":
        mine = (index >= 0) & (index <= width)
    chosen = part.gather(-1, (index % width)[..., None])[..., 0]
    chosen = add(chosen if owner == "everybody" else chosen.where(mine, 0.0), group)
    return mean(log(total) + (most if again else 0.0) - chosen)


LARGEST = "Subtract the largest logit of *all* ranks, row by row, before the exponential."
OWNER = "The target's logit comes from the rank that has it; all others bring 0."
MISTAKES: list[tuple[dict, str]] = [
    *(
        ({"top": top}, f"Each rank subtracts its own maximum here. {LARGEST}")
        for top in ("of this rank", "of this rank, as a constant")
    ),
    ({"top": "none"}, LARGEST),
    ({"top": "of all rows"}, f"Each row has a largest logit of its own. {LARGEST}"),
    ({"owner": "everybody"}, OWNER),
    ({"owner": "one more"}, "A rank has the tokens from rank * V/n to one before the next's."),
    ({"again": False}, "The maximum, which was subtracted, has to be added again to the log."),
    ({"log": lambda total: total}, "The logarithm of the sum is missing."),
    ({"log": torch.log2}, "It is the natural logarithm: torch.log."),
    ({"mean": torch.sum}, "That is the sum over the targets. Expected is their mean."),
    ({"add": lambda x, group: group.all_reduce(x)}, "group.all_reduce passes no gradient."),
]


def _times(change: Callable[[Tensor, Group], Tensor]) -> Loss:
    return lambda part, targets, group: change(right.cross_entropy(part, targets, group), group)


WRONG_LOSSES: list[tuple[Loss, str]] = [
    *((partial(_loss, **change), advice) for change, advice in MISTAKES),
    (_times(lambda loss, group: -loss), "The sign is the other way round."),
    (
        _times(right.reduce_from),
        "That is as many times too large as there are ranks: each has the whole loss already.",
    ),
    (
        _times(lambda loss, group: loss / group.size),
        "That is as many times too small as there are ranks: each has the whole loss already.",
    ),
]


def _two_ranks(logits: list, targets: list) -> OnRanks:
    return OnRanks("cross_entropy", 2, (torch.tensor(logits).double(), torch.tensor(targets)))


FIRST_LOSSES = [
    _two_ranks([[1.0, 0.0, 0.0, 2.0]], [3]),
    _two_ranks([[1.0, 0.0, 0.0, 2.0], [0.0, 3.0, 1.0, 0.0]], [0, 2]),
    _two_ranks([[2000.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 5.0]], [2, 3]),
    OnRanks("cross_entropy", 2, (3 * random(0, 5, 10, 60), torch.arange(50).view(5, 10))),
]


@verdict
def check_cross_entropy(cross_entropy: Loss) -> str:
    """Chapter 11, exercise 4. Returns a verdict; raises AssertionError on a wrong loss."""
    expected = _losing(right.cross_entropy)
    judge(
        _losing(cross_entropy),
        expected,
        _logits_and_targets(),
        [(_losing(wrong), advice) for wrong, advice in WRONG_LOSSES],
        first=FIRST_LOSSES,
        exact=lambda case: expected(case.double()),
        number=60,
    )
    return "cross_entropy is right, loss and gradient, and no logits are sent."


@st.composite
def _logits(draw: st.DrawFn) -> OnRanks:
    """Rows with equal logits, negative ones, and such as differ in the last digit only."""
    size, width, batch = (draw(st.integers(1, most)) for most in (4, 4, 3))
    logits = draw(tensors((batch, size * width), (torch.float32, torch.float64)))
    if draw(st.integers(0, 2)) == 2:
        best = torch.nextafter(logits.amax(-1), torch.tensor(math.inf, dtype=logits.dtype))
        logits[:, draw(st.integers(0, size * width - 1))] = best
    return OnRanks("greedy_token", size, (logits,))


def _choosing(greedy_token: Token) -> Answer:
    def program(case: OnRanks, group: Group) -> dict[str, object]:
        part = part_of(case.tensors[0], group)
        return {
            "the id of each row's largest logit of all ranks": tensor_from(
                greedy_token, (part, group), part.shape[:1], torch.int64
            ),
            "bytes sent beyond the two numbers per row that are enough": bytes_beyond(
                2 * len(part), group
            ),
        }

    return on_ranks(program)


def _token(
    part: Tensor,
    group: Group,
    top: Callable = lambda best, group: group.all_reduce(best, "max"),
    offset: Callable = lambda part, group: group.rank * part.size(-1),
    nobody: Callable = lambda part, group: group.size * part.size(-1),
    choose: str = "min",
    same: Callable = torch.eq,
) -> Tensor:
    """The next token, with what may go wrong in it as arguments."""
    best, token = part.max(-1)
    here = same(best, top(best, group))
    found = (token + offset(part, group)).where(here, nobody(part, group))
    return group.all_reduce(found, choose)


def _zero(part: Tensor, group: Group) -> int:
    return 0


LOWEST = "Of equal logits take the lowest id, as argmax does."
WRONG_TOKENS: list[tuple[Token, str]] = [
    (
        lambda part, group: part.argmax(-1),
        "The ranks take different tokens, and these are places within a rank's part. All must "
        "take the likeliest of all ranks': an all-reduce finds it.",
    ),
    (
        lambda part, group: part.argmax(-1) + group.rank * part.size(-1),
        "The ranks take different tokens. All must take the likeliest of all ranks': an "
        "all-reduce finds it.",
    ),
    (
        partial(_token, offset=_zero),
        "That is the place within a rank's part. A part begins at rank * V / n.",
    ),
    (partial(_token, nobody=lambda *_: -1, choose="max"), f"That is the highest. {LOWEST}"),
    (partial(_token, nobody=_zero, choose="max"), f"That is the highest. {LOWEST}"),
    (partial(_token, nobody=_zero, choose="sum"), f"Ids are added up here. {LOWEST}"),
    (
        partial(_token, nobody=_zero),
        "A rank that does not have the largest logit must not win: it names a number too large.",
    ),
    (
        partial(_token, top=lambda best, group: group.all_reduce(best.amax(), "max")),
        "Each row has a largest logit of its own; here the largest of all rows is looked for.",
    ),
    (
        partial(_token, top=lambda best, group: group.all_reduce(best.clamp(min=0), "max")),
        "All logits of a row can be below 0: do not begin the search at 0.",
    ),
    (
        partial(_token, top=lambda best, group: best),
        "Every rank names its own best token here, not the best of all.",
    ),
    (partial(_token, same=torch.isclose), "Nearly equal is not equal: compare with ==."),
    *(
        (
            lambda part, group, dtype=dtype: _token(part.to(dtype), group),
            f"Logits that differ become equal in {dtype}: leave them as they are.",
        )
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
    ),
    (lambda part, group: right.gathered(part, group).argmax(-1), "All logits are sent here."),
]


def _rows(size: int, *rows: list[float]) -> OnRanks:
    return OnRanks("greedy_token", size, (torch.tensor(rows),))


FIRST_TOKENS = [
    _rows(2, [1.0, 0.0, 0.0, 3.0]),
    _rows(2, [1.0, 5.0, 0.0, 3.0], [-1.0, -5.0, -3.0, -0.5]),
    _rows(2, [1.0, 3.0, 0.0, 3.0], [0.0, 2.0, 2.0, 1.0]),
    _rows(4, [0.0, 1.0, 2.0, 9.0, 9.0, 1.0, 0.0, 9.0]),
    _rows(2, [-math.inf, -5e4, -4e4, -math.inf]),
    OnRanks("greedy_token", 2, (random(0, 40, 10),)),
    OnRanks("greedy_token", 2, (-(torch.arange(200_000.0) - 166_001).abs()[None],)),
]


@verdict
def check_greedy_token(greedy_token: Token) -> str:
    """Chapter 11, exercise 5. Returns a verdict; raises AssertionError on a wrong token."""
    judge(
        _choosing(greedy_token),
        _choosing(right.greedy_token),
        _logits(),
        [(_choosing(wrong), advice) for wrong, advice in WRONG_TOKENS],
        first=FIRST_TOKENS,
        number=80,
    )
    return "greedy_token is right: first, last, negative and equal logits, two numbers a row."
