"""What the check cells of the two cuts call: which words stay (notebook 03)."""

import itertools
import math
from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor

from .. import generation as right
from .common import has_shape, verdict
from .elsewhere import beyond_the_card
from .inputs import MOST_SHOWN, Call, random, tensors, written
from .judged import Answer, Mistakes, calling, judge
from .shares import clear

FLOATS = (torch.float32, torch.float64)
NOT_INFINITE = (0.0, -1.0, -100.0, -1e4, -1e9)  # what may be put where -inf should be


@st.composite
def _logits(draw: st.DrawFn) -> Tensor:
    """Rows on different levels, some with ties, some with words that are cut off already."""
    x = draw(tensors((draw(st.integers(1, 3)), draw(st.integers(1, 6))), FLOATS))
    if draw(st.integers(0, 3)) == 3:
        every = st.lists(st.booleans(), min_size=x.numel(), max_size=x.numel())
        gone = torch.tensor(draw(every)).view(x.shape)
        gone[:, draw(st.integers(0, x.size(-1) - 1))] = False
        x = x.masked_fill(gone, -math.inf)
    return x


def _keeping(keep: Callable[[Tensor, float], Tensor], otherwise: float = -math.inf) -> Answer:
    """The answer that keeps the logits where `keep(logits, k or p)` is True."""
    return lambda call: call.args[0].masked_fill(~keep(*call.args), otherwise)


def _not_logits(
    cut: Callable[[Tensor, float], Tensor], goes: Callable[[Tensor, float], Tensor]
) -> Mistakes:
    """The right words stay, and the numbers are wrong; `goes` is True where one is cut off."""
    for x in NOT_INFINITE:
        filled = _keeping(lambda logits, most: ~goes(logits, most), x)
        yield filled, f"What is cut off becomes {x:g}: it has to be -math.inf."
    for kind in (torch.softmax, torch.log_softmax):
        advice = f"These are the results of a {kind.__name__}: return the logits as they are."
        yield lambda call, kind=kind: kind(cut(*call.args), -1), advice
        yield lambda call, kind=kind: cut(kind(call.args[0], -1), call.args[1]), advice


def _best(x: Tensor, k: int) -> Tensor:
    """The k best of each row, best first."""
    return x.topk(min(k, x.size(-1))).values


def _chosen(x: Tensor, where: Tensor) -> Tensor:
    return torch.zeros_like(x, dtype=torch.bool).scatter(-1, where, True)


TIED = "Words that are tied with the k-th stay: compare each logit with the k-th best."
WRONG_K = [
    (
        _keeping(lambda x, k: x >= _best(x, k).min()),
        "One threshold is used for all rows: each row has its own k best.",
    ),
    (
        _keeping(lambda x, k: x >= _best(x, k)[0, -1]),
        "The threshold of row 0 is used for all rows: each row has its own k best.",
    ),
    (
        _keeping(lambda x, k: x >= _best(x.flatten(), k).min()),
        "These are the k best of all rows together: each row has its own k best.",
    ),
    (
        _keeping(lambda x, k: _best(x.T, k)[:, -1:] <= x.T),
        "These are the k best of each column: a row holds the logits of one text.",
    ),
    (_keeping(lambda x, k: _chosen(x, x.topk(min(k, x.size(-1))).indices)), TIED),
    (
        _keeping(lambda x, k: _chosen(x, x.argsort(dim=-1, descending=True, stable=True)[:, :k])),
        TIED,
    ),
    (
        _keeping(lambda x, k: x > _best(x, k)[:, -1:]),
        "The k-th word is cut off, too. It stays: only what is smaller goes.",
    ),
    (
        _keeping(lambda x, k: x >= _best(x, k + 1)[:, -1:]),
        "One word too many stays: the threshold is the k-th best, not the one after it.",
    ),
    (_keeping(lambda x, k: -x >= _best(-x, k)[:, -1:]), "The k smallest stay: keep the largest."),
    (_keeping(lambda x, k: x < _best(x, k)[:, -1:]), "The k best are cut off: they should stay."),
    *_not_logits(right.keep_top_k, lambda x, k: x < _best(x, k)[:, -1:]),
]


def _large() -> list[Tensor]:
    """Rows of as many words as a small vocabulary has, near 0 and far from it."""
    return [random(0, 5, 150), random(1, 5, 150) + 1000]


