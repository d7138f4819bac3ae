"""What the check cell of attention in tiles calls (chapter 08)."""

import math
from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from ....attention import causal_mask
from ....checks.common import verdict
from ....checks.elsewhere import follows_its_device
from ....checks.inputs import Call, random
from ....checks.judged import Answer, gradients, judge
from .. import flash_attention as right
from .common import FLOATS, Named, joined, largest, masks, numbers, results, roughly, sizes
from .costs import judge_size, judge_skipping

NAMES = ("q", "k", "v", "mask", "causal", "tile")
RESULTS = ("the output", "the log-sum-exp")


@st.composite
def _attended(draw: st.DrawFn) -> Named:
    queries, keys, tile = sizes(draw)
    dtype = draw(st.sampled_from(FLOATS))
    q, k, v = (numbers(draw, shape, dtype) for shape in (queries, keys, keys))
    mask = None
    if draw(st.booleans()):
        shape = [*(queries[:-2] if draw(st.booleans()) else []), queries[-2], keys[-2]]
        mask = masks(draw, shape)
    args = (q, k, v, mask, draw(st.booleans()), tile)
    return Named("flash_attention", args[: draw(st.sampled_from((6, 6, 3, 4, 5)))], names=NAMES)


def _nan_of(call: Call) -> str:
    return (
        "Where a row is never written, the result holds whatever was in memory before: the last "
        "tile may be smaller than the others. And a query may see no key in a tile, or none at "
        "all: its output is 0, its log-sum-exp -inf; `absorb` and `finish` see to it"
    )


def _size(call: Call) -> float:
    q, k, v = call.args[:3]
    return largest(q @ k.transpose(-2, -1)) * largest(v)


def _attending(flash_attention: Callable) -> Answer:
    return results(flash_attention, RESULTS, _nan_of)


def _right_past(num_queries: int, num_keys: int) -> int:
    return num_keys - num_queries


def _wrong(
    scale: Callable[[Tensor, Tensor], float] = lambda q, k: q.size(-1) ** -0.5,
    past: Callable[[int, int], int] = _right_past,
    ends: Callable[[int, int], int] | None = _right_past,
    masked: Callable[[Tensor, bool], Tensor | None] = lambda mask, causal: mask,
    hides: Callable[[Tensor | None], bool] = lambda mask: True,
    restarts: bool = False,
    keys: Callable[[int, int], int] = lambda length, size: length,
    hidden: tuple[float, float] = (-math.inf, -math.inf),
) -> Callable:
    """`flash_attention`, with what may go wrong in it as arguments.

    `past` is where the causal mask says that the queries are, and `ends` where the loop over keys
    does, which ends with them; None: it never ends early.
    """

    def flash_attention(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        tile: tuple[int, int] = (64, 64),
    ) -> tuple[Tensor, Tensor]:
        lengths, output, lse = (q.size(-2), k.size(-2)), [], []
        mask = None if mask is None else masked(mask, causal)
        for rows in right.tiles(q.size(-2), tile[0]):
            query = q[..., rows, :] * scale(q, k)
            state = right.nothing_yet(query)
            end = ends(*lengths) + rows.stop if causal and ends else keys(lengths[1], tile[1])
            for columns in right.tiles(end, tile[1]):
                scores = query @ k[..., columns, :].transpose(-2, -1)
                if mask is not None:
                    scores = scores.masked_fill(~mask[..., rows, columns], hidden[0])
                if causal and hides(mask):
                    later = right.later(rows, columns, past(*lengths))
                    scores = scores.masked_fill(later, hidden[1])
                state = right.nothing_yet(query) if restarts else state
                state = right.absorb(state, scores, v[..., columns, :])
            for parts, part in zip((output, lse), right.finish(state), strict=True):
                parts.append(part)
        return torch.cat(output, dim=-2), torch.cat(lse, dim=-1)

    return flash_attention


def _other_lse(lse: Callable[[Tensor], Tensor]) -> Callable:
    def flash_attention(*given: object) -> tuple[Tensor, Tensor]:
        output, found = right.flash_attention(*given)
        return output, lse(found)

    return flash_attention


