"""What the check cells of chapter 07 call, as `course_utils.checks` does for the core."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from .. import checks
from ..attention import causal_mask, softmax
from ..checks import ask, verdict
from .flash_attention import Memory, State, finish, flash_attention, nothing_yet
from .flash_attention import absorb as right_absorb

PASSES = checks.PASSES


def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp with all scores at once; a row that sees no key: 0 and -inf."""
    scores = (q / math.sqrt(q.size(-1))) @ k.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return softmax(scores) @ v, scores.logsumexp(dim=-1)


def _tensor(found: object, what: str, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(found, Tensor):
        raise AssertionError(f"{what} is a {type(found).__name__}, expected a torch.Tensor.")
    if found.shape != shape:
        raise AssertionError(f"{what} has shape {tuple(found.shape)}, expected {tuple(shape)}.")
    return found


def _several(found: object, names: tuple[str, ...]) -> tuple:
    if not isinstance(found, (tuple, list)) or len(found) != len(names):
        raise AssertionError(f"Expected {len(names)} results: {', '.join(names)}.")
    return tuple(found)


def _same(found: Tensor, expected: Tensor) -> bool:
    same = found.shape == expected.shape and found.dtype == expected.dtype
    return same and torch.allclose(found, expected, rtol=1e-10, atol=1e-10)


def _first(found: Tensor, expected: Tensor) -> str:
    """Where two tensors differ first, for an error message."""
    if found.dtype != expected.dtype:
        return f"has dtype {found.dtype}, expected {expected.dtype}"
    wrong = ~torch.isclose(found, expected, rtol=1e-10, atol=1e-10)
    at = tuple(wrong.nonzero()[0].tolist())
    return f"is {found[at].item():.5g} at {list(at)}, expected {expected[at].item():.5g}"


HIDDEN = -math.inf
ROWS = {  # scores of one query, in the portions in which they come
    "two keys, one at a time": [[1.0], [3.0]],
    "the largest first": [[5.0, 1.0], [2.0], [0.0, 4.0, 3.0]],
    "the largest last": [[0.0, 1.0], [2.0, 3.0], [9.0]],
    "scores of 2000": [[2000.0, 1990.0], [1995.0], [2001.0]],
    "scores of -2000": [[-2001.0], [-2000.0, -1999.0]],
    "a hidden key": [[1.0, HIDDEN], [2.0, 0.5]],
    "a portion of hidden keys, later": [[1.0, 2.0], [HIDDEN, HIDDEN], [0.5]],
    "a portion of hidden keys at the start": [[HIDDEN, HIDDEN], [-2000.0, -1999.0]],
    "hidden keys only": [[HIDDEN, HIDDEN], [HIDDEN]],
}


@verdict
def check_absorb(absorb: Callable[[State, Tensor, Tensor], State]) -> str:
    """Chapter 07, exercise 1. Returns a verdict; raises AssertionError on a wrong state."""
    torch.manual_seed(0)
    for name, portions in ROWS.items():
        q = torch.zeros(2, 3, 4, dtype=torch.float64)
        found = expected = nothing_yet(q)
        for number, portion in enumerate(portions, start=1):
            scores = torch.tensor(portion, dtype=torch.float64).expand(2, 3, -1).clone()
            v = torch.randn(2, len(portion), 4, dtype=torch.float64)
            before = found
            given = tuple(part.clone() for part in found)
            found = ask(absorb, given, scores.clone(), v)
            found = _several(found, ("m", "l", "a"))
            expected = right_absorb(expected, scores, v)
            where = f"{name}, portion {number} {portion}"
            _judge_state(found, expected, before, scores, v, where)
    return "absorb is right: any portions, huge scores, hidden keys, and rows that see nothing."


def _judge_state(
    found: tuple, expected: State, before: State, scores: Tensor, v: Tensor, where: str
) -> None:
    names = ("m (the largest score)", "l (the sum)", "a (the weighted sum of values)")
    for part, right, name in zip(found, expected, names, strict=True):
        _tensor(part, f"{where}: {name}", right.shape)
        if part.isnan().any():
            raise AssertionError(
                f"{where}: {name} is NaN. Where a row has met no visible key its largest score is "
                "-inf, and -inf - (-inf) is not a number: subtract 0 there instead."
                if (expected[0] == HIDDEN).any()
                else f"{where}: {name} is NaN. Subtract the largest score *so far* from all scores "
                "and from the old largest one before exp, so that no power is above 1: decay is "
                "exp(old largest - new largest)."
            )
        if part.isinf().any() and not right.isinf().any():
            raise AssertionError(
                f"{where}: {name} is infinite. Subtract the largest score of old *and* new before "
                "exp: then no power is above 1."
            )
    if all(_same(a, b) for a, b in zip(finish(found), finish(expected), strict=True)):
        return
    row_max, total, output = before
    new_max = torch.maximum(row_max, scores.amax(dim=-1, keepdim=True))
    shift = new_max.masked_fill(new_max == HIDDEN, 0.0)
    weights, decay = torch.exp(scores - shift), torch.exp(row_max - shift)
    scale = (
        "is not scaled down: all that was added up relative to the old largest score must be "
        "multiplied by exp(old largest - new largest)."
    )
    usual = [
        (1, total + weights.sum(-1, keepdim=True), f"The old sum {scale}"),
        (1, decay * total, "The new weights are not in it."),
        (2, output + weights @ v, f"The old weighted sum {scale}"),
        (2, decay * output, "The new values are not in it."),
        (2, expected[2] / expected[1], "It is divided by the sum: that comes at the very end."),
        (0, scores.amax(dim=-1, keepdim=True), "That is the largest of the new scores only."),
        (0, row_max, "It was not brought up to date."),
    ]
    for i, wrong, why in usual:
        if _same(found[i], wrong) and not _same(found[i], expected[i]):
            raise AssertionError(f"{where}: {names[i]} {_first(found[i], expected[i])}. {why}")
    i = next(i for i in (0, 1, 2) if not _same(found[i], expected[i]))
    raise AssertionError(f"{where}: {names[i]} {_first(found[i], expected[i])}.")


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
    """Chapter 07, exercise 2. Returns a verdict; raises AssertionError on a wrong result."""
    torch.manual_seed(0)
    for leading, num_queries, num_keys, d, tile, causal, masked in SHAPES:
        q = torch.randn(*leading, num_queries, d, dtype=torch.float64)
        k, v = torch.randn(2, *leading, num_keys, d, dtype=torch.float64)
        mask = torch.rand(num_queries, num_keys) < 0.6 if masked else None
        if masked:
            mask[0] = False
        kept = [t.clone() for t in (q, k, v)]
        found = flash_attention(q, k, v, mask, causal, tile)
        found = _several(found, ("output", "log-sum-exp"))
        if not all(torch.equal(a, b) for a, b in zip(kept, (q, k, v), strict=True)):
            raise AssertionError("q, k or v was changed: work on copies (q / ... makes one).")
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
    found_output = _tensor(found[0], f"{where}: the output", output.shape)
    found_lse = _tensor(found[1], f"{where}: the log-sum-exp", lse.shape)
    if found_output.isnan().any() or found_lse.isnan().any():
        raise AssertionError(
            f"{where}: there is NaN. A query may see no key in a tile, or none at all: its output "
            "is 0 and its log-sum-exp -inf. `absorb` and `finish` see to it."
        )
    root = math.sqrt(q.size(-1))
    others = {
        "The scores are not divided by the square root of d.": (q * root, mask),
        "The scores are divided by d, not by its square root.": (q / root, mask),
    }
    if mask is not None:
        corner = torch.ones(q.size(-2), k.size(-2), dtype=torch.bool).tril()
        others["The mask has no effect."] = (q, None)
        others[
            "The causal mask is drawn from the corner. The queries are the *last* Q of the K "
            "positions: query 0 has K - Q keys before it."
        ] = (q, corner)
    if not _same(found_output, output):
        for why, (changed, hidden) in others.items():
            if _same(found_output, plain(changed, k, v, hidden)[0]):
                raise AssertionError(f"{where}: {why}")
        raise AssertionError(f"{where}: the output {_first(found_output, output)}.")
    if not _same(found_lse, lse):
        raise AssertionError(
            f"{where}: the output is right; the log-sum-exp {_first(found_lse, lse)}. It is the "
            "second thing that `finish` returns."
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


right_flash = flash_attention


@verdict
def check_merge(merge: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> str:
    """Chapter 07, exercise 3. Returns a verdict; raises AssertionError on a wrong merge."""
    torch.manual_seed(0)
    for loud, sizes, leading in ((1, (4, 1, 7), ()), (400, (3, 5), (2,)), (1, (3, 0, 2), (2, 2))):
        q = loud * torch.randn(*leading, 2, 4, dtype=torch.float64)
        k, v = torch.randn(2, *leading, sum(sizes), 4, dtype=torch.float64)
        parts = zip(k.split(sizes, dim=-2), v.split(sizes, dim=-2), strict=True)
        outputs, lses = map(
            torch.stack, zip(*(right_flash(q, *part) for part in parts), strict=True)
        )
        found = _several(ask(merge, outputs, lses), ("output", "log-sum-exp"))
        where = f"parts of {' and '.join(map(str, sizes))} keys" + ", large scores" * (loud > 1)
        _judge_merge(found, plain(q, k, v), outputs, lses, where)
    outputs, lses = torch.zeros(2, 3, 4), torch.full((2, 3), -math.inf)
    found = _several(ask(merge, outputs, lses), ("output", "log-sum-exp"))
    _judge_merge(found, (outputs[0], lses[0]), outputs, lses, "no part saw a key")
    return "merge is right: two parts and three, large scores, and parts that saw nothing."


def _judge_merge(found: tuple, right: tuple, outputs: Tensor, lses: Tensor, where: str) -> None:
    output = _tensor(found[0], f"{where}: the output", right[0].shape)
    lse = _tensor(found[1], f"{where}: the log-sum-exp", right[1].shape)
    if output.isnan().any() or lse.isnan().any():
        raise AssertionError(
            f"{where}: there is NaN. Large log-sum-exps overflow in exp, and where every part has "
            "-inf a softmax divides 0 by 0. `softmax`, from notebook 01, minds both."
        )
    if not _same(output, right[0]):
        why = ""
        if _same(output, outputs.mean(dim=0)):
            why = " That is the mean; a part counts by the sum of its powers, exp(lse)."
        if _same(output, outputs.sum(dim=0)):
            why = " That is the sum; the parts' weights must add up to 1."
        if _same(output, (softmax(lses).unsqueeze(-1) * outputs).sum(dim=0)):
            why = " The weights of one query must add up to 1 over the parts, the first dimension."
        raise AssertionError(f"{where}: the output {_first(output, right[0])}.{why}")
    if not _same(lse, right[1]):
        why = ""
        if _same(lse, lses.amax(dim=0)):
            why = " That is the largest of them."
        if _same(lse, lses.sum(dim=0)):
            why = " That is their sum, and it is the powers that add up, not the logarithms."
        raise AssertionError(f"{where}: the log-sum-exp {_first(lse, right[1])}.{why}")


@verdict
def check_flash_backward(flash_backward: Callable[..., tuple[Tensor, Tensor, Tensor]]) -> str:
    """Chapter 07, exercise 4. Returns a verdict; raises AssertionError on wrong gradients."""
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
        found = _several(found, ("grad_q", "grad_k", "grad_v"))
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
        _tensor(gradient, f"{where}: {name}", expected.shape)
        if gradient.isnan().any() or gradient.isinf().any():
            raise AssertionError(
                f"{where}: {name} is not finite. A query that sees no key has lse -inf, and "
                "exp(scores - lse) is infinite there: hide the later keys *after* exp, with 0."
            )
        if _same(gradient, expected):
            continue
        for factor, why in ((root, "too large"), (1 / root, "too small")):
            if _same(gradient, expected * factor):
                raise AssertionError(
                    f"{where}: {name} is too {why.split()[1]} by the square root of d. The scores "
                    "are q k / sqrt(d): the factor belongs into the gradients of q and of k, once."
                )
        raise AssertionError(
            f"{where}: {name} {_first(gradient, expected)}. Every tile *adds* to the gradients; "
            "the gradient of the scores is weights * (grad @ v.T - mean)."
        )


EXERCISES = {
    "07": {
        "1: one more portion of keys": (check_absorb, ("absorb",)),
        "2: attention in tiles": (check_flash_attention, ("flash_attention",)),
        "3: merge the parts": (check_merge, ("merge",)),
        "4: backwards without the weights (optional)": (check_flash_backward, ("flash_backward",)),
    },
}
progress = partial(checks.progress, exercises=EXERCISES)
