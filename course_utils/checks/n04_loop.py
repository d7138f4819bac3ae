"""What the check cell of the loop with a cache calls (notebook 04, exercise 4)."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from ..generation import decode_loop as right
from ..kv_cache import GrowingCache
from .common import ADVICE, is_stub, raised, tiny_model, verdict
from .elsewhere import follows_its_device
from .n04_draws import Loop, draws_as_it_should, follows_its_seed, model_of, told_by
from .n04_wrong_loops import WRONG_LOOPS
from .seen import Seen, judge_seen

LONG = 1100
RUNS = "the number of tokens in each run of the model"
TWO_THINGS = "the model returns two things: `logits, past_kv = model(...)`"


@dataclass(frozen=True)
class Decoding:
    """A greedy continuation; `held` tokens are in a cache that is handed in (None: it is not).

    `stop` is the number of that token of the first row's continuation at which it stops.
    """

    rows: int
    tokens: int
    new: int
    use_cache: bool
    held: int | None = None
    stop: int | None = None
    beside: bool = False
    seed: int = 0

    def __str__(self) -> str:
        past = "" if self.held is None else f", past_kv=<a cache of {self.held} tokens>"
        stop = "" if self.stop is None else f", stop_token={self.stop_token()}"
        turn = ", in turn with another one" * self.beside
        given = f"model, <ids ({self.rows}, {self.tokens})>, {self.new}, {self.use_cache}"
        return f"decode_loop({given}{past}{stop}, temperature=0){turn}:"

    def ids(self, what: int = 0) -> Tensor:
        """Texts: the prompt (0), that of another loop (1), what is in the cache before (2)."""
        generator = torch.Generator().manual_seed(10 * self.seed + what)
        length = (self.held or 0) if what == 2 else self.tokens
        return torch.randint(20, (self.rows, length), generator=generator)

    def options(self) -> dict[str, object]:
        """What the loop is called with by name, made anew."""
        options: dict[str, object] = {"temperature": 0}
        if self.held is not None:
            options["past_kv"] = GrowingCache(model_of(), self.rows)
        if self.held:
            with torch.no_grad():
                model_of()(self.ids(2), options["past_kv"], True)
        if self.stop is not None:
            options["stop_token"] = self.stop_token()
        return options

    @lru_cache(maxsize=500)  # noqa: B019
    def stop_token(self) -> int:
        options = replace(self, stop=None).options()
        told = [*right(model_of(), self.ids(), self.new, self.use_cache, **options)]
        return int(told[min(self.stop, self.new - 1)][0]) if told else 0


@st.composite
def _decodings(draw: st.DrawFn) -> Decoding:
    rows, tokens, new = (draw(st.integers(*ends)) for ends in ((1, 6), (1, 4), (0, 4)))
    use_cache = draw(st.booleans())
    held = draw(st.sampled_from((None, 0, 3))) if use_cache else None
    stop, beside = draw(st.sampled_from((None, 0, 1, 2))), draw(st.booleans())
    return Decoding(rows, tokens, new, use_cache, held, stop, beside, draw(st.integers(0, 9)))


@contextlib.contextmanager
def _runs_of(model: nn.Module) -> Iterator[list[tuple[Tensor, int]]]:
    """What the model is run on while this is open, and how much the cache holds before."""
    runs = []

    def keep(_: nn.Module, args: tuple, by_name: dict[str, object]) -> None:
        given = dict(zip(("input_ids", "past_kv"), args, strict=False)) | by_name
        runs.append((given["input_ids"].clone(), getattr(given.get("past_kv"), "length", 0)))

    hook = model.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield runs
    finally:
        hook.remove()


class _Words(str):
    """A text that is shown without quotation marks."""

    __repr__ = str.__str__


def seen_of(loop: Loop, case: Decoding) -> Seen:
    """What the model was run on, and the tokens that came."""
    model, ids, options = model_of(), case.ids(), case.options()
    tokens, first, error = [], 0, None
    with _runs_of(model) as runs:
        try:
            beside = iter(())
            if case.beside:
                other = model_of(number=1), case.ids(1), case.new, case.use_cache
                beside = iter(loop(*other, **case.options()))
            for token in loop(model, ids, case.new, case.use_cache, **options):
                first = first or len(runs)
                tokens.append(_one_per_row(token, case.rows))
                next(beside, None)
        except AssertionError:
            raise
        except Exception as found:
            if is_stub(found):
                raise
            error = found
    sizes = [_size(x, case.rows) for x, _ in runs]
    if error is not None:
        _as_expected_until(error, sizes, case)
    seen = {
        "input_ids, afterwards,": ids,
        RUNS: sizes,
        "the number of tokens that the cache holds before each run": [held for _, held in runs],
        "the number of runs before the first token comes": first,
        "the tensor of tokens that come": torch.stack(tokens, 1) if tokens else ids[:, :0],
        "what the model was run on": [x.tolist() for x, _ in runs],
    }
    if case.held is not None:
        seen["the length of the cache that was handed in"] = options["past_kv"].length
    return seen


def _size(ids: Tensor, rows: int) -> object:
    """The number of tokens in each row, or the shape where it is not one of so many rows."""
    fits = ids.dim() == 2 and len(ids) == rows
    return ids.size(1) if fits else _Words(f"shape {tuple(ids.shape)}")


def _as_expected_until(error: Exception, sizes: list[object], case: Decoding) -> None:
    """Raise AssertionError, with what was raised, if the runs before were of the right sizes."""
    if sizes != seen_of(right, case)[RUNS][: len(sizes)]:
        return
    said = raised(error).replace(ADVICE["tuple indices"], TWO_THINGS)
    until = f". Tokens in each run of the model up to there: {sizes}" if sizes else ""
    raise AssertionError(f"{said}{until}") from error


def _one_per_row(token: object, rows: int) -> Tensor:
    if isinstance(token, Tensor) and token.shape == (rows,):
        return token
    kind = f"of shape {tuple(token.shape)}" if isinstance(token, Tensor) else type(token).__name__
    raise AssertionError(f"what comes is {kind}, expected one token per row, of shape ({rows},)")


def _feeds_what_is_drawn(loop: Loop) -> None:
    """Raise AssertionError unless the tokens that come are those that the model is run on next."""
    model, prompt = model_of(), torch.tensor([[3, 1, 4]]).expand(20, -1)
    for use_cache in (True, False):
        with _runs_of(model) as runs:
            tokens = told_by(loop, model, prompt, 2, use_cache, temperature=2.0)
        fed = runs[-1][0][:, -1]
        if not torch.equal(fed, tokens[0]):
            row = (fed != tokens[0]).nonzero()[0].item()
            raise AssertionError(
                f"With temperature=2 and use_cache={use_cache}, {int(tokens[0][row])} comes as the "
                f"first token of row {row}, and then the model is run on {int(fed[row])}. The "
                "token that was drawn goes in next."
            )


def _reads_all(loop: Loop) -> None:
    """Raise AssertionError unless a long text goes in as it is."""
    model, prompt = tiny_model(20, LONG + 3), torch.zeros(1, LONG, dtype=torch.long)
    for use_cache in (True, False):
        with _runs_of(model) as runs:
            told_by(loop, model, prompt, 3, use_cache, temperature=0)
        sizes = [_size(x, 1) for x, _ in runs]
        expected = [LONG, 1, 1] if use_cache else [LONG, LONG + 1, LONG + 2]
        if sizes != expected:
            raise AssertionError(
                f"decode_loop(model, <ids (1, {LONG})>, 3, {use_cache}): {RUNS} is {sizes}, "
                f"expected {expected}."
            )


FIRST = [
    *(Decoding(2, 5, new, way, seed=16) for way in (True, False) for new in (1, 2, 6)),
    *(Decoding(2, 5, 4, True, held, seed=16) for held in (0, 3)),
]
HINTS = {
    "before the first token comes": "Yield each token as soon as it is known.",
    "[5, shape (2,)": "The new tokens are (B,), and the model takes (B, 1): token[:, None].",
    "[5, shape (1, 2)": "The new tokens are (B,), and the model takes (B, "
    "1), one row for each: token[:, None].",
    "past_kv was given with use_cache=False": "Hand both on by name: past_kv=past_kv, "
    "use_cache=use_cache.",
    "dimensions: got 2 and 1": "The new tokens are (B,), and the text is (B, T): token[:, None].",
    "Sizes of tensors must match": "A text is continued along dim=1.",
    "input_ids, afterwards": "Work on a new tensor: what comes in belongs to the caller.",
}
TELLING = [*FIRST, Decoding(3, 2, 4, True, stop=1), Decoding(1, 2, 3, False)]


@verdict
def check_decode_loop(decode_loop: Loop) -> str:
    """Notebook 04, exercise 4. Returns a verdict; raises AssertionError on a wrong loop."""
    asked = seen_of, decode_loop, right
    judge_seen(*asked, st.just(FIRST[0]), WRONG_LOOPS, TELLING, FIRST, number=1, hints=HINTS)
    _feeds_what_is_drawn(decode_loop)
    judge_seen(*asked, _decodings(), WRONG_LOOPS, TELLING, number=30, hints=HINTS)
    _reads_all(decode_loop)
    follows_its_seed(decode_loop)
    draws_as_it_should(decode_loop)

    def use(model: nn.Module, device: torch.device) -> tuple[Tensor, ...]:
        ids = torch.zeros(2, 3, dtype=torch.long, device=device)
        for options in ({}, {"stop_token": 1}):
            for use_cache in (True, False):
                tokens = decode_loop(model, ids, 2, use_cache, temperature=0, **options)
                found = tuple(tokens)
        return found

    follows_its_device(use, "decode_loop", model_of())
    return (
        "decode_loop is right: with a cache only what is new goes in, without one the whole text; "
        "the words are the same, greedy, drawn and seeded, up to a stop token, after what a cache "
        "holds already, and on any device."
    )