@verdict
def check_keep_top_k(keep_top_k: Callable[[Tensor, int], Tensor]) -> str:
    """Notebook 03, exercise 1. Returns a verdict; raises AssertionError on a wrong cut."""
    ks = st.one_of(st.integers(1, 4), st.sampled_from((6, 100)))
    row, other = [1.0, 4.0, 2.0, 3.0], [-5.0, -1.0, -2.0, -4.0]
    first = [(row,), (row, other), ([2.0, 1.0, 1.0, 0.0],), ([0.0, 1e-6, -1.0],)]
    judge(
        calling(keep_top_k),
        calling(right.keep_top_k),
        st.builds(lambda x, k: Call("keep_top_k", (x, k)), _logits(), ks),
        WRONG_K,
        first=[Call("keep_top_k", (torch.tensor(x), k)) for x in first for k in (2, 1, 9)],
        number=100,
    )
    large = [Call("keep_top_k", (x, k)) for x in _large() for k in (100, 40, 200)]
    judge(
        calling(keep_top_k),
        calling(right.keep_top_k),
        st.sampled_from(large),
        first=large,
        number=1,
    )
    more = beyond_the_card(
        lambda _, device: keep_top_k(torch.empty(2, 5, device=device), 3), "keep_top_k"
    )
    return f"keep_top_k is right: row by row, ties stay, and k may exceed the vocabulary.{more}"


class _Nucleus(Call):
    """A call of keep_top_p, which shows the probabilities, too."""

    def __str__(self) -> str:
        shares = torch.softmax(self.args[0], -1)
        if shares.numel() > MOST_SHOWN:
            return super().__str__()
        rounded = written((shares * 100).round() / 100)
        return f"{super().__str__()}, with the probabilities {rounded},"


def _settled(cut: Answer) -> Answer:
    """The same, but of words that are tied the first ones stay: which of them do is left open."""

    def answer(call: Call) -> object:
        found, logits = cut(call), call.args[0]
        if not has_shape(found, logits.shape):
            return found
        found = found.clone()
        for row, own in zip(found, logits, strict=True):
            for logit in own.unique():
                row[own == logit] = row[own == logit].sort(descending=True).values
        return found

    return answer


def _by_likeliness(goes: Callable[[Tensor, float], Tensor], descending: bool = True) -> Answer:
    """A nucleus without the words for which `goes(probabilities in order, p)`."""

    def cut(call: Call) -> Tensor:
        x, p = call.args
        ordered, token = x.sort(descending=descending)
        ordered = ordered.masked_fill(goes(torch.softmax(ordered, -1), p), -math.inf)
        return torch.empty_like(ordered).scatter(-1, token, ordered)

    return cut


def _likelier(shares: Tensor) -> Tensor:
    return shares.cumsum(-1) - shares


