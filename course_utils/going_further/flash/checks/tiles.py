"""What the check cells of attention in tiles call, forwards and backwards (chapter 08)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ....attention import causal_mask
from ....checks.common import difference, refuse_known, tensor, unchanged, verdict
from ..flash_attention import Memory
from ..flash_attention import flash_attention as right_flash
from .common import EXACT, plain, several

SHAPES = [  # leading, Q, K, d, tile, causal, masked
    ((), 8, 8, 4, (4, 4), False, False),
    ((), 7, 5, 4, (3, 2), False, False),
    ((2, 3), 6, 9, 4, (4, 5), False, False),
    ((2,), 6, 9, 4, (2, 4), False, True),
    ((), 8, 8, 4, (4, 2), True, False),
    ((2,), 7, 7, 4, (3, 4), True, False),
    ((), 3, 11, 4, (2, 3), True, False),
    ((), 1, 9, 4, (2, 4), True, False),
    ((), 9, 5, 4, (2, 2), True, False),
    ((), 9, 5, 4, (3, 2), True, False),
]


@verdict
def check_flash_attention(flash_attention: Callable[..., tuple[Tensor, Tensor]]) -> str:
    """Chapter 08, exercise 2. Returns a verdict; raises AssertionError on a wrong result."""
    torch.manual_seed(0)
    for leading, num_queries, num_keys, d, tile, causal, masked in SHAPES:
        q = torch.randn(*leading, num_queries, d, dtype=torch.float64)
        k, v = torch.randn(2, *leading, num_keys, d, dtype=torch.float64)
        mask = torch.rand(num_queries, num_keys) < 0.6 if masked else None
        if masked:
            mask[0] = False
        kept = [t.clone() for t in (q, k, v)]
        found = flash_attention(q, k, v, mask, causal, tile)
        found = several(found, ("output", "log-sum-exp"))
        unchanged(kept, (q, k, v), "q, k or v was changed: work on copies (q / ... makes one).")
        where = (
            f"{num_queries} queries, {num_keys} keys, tiles of {tile}"
            + ", causal" * causal
            + ", with a mask that hides every key from query 0" * masked
        )
        seen = causal_mask(num_queries, num_keys) if causal else mask
        _judge_attention(found, (q, k, v), seen, where)
    _judge_size(flash_attention)
    _judge_skipping(flash_attention)
    return "flash_attention is right: tiles that fit and that do not, masks, hidden tiles left out."


def _judge_attention(found: tuple, qkv: tuple, mask: Tensor | None, where: str) -> None:
    q, k, v = qkv
    output, lse = plain(q, k, v, mask)
    found_output = tensor(found[0], f"{where}: the output", output.shape)
    found_lse = tensor(found[1], f"{where}: the log-sum-exp", lse.shape)
    if found_output.isnan().any() or found_lse.isnan().any():
        raise AssertionError(
            f"{where}: there is NaN. A query may see no key in a tile, or none at all: its output "
            "is 0 and its log-sum-exp -inf. `absorb` and `finish` see to it."
        )
    root = math.sqrt(q.size(-1))
    others = [
        (q * root, mask, "The scores are not divided by the square root of d."),
        (q / root, mask, "The scores are divided by d, not by its square root."),
    ]
    if mask is not None:
        corner = torch.ones(q.size(-2), k.size(-2), dtype=torch.bool).tril()
        from_the_corner = (
            "The causal mask is drawn from the corner. The queries are the *last* Q of the K "
            "positions: query 0 has K - Q keys before it."
        )
        others += [(q, None, "The mask has no effect."), (q, corner, from_the_corner)]
    if how := difference(found_output, output, **EXACT):
        mistakes = ((plain(q, k, v, seen)[0], f"{where}: {why}") for q, seen, why in others)
        refuse_known(found_output, mistakes, **EXACT)
        raise AssertionError(f"{where}: the output {how}.")
    if how := difference(found_lse, lse, **EXACT):
        raise AssertionError(
            f"{where}: the output is right; the log-sum-exp {how}. It is the second thing that "
            "`finish` returns."
        )


def _judge_size(flash_attention: Callable) -> None:
    """No more memory than tiles take: a score for each pair would be ten times as much."""
    q, k, v = torch.randn(3, 96, 4, dtype=torch.float64)
    limit = _peak(right_flash, q, k, v)
    found = _peak(flash_attention, q, k, v)
    if found > 2 * limit:
        raise AssertionError(
            f"96 queries, 96 keys, tiles of (8, 8): up to {found:,} bytes at a time, where about "
            f"{limit:,} suffice; a score for each pair takes {96 * 96 * 8:,}. In one step, only "
            "the queries of one tile meet the keys of one tile."
        )


def _peak(flash_attention: Callable, q: Tensor, k: Tensor, v: Tensor) -> int:
    with Memory() as memory:
        flash_attention(q, k, v, None, False, (8, 8))
    return memory.peak


def _judge_skipping(flash_attention: Callable) -> None:
    q, k, v = torch.randn(3, 32, 4, dtype=torch.float64)
    with FlopCounterMode(display=False) as counter:
        flash_attention(q, k, v, None, True, (4, 4))
    done, tile = counter.get_total_flops(), 2 * 2 * 4 * 4 * 4
    if done > 36 * tile:
        raise AssertionError(
            f"32 causal positions, tiles of (4, 4): work for {done / tile:.0f} tiles, but only 36 "
            "of the 64 hold a visible key. End the loop over keys at the last position that the "
            "tile's queries may see: K - Q + rows.stop."
        )


@verdict
def check_flash_backward(flash_backward: Callable[..., tuple[Tensor, Tensor, Tensor]]) -> str:
    """Chapter 08, exercise 4. Returns a verdict; raises AssertionError on wrong gradients."""
    torch.manual_seed(0)
    for leading, num_queries, num_keys, d, tile, causal, masked in SHAPES:
        if masked:
            continue
        q = torch.randn(*leading, num_queries, d, dtype=torch.float64, requires_grad=True)
        k, v = torch.randn(2, *leading, num_keys, d, dtype=torch.float64)
        k, v = k.requires_grad_(), v.requires_grad_()
        mask = causal_mask(num_queries, num_keys) if causal else None
        output, lse = plain(q, k, v, mask)
        grad = torch.randn_like(output)
        right = torch.autograd.grad(output, (q, k, v), grad)
        with torch.no_grad():
            given = (t.detach() for t in (q, k, v, output, lse, grad))
            found = flash_backward(*given, causal, tile)
        found = several(found, ("grad_q", "grad_k", "grad_v"))
        where = f"{num_queries} queries, {num_keys} keys, tiles of {tile}" + ", causal" * causal
        _judge_gradients(found, right, math.sqrt(d), where)
    q, k, v = torch.randn(3, 96, 4, dtype=torch.float64)
    output, lse = plain(q, k, v)
    with torch.no_grad(), Memory() as memory:
        flash_backward(q, k, v, output, lse, torch.ones_like(q), False, (8, 8))
    if memory.peak > 96 * 96 * 8 / 2:
        raise AssertionError(
            f"96 queries, 96 keys, tiles of (8, 8): up to {memory.peak:,} bytes at a time. A tile "
            "of weights at a time suffices, as in the forward pass."
        )
    return "flash_backward is right: the gradients of the plain attention, a tile at a time."


def _judge_gradients(found: tuple, right: tuple, root: float, where: str) -> None:
    for name, gradient, expected in zip(("grad_q", "grad_k", "grad_v"), found, right, strict=True):
        tensor(gradient, f"{where}: {name}", expected.shape)
        if gradient.isnan().any() or gradient.isinf().any():
            raise AssertionError(
                f"{where}: {name} is not finite. A query that sees no key has lse -inf, and "
                "exp(scores - lse) is infinite there: hide the later keys *after* exp, with 0."
            )
        if how := difference(gradient, expected, **EXACT):
            factor = (
                "by the square root of d. The scores are q k / sqrt(d): the factor belongs into "
                "the gradients of q and of k, once."
            )
            mistakes = [
                (expected * root, f"{where}: {name} is too large {factor}"),
                (expected / root, f"{where}: {name} is too small {factor}"),
            ]
            refuse_known(gradient, mistakes, **EXACT)
            raise AssertionError(
                f"{where}: {name} {how}. Every tile *adds* to the gradients; the gradient of the "
                "scores is weights * (grad @ v.T - mean)."
            )
