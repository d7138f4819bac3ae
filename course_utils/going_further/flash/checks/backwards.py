"""What the check cell of the backward pass in tiles calls (chapter 08)."""

from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from ....checks.common import verdict
from ....checks.elsewhere import follows_its_device
from ....checks.inputs import Call, random
from ....checks.judged import Answer, judge
from .. import flash_attention as right
from .common import Named, largest, numbers, results, roughly, sizes
from .costs import traffic

NAMES = ("q", "k", "v", "output", "lse", "grad", "causal", "tile")
RESULTS = ("grad_q", "grad_k", "grad_v")
TILES = ((8, 8), (48, 2), (2, 48))


def _call(q: Tensor, k: Tensor, v: Tensor, grad: Tensor, *how: object) -> Named:
    """With the output and the log-sum-exp that the course's forward pass gives."""
    causal, tile = how or (False, (64, 64))
    passed = right.flash_attention(q, k, v, None, causal, tile)
    return Named("flash_backward", (q, k, v, *passed, grad, *how), names=NAMES)


@st.composite
def _passed(draw: st.DrawFn) -> Named:
    queries, keys, tile = sizes(draw)
    q, k, v = (numbers(draw, shape, torch.float64) for shape in (queries, keys, keys))
    grad = numbers(draw, queries, torch.float64)
    if draw(st.booleans()):
        grad = grad[..., :1].expand_as(q)  # as of a sum, each of its numbers is stored once
    how = (draw(st.booleans()), tile) if draw(st.integers(0, 3)) else ()
    return _call(q, k, v, grad, *how)


def _nan_of(call: Call) -> str:
    return (
        "A query that sees no key has lse -inf, and exp(scores - lse) is infinite there: hide the "
        "later keys *after* exp, with 0"
    )


def _size(call: Call) -> float:
    q, k, v, _, _, grad = call.args[:6]
    return largest(q @ k.transpose(-2, -1)) * largest(q, k) * largest(v) * largest(grad)


def _going_back(flash_backward: Callable) -> Answer:
    found = results(flash_backward, RESULTS, _nan_of)

    def answer(call: Call) -> dict[str, object]:
        gradients = found(call)
        for name, x in gradients.items():
            if isinstance(x, Tensor) and x.isinf().any():
                raise AssertionError(f"gives an infinite number in {name}. {_nan_of(call)}")
        return gradients

    return answer


def _wrong(
    scaled: bool = True,
    scale_q: Callable[[float], float] = lambda scale: scale,
    scale_k: Callable[[float], float] = lambda scale: 1.0,
    mean: Callable[[Tensor, Tensor], Tensor] = lambda grad, output: grad * output,
    weighted: bool = True,
    hides: bool = True,
    adds: tuple[bool, bool, bool] = (True, True, True),
    values: Callable[[Tensor, Tensor], Tensor] = lambda weights, slope: weights,
    corner: bool = False,
    ends: bool = True,
    order: tuple[int, int, int] = (0, 1, 2),
) -> Callable:
    """`flash_backward`, with what may go wrong in it as arguments."""

    def flash_backward(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        output: Tensor,
        lse: Tensor,
        grad: Tensor,
        causal: bool = False,
        tile: tuple[int, int] = (64, 64),
    ) -> tuple[Tensor, ...]:
        past, factor = k.size(-2) - q.size(-2), q.size(-1) ** -0.5
        before = 0 if corner else past
        found = [torch.zeros_like(x) for x in (q, k, v)]
        for rows in right.tiles(q.size(-2), tile[0]):
            query, grads = q[..., rows, :] * (factor if scaled else 1.0), grad[..., rows, :]
            middle = mean(grads, output[..., rows, :]).sum(-1, keepdim=True)
            end = past + rows.stop if causal and ends else k.size(-2)
            for columns in right.tiles(end, tile[1]):
                keys = k[..., columns, :]
                weights = torch.exp(query @ keys.mT - lse[..., rows].unsqueeze(-1))
                if causal and hides:
                    weights = weights.masked_fill(right.later(rows, columns, before), 0.0)
                slope = grads @ v[..., columns, :].mT - middle
                slope = weights * slope if weighted else slope
                new = (
                    slope @ keys * scale_q(factor),
                    slope.mT @ query * scale_k(factor),
                    values(weights, slope).mT @ grads,
                )
                places = zip(found, new, (rows, columns, columns), adds, strict=True)
                for total, part, where, added in places:
                    total[..., where, :] = part + (total[..., where, :] if added else 0.0)
        return tuple(found[i] for i in order)

    return flash_backward


