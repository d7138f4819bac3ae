"""What the check cell of the loop calls: greedy texts, and texts drawn as they should be (03)."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from .. import generation as right
from .common import verdict
from .elsewhere import beyond_the_card
from .inputs import Call
from .judged import Answer, judge
from .shares import Chances, Shares, chances, clear, repeatable, seeded
from .watched import (
    ROOM,
    Watched,
    asked,
    explain_runs,
    explain_texts,
    left_as_it_was,
    long_prompt,
    without_complaint,
    written_prompts,
)

Options = dict[str, float]


@dataclass(frozen=True)
class _Telling:
    """What generate is called with: prompts (B, T) for a model made from a seed, and options."""

    seed: int
    num_words: int
    prompts: tuple[tuple[int, ...], ...]
    new: int
    options: Options
    training: bool = False
    own_generator: bool = True
    draws: int = 1000
    level: float = 0.0

    def model(self) -> Watched:
        room = max(ROOM, len(self.prompts[0]) + self.new)
        model = Watched(self.seed, self.num_words, self.training, room)
        nn.init.constant_(model.output_projection.bias, self.level)
        return model

    def texts(self) -> Iterator[list[list[int]]]:
        """All texts after which a word may be drawn, those of one length together."""
        for length in range(self.new):
            words = list(itertools.product(range(self.num_words), repeat=length))
            yield [[*prompt, *more] for prompt in dict.fromkeys(self.prompts) for more in words]

    @torch.no_grad()
    def logits(self) -> list[tuple[list[list[int]], Tensor]]:
        """These texts (N, T), and the logits (N, T, V) of each."""
        model = self.model()
        return [(texts, model(torch.tensor(texts))[0]) for texts in self.texts()]

    def clear(self) -> bool:
        """Whether rounding cannot decide which words top-p keeps."""
        if "top_p" not in self.options:
            return True
        uncut = {**self.options, "top_p": None}
        return all(
            clear(chances(logits[:, -1], **uncut).log(), self.options["top_p"])
            for _, logits in self.logits()
        )

    def __str__(self) -> str:
        prompts = written_prompts(self.prompts)
        options = "".join(f", {name}={value}" for name, value in self.options.items())
        mode = " (the model is in training mode)" if self.training else ""
        return f"generate(model, {prompts}, {self.new}{options}){mode}"


@st.composite
def _tellings(draw: st.DrawFn, greedy: bool) -> _Telling:
    num_words = draw(st.sampled_from((5, 20, 3) if greedy else (3, 4, 2)))
    new = draw(st.integers(0, 5) if greedy else st.integers(1, 3))
    length = draw(st.one_of(st.integers(1, 3), st.just(ROOM - new)))
    word = st.integers(0, num_words - 1)
    prompts = draw(st.lists(st.tuples(*[word] * length), min_size=1, max_size=3, unique=not greedy))
    heats = (0, 0.0) if greedy else (1.0, 0.5, 2.0, 5)
    options = {"temperature": draw(st.sampled_from(heats))}
    for name, values in (("top_k", (1, 2)), ("top_p", (0.5, 0.8))):
        if draw(st.integers(0, 2)) == 2:
            options[name] = draw(st.sampled_from(values))
    seed, training, own = draw(st.integers(0, 9)), draw(st.booleans()), draw(st.booleans())
    return _Telling(seed, num_words, tuple(prompts), new, options, training, own)


def _told(generate: Callable[..., Tensor], telling: _Telling, draws: int) -> Tensor:
    """The texts (draws, B, T + new), from one call, after a look at how they came about."""
    model, options = telling.model(), dict(telling.options)
    prompts = torch.tensor(telling.prompts).repeat(draws, 1)
    given = [options.pop("temperature")] if "temperature" in options else []
    if telling.own_generator:
        options["generator"] = seeded(0)
    else:
        torch.manual_seed(0)
    before = prompts.clone()
    found = asked(generate, model, prompts, telling.new, *given, **options)
    left_as_it_was(model, prompts, telling.training, before)
    explain_texts(found, before, telling.new)
    explain_runs(found, model.fed, before.size(1))
    return found.view(draws, len(telling.prompts), -1)


def _greedy(generate: Callable[..., Tensor]) -> Answer:
    return lambda telling: _told(generate, telling, 1)[0]


def _drawn(generate: Callable[..., Tensor]) -> Answer:
    """How often each word came after each text."""

    def answer(telling: _Telling) -> object:
        found = _told(generate, telling, telling.draws).flatten(0, 1)
        shares = {}
        for text in itertools.chain.from_iterable(telling.texts()):
            here = (found[:, : len(text)] == torch.tensor(text)).all(1)
            counts = torch.bincount(found[here, len(text)], minlength=telling.num_words)
            shares[_after(text)] = Shares(counts)
        return shares

    return answer


def _after(text: list[int]) -> str:
    return f"the word after {text}"


def _with_chances(given: Callable[..., Tensor]) -> Answer:
    """The answer in which each word has the probability that `given` gives for the logits."""

    def answer(telling: _Telling) -> object:
        found = {}
        for texts, logits in telling.logits():
            for text, row in zip(texts, given(logits.double(), **telling.options), strict=True):
                found[_after(text)] = Chances(row)
        return found

    return answer


def _of_logits(change: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """The chances from changed logits (B, V) of the last position."""
    return lambda logits, **options: chances(change(logits[:, -1]), **options)


def _without(*names: str) -> Callable[..., Tensor]:
    return lambda logits, **options: chances(
        logits[:, -1], **{name: x for name, x in options.items() if name not in names}
    )


def _hotter(change: Callable[[float], float]) -> Callable[..., Tensor]:
    return lambda logits, temperature=1.0, **cuts: chances(
        logits[:, -1], change(temperature), **cuts
    )


CLIPPED = "Logits below 0 become 0: next_token takes them as they are."
ROW_0 = "All rows go on as row 0 does: each has its own logits."
LAST = "Only the last position counts: logits[:, -1]."
WRONG_CHANCES = [
    (_without("temperature"), "The temperature is not handed on to next_token."),
    (_without("top_k"), "top_k is not handed on to next_token."),
    (_without("top_p"), "top_p is not handed on to next_token."),
    (
        _without("top_k", "top_p"),
        "top_k and top_p are not handed on to next_token: that is what `**sampling` is for.",
    ),
    (
        _without("temperature", "top_k", "top_p"),
        "None of the options is handed on to next_token: temperature, and `**sampling`.",
    ),
    (
        _hotter(lambda temperature: temperature**2),
        "The temperature is used twice: next_token divides by it already.",
    ),
    (
        _of_logits(lambda x: torch.softmax(x, -1)),
        "next_token is given probabilities. It takes the logits as they are: the softmax is in it.",
    ),
    (_of_logits(lambda x: 2 * x), "The logits are doubled: next_token takes them as they are."),
    (_of_logits(lambda x: x / 2), "The logits are halved: next_token takes them as they are."),
    (_of_logits(lambda x: x.clamp(min=0)), CLIPPED),
    (
        lambda logits, **_: chances(logits[:, -1], 0),
        "The words are the greedy ones at any temperature: is it handed on to next_token?",
    ),
    (
        _of_logits(torch.zeros_like),
        "All words are drawn equally often: next_token takes the logits as they are.",
    ),
]


def _greedy_at(position: Callable[[Tensor], Tensor]) -> Answer:
    """The greedy texts by another row of the logits (B, T, V) than the last."""

    def answer(telling: _Telling) -> Tensor:
        model, ids = telling.model(), torch.tensor(telling.prompts)
        for _ in range(telling.new):
            token = position(model(ids)[0]).argmax(-1)
            ids = torch.cat([ids, token[:, None]], dim=1)
        return ids

    return answer


@torch.no_grad()
def _right_texts(telling: _Telling) -> Tensor:
    ids = torch.tensor(telling.prompts)
    return right.generate(telling.model(), ids, telling.new, 0, use_cache=False)


@verdict
def check_generate(generate: Callable[..., Tensor]) -> str:
    """Notebook 03, exercise 4. Returns a verdict; raises AssertionError on a wrong loop."""
    greedy = {"temperature": 0}
    judge(
        _greedy(generate),
        _right_texts,
        _tellings(greedy=True),
        [
            (_greedy_at(lambda logits: logits[:, 0]), LAST),
            (_greedy_at(lambda logits: logits[:, -2]), LAST),
            (_greedy_at(lambda logits: logits.mean(1)), LAST),
            (_greedy_at(lambda logits: -logits[:, -1]), "These are the least likely words."),
            (_greedy_at(lambda logits: logits[:, -1].clamp(min=0)), CLIPPED),
            (_greedy_at(lambda logits: logits[:1, -1].expand_as(logits[:, -1])), ROW_0),
            (
                without_complaint(_greedy(generate)),
                "Each is the likeliest word after the text before it: are the logits of the last "
                "position handed on as they are, and the temperature?",
            ),
        ],
        first=[
            _Telling(0, 20, ((1, 3, 2),), 5, greedy),
            _Telling(0, 20, ((4,), (0,)), 3, greedy),
            _Telling(0, 20, ((4, 9), (0, 1), (7, 7)), 5, greedy, level=1000.0),  # not in 16 bits
            _Telling(0, 20, ((5, 7),), ROOM - 2, greedy),
            _Telling(0, 20, ((5, 7),), 0, greedy),
            _Telling(0, 50, (long_prompt(50),), 3, greedy),
        ],
        number=25,
    )
    options = [{}, *({"temperature": heat} for heat in (1.0, 0.5, 2.0)), {"top_k": 2}]
    options += [{"temperature": 2.0, "top_p": 0.7}, {"temperature": 0.5, "top_k": 2, "top_p": 0.9}]
    judge(
        _drawn(generate),
        _with_chances(_of_logits(lambda x: x)),
        _tellings(greedy=False).filter(_Telling.clear),
        [(_with_chances(wrong), advice) for wrong, advice in WRONG_CHANCES],
        first=[
            _Telling(15, 3, ((0,), (2,)), 2, given, draws=1000 if given else 5000)
            for given in options
        ],
        number=15,
    )
    model, prompt = Watched(0, 20), torch.tensor([[1, 3, 2]]).repeat(20, 1)
    for given in ({}, {"top_k": 5}, {"top_p": 0.9}):
        repeatable(
            lambda generator, given=given: generate(
                model, prompt, 5, 2.0, generator=generator, **given
            ),
            str(Call("generate", ("model", "prompt", 5, 2.0), given)).replace("'", ""),
        )
    more = beyond_the_card(
        lambda model, device: generate(model, prompt.to(device), 3, 1.0, top_k=2),
        "generate",
        model,
    )
    return (
        "generate is right: whole text each time, one sequence and more, greedy, and drawn as "
        f"often as temperature, top-k and top-p say.{more}"
    )
