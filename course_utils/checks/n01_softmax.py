"""What the check cells of the softmax and of the causal mask call (notebook 01)."""

import math
from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor

from .. import attention as right
from .common import verdict
from .elsewhere import follows_its_device
from .inputs import ROUNDING, Call, random, tensors
from .judged import DETACHED, Answer, calling, gradients, judge


@st.composite
def _scores(draw: st.DrawFn, dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float64)):
    shape = draw(st.lists(st.integers(1, 3), max_size=2)) + [draw(st.integers(1, 4))]
    x = draw(tensors(shape, dtypes))
    if draw(st.booleans()):
        every = st.lists(st.booleans(), min_size=x.numel(), max_size=x.numel())
        x = x.masked_fill(torch.tensor(draw(every)).view(x.shape), -math.inf)
    return Call("softmax", (x,))


def _scored(*rows: list[float], dtype: torch.dtype = torch.float32) -> Call:
    return Call("softmax", (torch.tensor(rows, dtype=dtype),))


# What a beginner should see first: plain numbers, then one difficulty at a time.
EASY = [
    _scored([0.0, 1.0, 2.0], [3.0, 3.0, -1.0], [2.0, 0.0, 1.0]),
    _scored([0.0, 1.0, 2.0], [3.0, 3.0, -1.0], dtype=torch.float64),
    _scored([0.0, 1000.0]),
    _scored([1000.0, 999.0], [-1000.0, -999.0]),
    _scored([-math.inf, -math.inf], [-math.inf, 0.0]),
]
COARSE = [
    *(Call("softmax", (torch.linspace(-8, 8, 200, dtype=dtype),)) for dtype in ROUNDING),
    *(Call("softmax", (torch.zeros(2, 1000, dtype=dtype),)) for dtype in ROUNDING),
]
LARGE = [
    *(Call("softmax", (random(0, *shape),)) for shape in ((2, 3, 4, 5), (2, 1, 3, 2, 4))),
    *(Call("softmax", (torch.linspace(*ends, 1100),)) for ends in ((-300, 900), (900, -300))),
]

Part = Callable[[Tensor], Tensor]


def _top(x: Tensor) -> Tensor:
    return x.amax(-1, keepdim=True)


def _sum(x: Tensor) -> Tensor:
    return x.sum(-1, keepdim=True)


def _divided(maximum: Part = _top, total: Part = _sum, masked: bool = True) -> Answer:
    """A softmax with another maximum or sum; it thinks of masked rows only if `masked`."""

    def softmax(call: Call) -> Tensor:
        x = call.args[0]
        row_max = maximum(x)
        if masked:
            row_max = row_max.masked_fill(row_max == -math.inf, 0.0)
        powers = (x - row_max).exp()
        whole = total(powers)
        return powers / (whole.masked_fill(whole == 0, 1.0) if masked else whole)

    return softmax


def _along(dim: int, masked: bool) -> Answer:
    def softmax(call: Call) -> Tensor:
        x = call.args[0]
        found = torch.softmax(x, dim)
        empty = (x == -math.inf).all(dim, keepdim=True)
        return found.masked_fill(empty, 0.0) if masked else found

    return softmax


def _of_all(call: Call) -> Tensor:
    return torch.softmax(call.args[0].flatten(), 0).view_as(call.args[0])


def _rounded(call: Call) -> Tensor:
    """The right one, off by a rounding of its largest score: as far as a right one may be off."""
    x = call.args[0]
    largest = x.masked_fill(x.isinf(), 0.0).abs().amax(-1, keepdim=True)
    return right.softmax(x) * (1 + torch.finfo(x.dtype).eps / 8 * largest)


def _in_float32(call: Call) -> Tensor:
    return right.softmax(call.args[0].float()).to(call.args[0].dtype)


def _mistakes(masked: bool) -> list[tuple[Answer, str]]:
    """What goes wrong, in an answer that thinks of masked rows or in one that does not."""
    overflow = "Subtract each row's own maximum first: nothing overflows then."
    own = "Each row has its own maximum: amax over dim=-1, with keepdim=True."
    together = "All weights together sum to 1; each row should. Sum over dim=-1 with keepdim=True."
    keepdim = "needs keepdim=True: without it, row i is paired with what belongs to row j."
    return [
        (_along(0, masked), "Here the columns sum to 1; the rows should. Use dim=-1."),
        (_divided(total=torch.sum, masked=masked), together),
        (_divided(total=lambda x: x.sum(-1), masked=masked), f"The sum {keepdim}"),
        (_divided(lambda x: x.amax(-1), masked=masked), f"The maximum {keepdim}"),
        (
            _divided(lambda x: x.amax(-1), lambda x: x.sum(-1), masked),
            f"The maximum {keepdim} So does the sum.",
        ),
        (_divided(torch.zeros_like, masked=masked), overflow),
        (_divided(torch.max, masked=masked), own),
    ]