def _put_back(put: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Answer:
    """The right nucleus, put back by `put(logits, those in order that stay, where each was)`."""

    def cut(call: Call) -> Tensor:
        x, p = call.args
        ordered, token = x.sort(descending=True)
        gone = _likelier(torch.softmax(ordered, -1)) >= p
        return put(x, ordered.masked_fill(gone, -math.inf), token)

    return cut


REACHES = (
    "The word with which the sum reaches p is missing: it belongs to the nucleus. Ask whether the "
    "words likelier than it have reached p already."
)
PLACES = "The number of words is right, but they are not back in their own places: use scatter."
ONE_MORE = "One word too many stays: where the words likelier than it have reached p, a word goes."
WRONG_P = [
    (_by_likeliness(lambda shares, p: shares.cumsum(-1) > p), REACHES),
    (_by_likeliness(lambda shares, p: shares.cumsum(-1) >= p), REACHES),
    (
        _by_likeliness(lambda shares, p: (shares.cumsum(-1) > p) & (_likelier(shares) > 0)),
        f"{REACHES} That holds for every row, not only where nothing else is left.",
    ),
    (
        _by_likeliness(lambda shares, p: _likelier(shares) - shares >= p),
        ONE_MORE,
    ),
    (
        _by_likeliness(lambda shares, p: _likelier(shares) > p),
        "A word also goes if those before it add up to exactly p: use >=.",
    ),
    (
        _by_likeliness(lambda shares, p: shares < p),
        "p is compared with each word's probability: it is the sum of the likeliest words' that "
        "has to reach p.",
    ),
    (
        _by_likeliness(lambda shares, p: shares < 1 - p),
        "Each word's probability is compared with 1 - p: it is the sum of the likeliest words' "
        "that has to reach p.",
    ),
    (
        _by_likeliness(lambda shares, p: shares < p * shares[:, :1]),
        "Each word is compared with the likeliest one: it is the sum of the likeliest words' "
        "probabilities that has to reach p.",
    ),
    (
        _by_likeliness(lambda shares, p: _likelier(shares) >= p, descending=False),
        "The least likely words stay: sort with descending=True.",
    ),
    (_by_likeliness(lambda shares, p: _likelier(shares) >= 1 - p), "1 - p is kept, not p."),
    (
        _by_likeliness(lambda shares, p: (_likelier(shares) >= p)[:1].expand_as(shares)),
        "The number of words that row 0 needs is used for all rows.",
    ),
    (
        _by_likeliness(lambda shares, p: shares.cumsum(0) - shares >= p),
        "The sum runs down the columns: use cumsum(-1).",
    ),
    (
        _by_likeliness(lambda shares, p: shares.cumsum(-1) <= p),
        "It is the wrong way round: the likeliest words stay.",
    ),
    (
        _keeping(lambda x, p: _likelier(torch.softmax(x, -1)) < p),
        "The words are added up in their places: sort them first, the likeliest first.",
    ),
    (
        _keeping(
            lambda x, p: (
                (right.keep_top_p(x, p).isfinite())
                | (x.exp() / x.exp().sum(-1, True)).isnan().any(-1, True)
            )
        ),
        "exp overflows for large logits: use softmax.",
    ),
    (_put_back(lambda x, ordered, token: ordered), PLACES),
    (_put_back(lambda x, ordered, token: ordered.gather(-1, token)), PLACES),
    (_put_back(lambda x, ordered, token: x.masked_fill(ordered == -math.inf, -math.inf)), PLACES),
    (
        _put_back(
            lambda x, ordered, token: x.masked_fill(
                x < ordered.masked_fill(ordered == -math.inf, math.inf).amin(-1, keepdim=True),
                -math.inf,
            )
        ),
        "Words tied with the last one stay: only the fewest words that reach p do.",
    ),
    *_not_logits(right.keep_top_p, lambda x, p: right.keep_top_p(x, p) == -math.inf),
]


@verdict
def check_keep_top_p(keep_top_p: Callable[[Tensor, float], Tensor]) -> str:
    """Notebook 03, exercise 2. Returns a verdict; raises AssertionError on a wrong nucleus."""
    ps = st.sampled_from((0.5, 0.9, 0.3, 0.7, 0.1, 0.95, 0.99, 1.0))
    rows = torch.tensor([[2.0, 4.0, 1.0, 3.0], [0.2, 0.1, 0.3, 0.0]])
    easy = [(rows[:1], p) for p in (0.5, 0.8, 0.95, 1.0)] + [(rows, p) for p in (0.6, 0.9, 1.0)]
    easy += [(torch.tensor([[0, -9.5, -10, -9.8]]), 1.0), (torch.linspace(0, 1, 99)[None], 0.04)]
    equal = [(torch.zeros(1, n, dtype=dtype), 0.5) for n in (2, 4) for dtype in FLOATS]
    judge(
        _settled(calling(keep_top_p)),
        _settled(calling(right.keep_top_p)),
        st.builds(lambda x, p: _Nucleus("keep_top_p", (x, p)), _logits(), ps).filter(
            lambda call: clear(*call.args)
        ),
        [(_settled(wrong), advice) for wrong, advice in WRONG_P],
        first=[_Nucleus("keep_top_p", args) for args in [*easy, *equal]],
        number=120,
    )
    large = [_Nucleus("keep_top_p", args) for args in itertools.product(_large(), (0.9, 0.99))]
    judge(
        _settled(calling(keep_top_p)),
        _settled(calling(right.keep_top_p)),
        st.sampled_from(large),
        first=[call for call in large if clear(*call.args)],
        number=1,
    )
    more = beyond_the_card(
        lambda _, device: keep_top_p(torch.empty(2, 5, device=device), 0.5), "keep_top_p"
    )
    return (
        "keep_top_p is right: the fewest words that reach p, in their own places, never none."
        f"{more}"
    )
