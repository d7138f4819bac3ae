"""What the check cell of the next token calls: greedy, and drawn as often as it should be (03)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from .. import generation as right
from .common import shape_or_type, verdict
from .elsewhere import beyond_the_card
from .inputs import Call
from .judged import Answer, judge
from .n03_sampling import FLOATS
from .shares import Chances, Shares, chances, clear, repeatable, seeded
from .watched import asked

DRAWS = 1000
CLOSE = torch.tensor([[1000.0, 1000.2, 1000.1]])  # the same in 16 bits


@dataclass(frozen=True)
class _Choice:
    """Logits (B, V) of one position, the options, and whether a generator is handed in."""

    logits: Tensor
    options: dict
    own_generator: bool = True
    draws: int = DRAWS

    def __str__(self) -> str:
        return str(Call("next_token", (self.logits,), self.options))

    def clear(self) -> bool:
        """Whether rounding cannot decide which words top-p keeps."""
        p = self.options.get("top_p")
        if p is None:
            return True
        return clear(chances(self.logits, **{**self.options, "top_p": None}).log(), p)


@st.composite
def _choices(draw: st.DrawFn, temperatures: tuple[float, ...]) -> _Choice:
    """Rows without ties, on levels of their own, and any options."""
    num_words = draw(st.integers(1, 5))
    steps = st.lists(st.integers(-6, 6), min_size=num_words, max_size=num_words, unique=True)
    rows = torch.tensor(draw(st.lists(steps, min_size=1, max_size=3)))
    levels = [[draw(st.sampled_from((0, 1, -5, 100, 1000)))] for _ in rows]
    logits = rows * draw(st.sampled_from((0.5, 0.2, 20.0))) + torch.tensor(levels)
    options = {
        "temperature": draw(st.sampled_from(temperatures)),
        "top_k": draw(st.sampled_from((None, None, 2, 3, 1, 9))),
        "top_p": draw(st.sampled_from((None, None, 0.6, 0.8, 0.3, 0.95))),
    }
    options = {name: value for name, value in options.items() if value is not None}
    return _Choice(logits.to(draw(st.sampled_from(FLOATS))), options, draw(st.booleans()))


def _tokens(next_token: Callable[..., Tensor], choice: _Choice, draws: int) -> Tensor:
    """So many tokens for each row (draws, B), from one call; an error becomes a sentence."""
    rows = choice.logits.repeat(draws, 1)
    # As a model gives them: the last of several positions.
    logits = torch.stack([-rows, rows], dim=1)[:, -1]
    options = dict(choice.options)
    given = [logits, *([options.pop("temperature")] if "temperature" in options else [])]
    generator = seeded(0) if choice.own_generator else torch.manual_seed(0)
    if choice.own_generator:
        options["generator"] = generator
    found = asked(next_token, *given, **options)
    if given[1:] == [0] and not torch.equal(generator.get_state(), seeded(0).get_state()):
        raise AssertionError("uses up random numbers, or sets their seed")
    if not torch.equal(logits, rows):
        raise AssertionError("changes the logits that came in; work on a new tensor")
    return token_ids(found, len(rows), rows.size(-1)).view(draws, -1)


def token_ids(found: object, number: int, num_words: int) -> Tensor:
    """`found`, or AssertionError unless it is that number of token ids."""
    if not isinstance(found, Tensor):
        raise AssertionError(f"gives {shape_or_type(found)}, expected a torch.Tensor")
    if found.shape != (number,):
        raise AssertionError(
            f"has shape {tuple(found.shape)}, expected ({number},): one id for each row"
        )
    if found.dtype != torch.int64:
        raise AssertionError(f"has dtype {found.dtype}; a token id is a torch.int64")
    if found.min() < 0 or found.max() >= num_words:
        outside = found[(found < 0) | (found >= num_words)][0]
        raise AssertionError(f"holds token {outside.item()}: there are only 0 to {num_words - 1}")
    return found


def _greedy(next_token: Callable[..., Tensor]) -> Answer:
    return lambda choice: _tokens(next_token, choice, 1)[0]


def _drawn(next_token: Callable[..., Tensor]) -> Answer:
    def answer(choice: _Choice) -> object:
        tokens = _tokens(next_token, choice, choice.draws)
        num_words = choice.logits.size(-1)
        return {
            f"row {row}": Shares(torch.bincount(column, minlength=num_words))
            for row, column in enumerate(tokens.unbind(1))
        }

    return answer


def _with_chances(given: Callable[..., Tensor]) -> Answer:
    """The answer to a choice whose rows are drawn with the probabilities that `given` gives."""

    def answer(choice: _Choice) -> object:
        rows = given(choice.logits.double(), **choice.options)
        return {f"row {number}": Chances(row) for number, row in enumerate(rows)}

    return answer


def _temperature_last(x: Tensor, temperature: float = 1.0, **cuts: float) -> Tensor:
    return torch.softmax(chances(x, 1.0, **cuts).log() / temperature, -1)


def _top_p_first(
    x: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    return chances(chances(x, temperature, None, top_p).log(), 1.0, top_k)


def _without(*names: str) -> Callable[..., Tensor]:
    """Chances where some of the options are not used."""
    return lambda x, **given: chances(x, **{n: v for n, v in given.items() if n not in names})


def _only(name: str, instead_of: str) -> Callable[..., Tensor]:
    """Chances where an option is not used if another one is."""
    return lambda x, **given: _without(*([instead_of] if name in given else []))(x, **given)


def _hotter(change: Callable[[float], float]) -> Callable[..., Tensor]:
    return lambda x, temperature=1.0, **cuts: chances(x, change(temperature), **cuts)


def _of_logits(change: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda x, **given: chances(change(x), **given)


def _no_softmax(
    x: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """The logits that are left, as if they were probabilities. Raises ValueError if one is not."""
    left = x / temperature
    left = left if top_k is None else right.keep_top_k(left, top_k)
    left = left if top_p is None else right.keep_top_p(left, top_p)
    if left.min() < 0 or (left.sum(-1) == 0).any():
        raise ValueError("no probabilities")
    return left / left.sum(-1, keepdim=True)


WRONG_CHANCES = [
    (
        _no_softmax,
        "The logits are drawn from as they are. torch.multinomial wants probabilities: softmax.",
    ),
    (
        _hotter(lambda temperature: 1 / temperature),
        "The logits are multiplied by the temperature: divide by it.",
    ),
    (_without("temperature"), "The temperature is not used: divide the logits by it first."),
    (
        _temperature_last,
        "The temperature comes first: it changes which words reach p.",
    ),
    (
        _top_p_first,
        "Top-p has to be given the logits that top-k left: first the k best stay, then those of "
        "them that reach p.",
    ),
    (_without("top_k"), "top_k is not used."),
    (_without("top_p"), "top_p is not used."),
    (_without("top_k", "top_p"), "Neither top_k nor top_p is used."),
    (_only("top_k", "top_p"), "top_p is not used where there is a top_k: both may be given."),
    (_only("top_p", "top_k"), "top_k is not used where there is a top_p: both may be given."),
    (
        lambda x, **given: torch.softmax(chances(x, **given), -1),
        "The softmax is applied twice: draw from the probabilities as they are.",
    ),
    (
        _of_logits(lambda x: torch.softmax(x, -1)),
        "A softmax comes before the temperature: divide the logits, and cut them, before it.",
    ),
    (_of_logits(lambda x: x.clamp(min=0)), "Logits below 0 become 0: leave them as they are."),
    (_of_logits(lambda x: -x), "The least likely tokens come up most: a sign is wrong."),
    (
        _of_logits(lambda x: x[:1].expand_as(x)),
        "All rows are drawn from the logits of row 0: each row has its own.",
    ),
    (
        lambda x, **given: chances(x, 0),
        "It is always the likeliest token: draw with torch.multinomial, unless temperature is 0.",
    ),
    (
        lambda x, **given: (chances(x, **given) > 0) / (chances(x, **given) > 0).sum(-1)[:, None],
        "All words that are left are drawn equally often: hand on their probabilities.",
    ),
]


@verdict
def check_next_token(next_token: Callable[..., Tensor]) -> str:
    """Notebook 03, exercise 3. Returns a verdict; raises AssertionError on a wrong choice."""
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.5, -1.0, 0.0]])
    judge(
        _greedy(next_token),
        _greedy(right.next_token),
        _choices((0, 0.0)),
        [
            (lambda choice: choice.logits.argmin(-1), "These are the least likely tokens."),
            (
                lambda choice: choice.logits.clamp(min=0).argmax(-1),
                "Logits below 0 become 0: leave them as they are.",
            ),
        ],
        first=[_Choice(x, {"temperature": 0}) for x in (logits[:1], logits, CLOSE)],
        number=20,
        advice="At temperature 0 nothing is divided and nothing drawn: take the likeliest token "
        "of each row, and return.",
    )
    tied = [next_token(torch.zeros(40, 3), 0, generator=seeded(seed)) for seed in (1, 2)]
    if not torch.equal(*tied):
        raise AssertionError(
            "With temperature=0 and equal logits, next_token gives another token each time: "
            "nothing is drawn then. Take the likeliest, the first of equal ones, and return."
        )
    options = [{}, *({"temperature": heat} for heat in (1.0, 0.5, 2.0))]
    options += [{"top_k": 2}, {"temperature": 2.0, "top_p": 0.7}, {"top_k": 2, "top_p": 0.6}]
    options += [{"top_k": 1, "top_p": 0.95}]
    judge(
        _drawn(next_token),
        _with_chances(chances),
        _choices((1.0, 0.5, 2, 0.1, 5.0)).filter(_Choice.clear),
        [(_with_chances(wrong), advice) for wrong, advice in WRONG_CHANCES],
        first=[
            _Choice(logits[:1], {"temperature": 2.0}, draws=1),
            *(_Choice(logits[:n], given) for given in options for n in (1, 2)),
            _Choice(CLOSE, {"temperature": 0.2}),
        ],
        number=25,
    )
    many = logits.repeat(50, 1)
    for given in (*options[:1], *options[3:6], {"top_k": 2, "top_p": 0.95}):
        repeatable(
            lambda generator, given=given: next_token(many, generator=generator, **given),
            str(Call("next_token", ("logits",), given)).replace("'", ""),
        )
    more = beyond_the_card(
        lambda _, device: next_token(torch.empty(2, 5, device=device), 2.0, 3, 0.5), "next_token"
    )
    return (
        "next_token is right: greedy, three temperatures, top-k, top-p, both, and repeatable."
        f"{more}"
    )
