"""What the check cell of the residual calls: what is left of p (chapter 10)."""

import math
from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor

from ....checks.common import verdict
from ....checks.elsewhere import beyond_the_card
from ....checks.inputs import LAYOUTS, Call
from ....checks.judged import calling, judge
from .. import speculative

Residual = Callable[[Tensor, Tensor], Tensor]


@st.composite
def _distributions(draw: st.DrawFn) -> Call:
    """p and q, whose rows are different, equal, almost equal, or without a guess (q is 0)."""
    lead, vocab_size = draw(st.lists(st.integers(1, 3), max_size=2)), draw(st.integers(1, 4))
    weights = st.lists(st.integers(0, 5), min_size=vocab_size, max_size=vocab_size)
    shares = st.sampled_from((1.0, 0.0, 1e-4))
    rows = [(draw(weights), draw(weights), draw(shares)) for _ in range(math.prod(lead))]
    guessed = torch.tensor([draw(st.integers(0, 4)) < 4 for _ in rows])
    mine, theirs, share = (torch.tensor(part).double() for part in zip(*rows, strict=True))
    p, other = _divided(mine + 0.1), _divided(theirs + 0.1)
    q = (p + share[:, None] * (other - p)) * guessed[:, None]
    dtype, layout = draw(st.sampled_from((torch.float32, torch.float64))), draw(LAYOUT)
    return Call("residual", tuple(layout(x.view(*lead, vocab_size).to(dtype)) for x in (p, q)))


LAYOUT = st.sampled_from(LAYOUTS)
HALVES = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
FIRST = [
    Call("residual", (torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.2, 0.6, 0.2]]))),
    Call("residual", (HALVES, torch.tensor([[0.25, 0.75], [1.0, 0.0]]))),
    Call("residual", (HALVES[:1], torch.zeros(1, 2))),
    Call("residual", (HALVES, HALVES.clone())),
    Call("residual", (HALVES, torch.tensor([[0.5, 0.5], [0.75, 0.25]]))),
]


def _more(p: Tensor, q: Tensor) -> Tensor:
    return (p - q).clamp(min=0)


def _divided(x: Tensor, added: float = 0.0) -> Tensor:
    return x / (x.sum(-1, keepdim=True) + added)


def _guarded(wrong: Residual) -> Residual:
    """The same, but p itself in the rows where p exceeds q nowhere."""
    return lambda p, q: torch.where((p > q).any(-1, keepdim=True), wrong(p, q), p)


def _or_zeros(wrong: Residual) -> Residual:
    """The same, but 0 where that is NaN."""
    return lambda p, q: wrong(p, q).nan_to_num(0.0)


def _from(least: float) -> Residual:
    """Right only where the sum is more than that."""
    enough = lambda p, q: _more(p, q).sum(-1, keepdim=True) > least  # noqa: E731
    return lambda p, q: torch.where(enough(p, q), _divided(_more(p, q)), p)


RETURN_P = "In a row where p equals q nothing is missing, and the sum is 0: return p there."
OTHER_RULES: list[tuple[Residual, str]] = [
    (_more, "It does not sum to 1 yet."),
    (lambda p, q: p - q, "Numbers below 0 are not probabilities: where q exceeds p, use 0."),
    (
        lambda p, q: _divided(_more(q, p)),
        "That is where q exceeds p. The model that has the last word is p.",
    ),
    (
        lambda p, q: _divided((p - q).abs()),
        "Where q exceeds p the guesses brought too much already: nothing is left there.",
    ),
    (
        lambda p, q: _more(p, q) / _more(p, q).sum(),
        "Each row is a distribution of its own: the sum is over the last dimension.",
    ),
    (
        lambda p, q: _more(p, q) / _more(p, q).sum(0),
        "Each row is a distribution of its own: the sum is over the last dimension.",
    ),
    (lambda p, q: _divided(p * (p > q)), "It is by how much p exceeds q there, not p itself."),
    (lambda p, q: torch.softmax(p - q, -1), "That is a softmax: divide by the sum instead."),
    (
        lambda p, q: torch.softmax(_more(p, q), -1),
        "That is a softmax: divide by the sum instead.",
    ),
]
WRONG: list[tuple[Residual, str]] = [
    (
        lambda p, q: p,
        "That is p. But the guesses that were kept have had their share of p already: drawn from "
        "p, what q likes would come too often.",
    ),
    (lambda p, q: q, "That is q. The model that has the last word is p."),
    (
        lambda p, q: speculative.residual(q, p),
        "That is where q exceeds p. The model that has the last word is p.",
    ),
    *(
        (change(wrong), advice)
        for wrong, advice in OTHER_RULES
        for change in (lambda same: same, _guarded, _or_zeros)
    ),
    (lambda p, q: _divided(_more(p, q)), RETURN_P),
    (_or_zeros(lambda p, q: _divided(_more(p, q))), RETURN_P),
    (lambda p, q: _divided(_more(p, q)).nan_to_num(1 / p.size(-1)), RETURN_P),
    *(
        (lambda p, q, number=number: _divided(_more(p, q), number), RETURN_P)
        for number in (1e-12, 1e-10, 1e-9, 1e-8, 1e-6)
    ),
    *(
        (
            _guarded(lambda p, q, number=number: _divided(_more(p, q), number)),
            f"{number:g} was added to the sum: the rows sum to less than 1 then.",
        )
        for number in (1e-12, 1e-10, 1e-9, 1e-8, 1e-6)
    ),
    *(
        (_from(number), "Where p exceeds q by however small a sum, the residual is drawn from.")
        for number in (1e-5, 1e-4, 1e-3, 1e-2, 0.1)
    ),
    (
        lambda p, q: _divided(_more(p, q)) if (p > q).any() else p,
        "Of some rows nothing is left, and of others something. " + RETURN_P,
    ),
    (
        lambda p, q: _divided(_more(p, q)) if (p > q).any(-1).all() else p,
        "Of one row nothing is left, and p was returned for all. Decide row by row.",
    ),
]


@verdict
def check_residual(residual: Residual) -> str:
    """Chapter 10, exercise 5. Returns a verdict; raises AssertionError on a wrong distribution."""
    expected = calling(speculative.residual)
    judge(
        calling(residual),
        expected,
        _distributions(),
        [(calling(wrong), advice) for wrong, advice in WRONG],
        first=FIRST,
        exact=lambda call: expected(call.double()),
        number=150,
        advice="It is max(0, p - q), divided by its sum, row by row.",
    )
    more = beyond_the_card(
        lambda _, device: residual(*torch.empty(2, 2, 3, device=device)), "residual"
    )
    return f"residual is right: where p exceeds q, by how much, and the sum is 1.{more}"