MASKED_ROW = (
    "In a fully masked row everything is -inf, and its weights are 0: put 0 where the maximum is "
    "-inf, and divide by 1 where the sum is 0."
)
WRONG_SOFTMAXES = [
    *_mistakes(masked=True),
    *_mistakes(masked=False),
    (_of_all, "All weights together sum to 1; each row should. Use dim=-1."),
    (
        lambda call: torch.log_softmax(call.args[0], -1),
        "These are the logarithms of the weights: torch.log_softmax.",
    ),
    (_along(-1, masked=False), MASKED_ROW),
    *(
        (
            _divided(total=lambda x, more=more: _sum(x) + more),
            f"Something like {more:g} is added to the sum, so that a row sums to less than 1. "
            "Divide by 1 where the sum is 0, and by the sum itself elsewhere.",
        )
        for more in (1e-3, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
    ),
    (
        _in_float32,
        "That is right to 7 digits only, as in float32. Convert 16-bit numbers to float32, and "
        "leave all others as they are.",
    ),
]
TOO_COARSE = "16-bit numbers are too coarse to add up: compute in float32."


@verdict
def check_softmax(softmax: Callable[[Tensor], Tensor]) -> str:
    """Notebook 01, exercise 1. Returns a verdict; raises AssertionError if it is not a softmax."""
    expected = calling(right.softmax)
    judge(
        calling(softmax),
        _rounded,
        _scores(),
        WRONG_SOFTMAXES,
        first=EASY,
        exact=lambda call: expected(call.double()),
        number=100,
    )
    judge(
        calling(softmax),
        expected,
        _scores(ROUNDING),
        [(_divided(), TOO_COARSE), (_divided(masked=False), TOO_COARSE)],
        first=COARSE,
        number=40,
        advice="Compute 16-bit numbers in float32, and convert the weights at the end.",
    )
    steep = st.builds(
        lambda seed, dtype: Call("softmax", (random(seed, 2, 3).to(dtype),)),
        st.integers(0, 99),
        st.sampled_from((torch.float64, torch.float32, *ROUNDING)),
    )
    judge(
        calling(softmax),
        _rounded,
        st.sampled_from(LARGE),
        first=LARGE,
        exact=lambda call: expected(call.double()),
        number=1,
    )
    judge(
        gradients(softmax),
        gradients(right.softmax),
        steep,
        exact=lambda call: gradients(right.softmax)(call.double()),
        number=20,
        advice=DETACHED,
    )
    return (
        "softmax is right: any shape and scale, rows on different levels, masked rows, float64, "
        "float32, 16 bits, and its gradient."
    )


SIZES = [(4, 4), *((n, m) for m in range(1, 10) for n in range(1, m + 1))]
SIZES += [(3, 1200), (20, 33), (64, 64), (130, 300), (3, 3000)]


@verdict
def check_causal_mask(causal_mask: Callable[..., Tensor]) -> str:
    """Notebook 01, exercise 2. Returns a verdict; raises AssertionError on a wrong mask."""
    for num_queries, num_keys in SIZES:
        call = Call("causal_mask", (num_queries, num_keys))
        _mask(call, _found(causal_mask, call), num_queries, num_keys)
    call = Call("causal_mask", (2, 5, torch.device("cpu")))
    _mask(call, _found(causal_mask, call), 2, 5)
    follows_its_device(lambda _, device: causal_mask(2, 5, device), "causal_mask(2, 5, device)")
    return "causal_mask is right: square, single, with more keys than queries, on any device."


def _found(causal_mask: Callable[..., Tensor], call: Call) -> object:
    try:
        return calling(causal_mask)(call)
    except AssertionError as error:
        raise AssertionError(f"{call} {error}.") from error


def _mask(name: Call, mask: object, num_queries: int, num_keys: int) -> None:
    """Raise AssertionError if it is not that mask, and say of which query and key."""
    expected = torch.ones(num_queries, num_keys, dtype=torch.bool).tril(num_keys - num_queries)
    if mask is None:
        raise AssertionError(f"{name} is None: the function returns nothing.")
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = f"of dtype {mask.dtype}" if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
        raise AssertionError(f"{name} is {kind}, expected a tensor of dtype torch.bool.")
    if mask.shape != expected.shape:
        raise AssertionError(
            f"{name} has shape {tuple(mask.shape)}, expected {tuple(expected.shape)}: one row "
            "per query, one column per key."
        )
    if num_queries > 1 and torch.equal(mask, ~expected):
        raise AssertionError(f"{name} is inverted: it has to be True where a query may look.")
    for query, key in (mask != expected).nonzero().tolist():
        position = num_keys - num_queries + query
        verb = "sees" if mask[query, key] else "does not see"
        raise AssertionError(
            f"In {name}, query {query} is at position {position} and {verb} key {key}. It "
            f"should see keys 0 to {position}, its own included."
        )