ADDS = "Every tile *adds* to the gradients: += instead of =."
FACTOR = (
    "by the square root of d. The scores are q k / sqrt(d): the factor belongs in the gradients "
    "of q and of k, once."
)
MISTAKES = [
    ({"scale_q": lambda scale: 1.0}, f"grad_q is too large {FACTOR}"),
    ({"scale_q": lambda scale: scale**2}, f"grad_q is too small {FACTOR}"),
    ({"scale_k": lambda scale: scale}, f"grad_k is too small {FACTOR}"),
    ({"scale_k": lambda scale: 1 / scale}, f"grad_k is too large {FACTOR}"),
    (
        {"scale_q": lambda scale: 1.0, "scale_k": lambda scale: 1 / scale},
        f"grad_q and grad_k are too large {FACTOR}",
    ),
    (
        {"scaled": False},
        "The scores of the forward pass were divided by sqrt(d); these are not.",
    ),
    ({"mean": lambda grad, output: 0 * grad}, "The mean μ is not subtracted."),
    (
        {"mean": lambda grad, output: -grad * output},
        "The mean μ is added; it is to be subtracted.",
    ),
    ({"mean": lambda grad, output: grad}, "μ is the sum of grad times *output*, row by row."),
    (
        {"weighted": False},
        "The gradient of the scores is weights * (grad @ v.T - μ): the weights are missing.",
    ),
    ({"hides": False}, "`causal` has no effect: set the weights of later keys to 0."),
    (
        {"corner": True},
        "The causal mask is drawn from the corner: query 0 has K - Q keys before it.",
    ),
    ({"adds": (False, False, False)}, ADDS),
    ({"adds": (False, True, True)}, ADDS),
    ({"adds": (True, False, False)}, ADDS),
    ({"adds": (True, False, True)}, ADDS),
    ({"adds": (True, True, False)}, ADDS),
    (
        {"values": lambda weights, slope: slope},
        "The gradient of v is weights.T @ grad; not the gradient of the scores.",
    ),
    ({"order": (1, 0, 2)}, "grad_q and grad_k are exchanged."),
    ({"order": (0, 2, 1)}, "grad_k and grad_v are exchanged."),
]
WRONG_GRADIENTS = [
    (_wrong(**what, ends=ends), why) for what, why in MISTAKES for ends in (True, False)
]


@verdict
def check_flash_backward(flash_backward: Callable[..., tuple[Tensor, Tensor, Tensor]]) -> str:
    """Chapter 08, exercise 4. Returns a verdict; raises AssertionError on wrong gradients."""
    easy = [random(seed, 4, 4).round(decimals=1) for seed in range(4)]
    more = [random(seed, 2, 7, 3) for seed in range(4)]
    few = (more[0][:, :3], more[1], more[2], more[3][:, :3])
    given = [
        (*easy, False, (4, 4)),
        (*easy, False, (2, 2)),
        (*easy, True, (2, 2)),
        (*few, True, (2, 3)),
        (more[0], few[0], few[3], more[1], True, (3, 2)),
        (random(4, 3, 4), random(5, 300, 4), random(6, 300, 4), random(7, 3, 4)),
        (random(4, 300, 4), random(5, 3, 4), random(6, 3, 4), random(7, 300, 4)),
    ]
    expected = _going_back(right.flash_backward)
    judge(
        _going_back(flash_backward),
        expected,
        _passed(),
        [(_going_back(wrong), advice) for wrong, advice in WRONG_GRADIENTS],
        first=[_call(*args) for args in given],
        exact=roughly(expected, _size),
        number=60,
    )
    _judge_size(flash_backward)

    def use(_: nn.Module, device: torch.device) -> tuple:
        q, k, v, output, grad = (torch.zeros(2, 5, 4, device=device) for _ in range(5))
        return flash_backward(q, k, v, output, q[..., 0], grad, True, (2, 3))

    follows_its_device(use, "flash_backward")
    return "flash_backward is right: the gradients of the plain attention, a tile at a time."


def _judge_size(flash_backward: Callable) -> None:
    q, k, v, grad = (random(seed, 96, 4) for seed in range(4))
    passed = right.flash_attention(q, k, v)
    for tile in TILES:
        held, least = (
            traffic(back, q, k, v, *passed, grad, False, tile)[0]
            for back in (flash_backward, right.flash_backward)
        )
        if held > 2 * least:
            raise AssertionError(
                f"96 queries, 96 keys, tiles of {tile}: up to {held:,} bytes at a time, where "
                f"about {least:,} suffice. A tile of weights at a time is enough, as in the "
                "forward pass."
            )