SHIFTED = {
    "The causal mask is drawn from the corner. The queries are the *last* Q of the K positions: "
    "query 0 has K - Q keys before it.": lambda num_queries, num_keys: 0,
    "A query sees its own key, too: the causal mask hides one key too many.": lambda *lengths: (
        _right_past(*lengths) - 1
    ),
    "A query sees one key after its own: the causal mask hides one too few.": lambda *lengths: (
        _right_past(*lengths) + 1
    ),
}
SIMPLE = [
    ({"scale": lambda q, k: 1.0}, "The scores are not divided by the square root of d."),
    ({"scale": lambda q, k: 1 / q.size(-1)}, "The scores are divided by d, not by its root."),
    (
        {"scale": lambda q, k: q.size(-1) ** 0.5},
        "The scores are multiplied by the square root of d; divide by it.",
    ),
    (
        {"scale": lambda q, k: max(k.size(-2), 1) ** -0.5},
        "The scores are divided by the square root of the number of keys. d is q.size(-1).",
    ),
    (
        {"masked": lambda mask, causal: None},
        "`mask` has no effect: where it is False, hide the score.",
    ),
    ({"hides": lambda mask: False}, "`causal` has no effect in a tile: hide what is `later`."),
    (
        {"masked": lambda mask, causal: ~mask},
        "The mask is used the wrong way round: it is True where a query may look.",
    ),
    (
        {"masked": lambda mask, causal: None if causal else mask},
        "With a mask *and* causal the mask has no effect: each hides what it hides.",
    ),
    (
        {"hides": lambda mask: mask is None},
        "With a mask *and* causal the latter has no effect: each hides what it hides.",
    ),
    (
        {"restarts": True},
        "Only the last tile of keys counts: `nothing_yet` has to come before their loop.",
    ),
    (
        {"keys": lambda length, size: length // size * size},
        "The last tile of keys is left out where it is smaller than the others.",
    ),
    ({"keys": min}, "Only the first tile of keys counts."),
    *(
        (
            {"hidden": hidden},
            f"A hidden score of {min(hidden, key=abs):g} is not hidden from a row "
            "that sees no other, and may even win. It has to be -math.inf.",
        )
        for number in (0.0, -1e4, -1e9)
        for hidden in ((number, number), (number, -math.inf), (-math.inf, number))
    ),
]
WRONG_TILES = [
    (
        _wrong(ends=lambda *lengths: _right_past(*lengths) + 1),
        "If causal, the loop over keys goes one too far: it ends before past + rows.stop.",
    ),
    *((_wrong(**what, ends=e), why) for what, why in SIMPLE for e in (_right_past, None)),
    *(
        (_wrong(past=past, ends=ends), why)
        for why, past in SHIFTED.items()
        for ends in (past, _right_past, None)[past(1, 1) > 0 :]
    ),
    (
        _other_lse(torch.exp),
        "The output is right, the log-sum-exp lacks its logarithm. It is the second thing that "
        "`finish` returns.",
    ),
    (
        _other_lse(torch.zeros_like),
        "The log-sum-exp was never written. It is the second thing that `finish` returns.",
    ),
]


@verdict
def check_flash_attention(flash_attention: Callable[..., tuple[Tensor, Tensor]]) -> str:
    """Chapter 08, exercise 2. Returns a verdict; raises AssertionError on a wrong result."""
    easy = [random(seed, 4, 4).round(decimals=1) for seed in range(3)]
    more = [*(random(seed, 2, 7, 3) for seed in (3, 4)), random(5, 2, 7, 3)]
    seen = causal_mask(7, 7).expand(2, 7, 7).clone()
    seen[1, 0] = False
    few = (more[0][:, :3], *more[1:])
    given = [
        (*easy, None, False, (2, 2)),
        (*easy, None, True, (2, 2)),
        (*easy, None, False, (3, 3)),
        (*more, seen, False, (3, 2)),
        (*few, None, True, (2, 3)),
        (few[1], few[0], few[0], None, True, (3, 2)),
        (*few, seen[0, 4:], True, (2, 2)),
        (random(6, 3, 4), random(7, 600, 4), random(8, 600, 4)),
    ]
    expected = _attending(right.flash_attention)
    judge(
        _attending(flash_attention),
        expected,
        _attended(),
        [(_attending(wrong), advice) for wrong, advice in WRONG_TILES],
        first=[Named("flash_attention", args, names=NAMES) for args in given],
        exact=roughly(expected, _size),
        number=80,
    )
    _judge_gradients(flash_attention, [Call("flash_attention", args) for args in given[1:3]])
    judge_size(flash_attention)
    judge_skipping(flash_attention)
    empty = Named("flash_attention", (few[0], *(x[:, :0] for x in more[1:])), names=NAMES)
    judge(
        _attending(flash_attention),
        expected,
        st.just(empty),
        first=[empty],
        advice="Where there is no key at all, as in an empty part of a cache, the output is 0 and "
        "the log-sum-exp -inf: no tile, nothing to absorb.",
    )

    def use(_: nn.Module, device: torch.device) -> tuple:
        q, k, v = (torch.zeros(2, 5, 4, device=device) for _ in range(3))
        mask = torch.ones(5, 5, dtype=torch.bool, device=device)
        return flash_attention(q, k, v, mask, True, (2, 3))

    follows_its_device(use, "flash_attention")
    return "flash_attention is right: tiles that fit and that do not, masks, hidden tiles left out."


def _judge_gradients(flash_attention: Callable, calls: list[Call]) -> None:
    """Autograd goes through the tiles: the chapter's third figure trains so."""
    both = (
        gradients(lambda *given, attend=attend: joined(*attend(*given)))
        for attend in (flash_attention, right.flash_attention)
    )
    judge(*both, st.sampled_from(calls), first=calls, number=1)
