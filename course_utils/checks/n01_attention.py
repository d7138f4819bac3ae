"""What the check cell of attention calls (notebook 01)."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from .. import attention as right
from .common import verdict
from .elsewhere import beyond_the_card
from .inputs import Call, random, tensors
from .judged import DETACHED, calling, gradients, judge

NEAR = {"scales": (1.0, 1.0, 0.0, 1e-3, 30.0), "offsets": (0.0, 0.0, 1.0, -5.0)}


@st.composite
def _queries(draw: st.DrawFn):
    """q, k, v and a mask, or None, in which each query sees something."""
    lead = draw(st.lists(st.integers(1, 2), max_size=2))
    num_queries, num_keys, d, d_v = (draw(st.integers(1, 4)) for _ in range(4))
    dtype = draw(st.sampled_from((torch.float32, torch.float64)))
    q, k, v = (
        draw(tensors([*lead, *shape], (dtype,), **NEAR))
        for shape in ((num_queries, d), (num_keys, d), (num_keys, d_v))
    )
    if draw(st.booleans()):
        return Call("attention", (q, k, v, None)[: draw(st.integers(3, 4))])
    size = num_queries * num_keys
    hidden = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    mask = ~torch.tensor(hidden).view(num_queries, num_keys)
    mask[:, draw(st.integers(0, num_keys - 1))] = True
    return Call("attention", (q, k, v, mask))


def _weights_only(call: Call) -> Call:
    q, k, _, *mask = call.args
    return Call("attention_weights", (q, k, *mask))


Scores = Callable[[Tensor, Tensor], Tensor]


def _product(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(-2, -1)


def _scaled(q: Tensor, k: Tensor) -> Tensor:
    return _product(q, k) / math.sqrt(q.size(-1))


def _hidden(scores: Tensor, mask: Tensor | None) -> Tensor:
    return scores if mask is None else scores.masked_fill(~mask, -math.inf)


def _softmax(scores: Tensor) -> Tensor:
    return torch.softmax(scores, -1)


def _wrong(
    scores: Scores = _scaled,
    masked: Callable[[Tensor, Tensor | None], Tensor] = _hidden,
    softmax: Callable[[Tensor], Tensor] = _softmax,
) -> Callable[[Call], Tensor]:
    """Attention weights with other scores, another use of the mask, or another softmax."""

    def weights(call: Call) -> Tensor:
        q, k, *mask = call.args
        return softmax(masked(scores(q, k), mask[0] if mask else None))

    return weights


def _masked_with(number: float) -> Callable[[Call], Tensor]:
    return _wrong(masked=lambda s, mask: s if mask is None else s.masked_fill(~mask, number))


def _masked_too_late(again: bool) -> Callable[[Call], Tensor]:
    def masked(scores: Tensor, mask: Tensor | None) -> Tensor:
        found = torch.softmax(scores, -1)
        if mask is not None:
            found = found.masked_fill(~mask, 0.0)
            found = found / found.sum(-1, keepdim=True) if again else found
        return found

    return _wrong(masked=masked, softmax=lambda weights: weights)


def _always_causal(scores: Tensor, _: Tensor | None) -> Tensor:
    return _hidden(scores, right.causal_mask(*scores.shape[-2:]))


BEFORE = "The mask goes on the scores, before the softmax: put -inf where it is False."
CAN_WIN = "A masked score must be -math.inf. Any other number, like 0 or -100, can still win."
WRONG_WEIGHTS = [
    (_wrong(_product), "The scores are not divided: they need a factor of 1 / sqrt(d)."),
    (
        _wrong(lambda q, k: _product(q, k) / q.size(-1)),
        "The scores are divided by d; divide by its square root.",
    ),
    (
        _wrong(lambda q, k: _product(q, k) * math.sqrt(q.size(-1))),
        "The scores are multiplied by sqrt(d); divide by it.",
    ),
    (
        _wrong(lambda q, k: _product(q, k) / math.sqrt(3)),
        "The scores are divided by sqrt(3), which was right for the story. Here d is q.size(-1).",
    ),
    (
        _wrong(lambda q, k: _product(q, k) / math.sqrt(k.size(-2))),
        "The scores are divided by the root of the number of keys. d is q.size(-1).",
    ),
    (
        _wrong(lambda q, k: _product(q, k) / math.sqrt(q.size(-2))),
        "The scores are divided by the root of the number of queries. d is q.size(-1).",
    ),
    (
        _wrong(lambda q, k: _product(q, k) / math.sqrt(q.size(0))),
        "The scores are divided by the root of the first size of q. d is the last: q.size(-1).",
    ),
    (
        _wrong(lambda q, k: _product(k, q) / math.sqrt(q.size(-1))),
        "Queries and keys are exchanged: row i of the scores belongs to query i.",
    ),
    (
        _wrong(softmax=lambda scores: torch.softmax(scores, -2)),
        "Here the columns sum to 1; the rows should: each query has 1 to give. Use dim=-1.",
    ),
    (
        _wrong(softmax=lambda scores: torch.softmax(scores, 0)),
        "The softmax goes along dim=0. Rows should sum to 1: use dim=-1.",
    ),
    (
        _wrong(softmax=lambda scores: scores),
        "These are the scores; a softmax makes weights of them.",
    ),
    (
        _wrong(softmax=lambda scores: torch.softmax(scores.float(), -1).to(scores.dtype)),
        "That is right to 7 digits only, as in float32. Leave the dtype as it is.",
    ),
    (
        _wrong(masked=lambda scores, _: scores),
        "The mask is not used: where it is False, the weight must be 0.",
    ),
    (
        _wrong(masked=lambda scores, mask: _hidden(scores, None if mask is None else ~mask)),
        "The mask is used the wrong way round: it is True where a query may look.",
    ),
    (
        _wrong(masked=lambda scores, mask: scores if mask is None else scores + ~mask * -math.inf),
        "0 times infinity is not a number. Use masked_fill to put -inf where the mask is False.",
    ),
    (
        _wrong(masked=_always_causal),
        "A causal mask is used, whatever mask came in. Use the one that came in, or none.",
    ),
    (_masked_too_late(False), BEFORE),
    (_masked_too_late(True), BEFORE),
    *(
        (_masked_with(x), CAN_WIN)
        for x in (0.0, -1.0, -10.0, -20.0, -50.0, -100.0, -1e3, -1e4, -1e5, -1e6, -1e9)
    ),
]
WRONG_ATTENTION = [
    (lambda call: right.attention(*call.args[:3]), "The mask is not handed on."),
    (lambda call: right.attention_weights(*_weights_only(call).args), "The values are missing."),
    (
        lambda call: right.attention_weights(*_weights_only(call).args) @ call.args[1],
        "The weights are multiplied with the keys. They mix the values: weights @ v.",
    ),
]


def _first() -> list[Call]:
    """Five queries on six keys; then a hidden score that is far above the one that is left."""
    easy = random(0, 5, 3), random(1, 6, 3), random(2, 6, 3)
    far = (torch.tensor(rows) for rows in ([[1e6]], [[-3e6], [0.0]], [[1.0], [2.0]]))
    return [
        Call("attention", (*easy, None)),
        Call("attention", (*easy, right.causal_mask(5, 6))),
        Call("attention", (*far, torch.tensor([[True, False]]))),
    ]


def _in_float32(call: Call) -> Call:
    return replace(call, args=tuple(x.float() if _real(x) else x for x in call.args))


def _real(x: object) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def _many(lead: tuple[int, ...], num_queries: int, num_keys: int, d: int) -> Call:
    shapes = (num_queries, d), (num_keys, d), (num_keys, d + 1)
    q, k, v = (random(seed, *lead, *shape) for seed, shape in enumerate(shapes))
    return Call("attention", (q, k, v, right.causal_mask(num_queries, num_keys)))


LARGE = [_many((2, 1, 3), 3, 5, 4), _many((2, 5), 40, 300, 9), _many((3,), 2, 1100, 70)]


@verdict
def check_attention(
    attention_weights: Callable[..., Tensor], attention: Callable[..., Tensor]
) -> str:
    """Notebook 01, exercise 3. Returns a verdict; raises AssertionError on wrong attention."""
    weights, output = calling(right.attention_weights), calling(right.attention)
    first = _first()
    judge(
        calling(attention_weights),
        weights,
        _queries().map(_weights_only),
        WRONG_WEIGHTS,
        first=[_weights_only(call) for call in first],
        exact=lambda call: weights(call.double()),
        number=80,
    )
    judge(
        calling(attention),
        output,
        _queries(),
        WRONG_ATTENTION,
        first=first,
        exact=lambda call: output(call.double()),
        number=50,
        advice="It should be the weights, with the mask, times v.",
    )
    judge(
        calling(attention),
        output,
        st.sampled_from(LARGE),
        first=LARGE,
        exact=lambda call: output(call.double()),
        number=1,
    )
    steep = [*first[:2], *map(_in_float32, first[:2])]
    for answer, expected, cases in (
        (attention_weights, right.attention_weights, [*map(_weights_only, steep)]),
        (attention, right.attention, steep),
    ):
        judge(
            gradients(answer),
            gradients(expected),
            st.sampled_from(cases),
            first=cases,
            exact=lambda call, expected=expected: gradients(expected)(call.double()),
            number=1,
            advice=DETACHED,
        )
    more = (beyond_the_card(partial(_elsewhere, attention, m), "attention") for m in (True, False))
    return (
        "attention is right: with and without a mask, for one sequence and batches of heads, for "
        "any numbers of queries and keys, for small scores and huge ones, and its gradient."
        f"{next(filter(None, more), '')}"
    )


def _elsewhere(
    attention: Callable[..., Tensor], masked: bool, _: nn.Module, device: torch.device
) -> Tensor:
    q, k, v = (torch.empty(2, 3, 4, 5, device=device) for _ in range(3))
    mask = torch.ones(4, 4, dtype=torch.bool, device=device)
    return attention(q, k, v, mask if masked else None)
