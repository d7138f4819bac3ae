"""What kinds of use a script of `kv_evaluate` makes of a cache, and a judgement without some kind.

with left_out(lambda asked: asked.has(RollBack)) as played:
    kv_evaluate(model, cases)   # as if all scripts with a rollback had been right
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from unittest import mock

from torch import Tensor, nn

from course_utils.evaluation import (
    Feed,
    Generate,
    Lane,
    New,
    Outcome,
    Reorder,
    RollBack,
    Script,
    Step,
    Uncached,
    feeds,
    judge,
    uncached,
)
from course_utils.evaluation.model import max_seq_len

BLOCK = 16


@dataclass
class Generation:
    """The first and the last step of a generation, its rows, and the text that it begins with."""

    first: int
    last: int
    rows: int
    text: int | None = None


@dataclass(frozen=True)
class Asked:
    """A script, and where it is played: with which texts, room and dtype."""

    script: Script
    texts: Tensor
    room: int = 24
    dtype: str = "float64"

    def has(self, *kinds: type[Step]) -> bool:
        return any(isinstance(step, kinds) for step in self.script)

    def says(self, attribute: str) -> bool:
        """Has some step an attribute of this name that is not false or empty?"""
        return any(getattr(step, attribute, False) for step in self.script)

    def chunks(self) -> Iterator[tuple[int, int]]:
        """How much is stored, and how much is fed, each time a cache is used; also to generate."""
        stored, said = {}, 0
        for step in self.script:
            match step:
                case New():
                    stored[step.cache] = 0
                case Feed():
                    yield stored[step.cache], step.tokens
                    stored[step.cache] += step.tokens
                case RollBack():
                    stored[step.cache] = step.length
                case Generate():
                    prompt = step.tokens + said * step.goes_on
                    said = prompt + step.new
                    if step.use_cache:
                        yield 0, prompt
                        yield from ((before, 1) for before in range(prompt, said - 1))

    def feeds(self, condition: Callable[[int, int], bool]) -> bool:
        return any(condition(*chunk) for chunk in self.chunks())

    def several_rows(self) -> bool:
        rows = (
            len(step.rows) if isinstance(step, Reorder) else getattr(step, "rows", 1)
            for step in self.script
        )
        return max(rows) > 1

    def padded_alike(self) -> bool:
        """Has a batch, or a row alone, padding, and the same in all rows?"""
        begun = [step.padding for step in self.script if isinstance(step, New)]
        return any(any(padding) and len(set(padding)) == 1 for padding in begun)

    def generations(self) -> list[Generation]:
        found, now = [], {}
        for number, step in enumerate(self.script):
            match step:
                case New():
                    now[step.cache] = Generation(number, number, step.rows)
                    found.append(now[step.cache])
                case Generate(use_cache=True):
                    found.append(Generation(number, number, step.rows, step.text))
                case Feed() | RollBack() | Reorder():
                    here = now[step.cache]
                    here.last = number
                    here.text = step.text if here.text is None else here.text
        return found

    def second_time(self) -> bool:
        """Does a generation begin after another has ended?"""
        found = self.generations()
        return any(one.last < other.first for one in found for other in found)

    def same_time(self) -> bool:
        """Does a generation go on after another has begun?"""
        found = self.generations()
        return any(one.first < other.first < one.last for one in found for other in found)

    def begins_alike(self) -> bool:
        """Do rows of two generations share their first token?"""
        begun = [one for one in self.generations() if one.text is not None]
        first = [set(self.texts[one.text, : one.rows, 0].tolist()) for one in begun]
        return any(one & other for i, one in enumerate(first) for other in first[:i])

    def uncached_after(self) -> bool:
        """Does a call without a cache come after one with a cache?"""
        cached = False
        for step in self.script:
            with_cache = getattr(step, "use_cache", isinstance(step, Feed))
            without = isinstance(step, Uncached) or isinstance(step, Generate) and not with_cache
            if cached and without:
                return True
            cached = cached or with_cache
        return False

    def past_the_end(self) -> bool:
        longest = max((s.tokens for s in self.script if isinstance(s, Uncached)), default=0)
        return longest > self.room or self.feeds(lambda stored, new: stored + new > self.room)

    def after_an_error(self) -> bool:
        """Is anything done after tokens had no room?"""
        begun = (self.script[:n] for n in range(1, len(self.script)))
        return any(replace(self, script=part).past_the_end() for part in begun)

    def texts_at_once(self) -> int:
        return len({step.cache for step in self.script if isinstance(step, New)})


@contextlib.contextmanager
def left_out(kind: Callable[[Asked], bool]) -> Iterator[list[Script]]:
    """Inside, `kv_evaluate` takes scripts of this kind for right; the others, which it plays, are
    added to the list."""
    played, play, in_chunks = [], Lane.play, judge.in_chunks

    def play_others(lane: Lane, script: Script, given: Tensor | None = None, *more) -> Outcome:
        texts = lane.texts if given is None else given
        if kind(Asked(script, texts, lane.room, lane.name)):
            return Outcome(step=len(script))
        played.append(script)
        return play(lane, script, given, *more)

    def in_other_chunks(model: nn.Module, ids: Tensor, chunks: tuple[int, ...]) -> Tensor:
        script = feeds(*chunks, rows=len(ids))
        if kind(Asked(script, ids[None], max_seq_len(model))):
            return uncached(model, ids)
        return in_chunks(model, ids, chunks)

    with (
        mock.patch.object(Lane, "play", play_others),
        mock.patch.object(judge, "in_chunks", in_other_chunks),
    ):
        yield played
