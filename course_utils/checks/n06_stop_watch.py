"""What the check cell of the stop-watch calls (notebook 06, exercise 1)."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from numbers import Real

import torch
from hypothesis import strategies as st

from .common import is_stub, raised, verdict
from .judged import judge

SECONDS = (0.0, 1.0, 2.0, 3.0, 4.0, 0.25, 60.0, 2.0**-20)
START = 100.0


class Clock:
    """A clock that shows what it is told to, and counts how often it is read."""

    def __init__(self, now: float):
        self.now, self.reads = now, 0

    def __call__(self) -> float:
        self.reads += 1
        return self.now


def asked(answer: Callable, *args: object, **options: object) -> object:
    """What the answer returns; an error in it becomes a sentence."""
    try:
        return answer(*args, **options)
    except Exception as error:
        if is_stub(error):
            raise
        raise AssertionError(raised(error)) from error


def refuse_another_clock(clock: Clock) -> None:
    if not clock.reads:
        raise AssertionError("does not read the clock that was handed in: `clock()` gives seconds")


def all_seconds(found: object, whose: str) -> None:
    """Raise AssertionError unless it is a list of numbers."""
    if not isinstance(found, list):
        raise AssertionError(f"gives {kind(found)} {whose}, expected a list")
    if not all(isinstance(seconds, Real) for seconds in found):
        raise AssertionError(f"gives {found} {whose}, expected a list of numbers")


def kind(x: object) -> str:
    name = type(x).__name__
    article = "an" if name == "ndarray" or name[0].lower() in "aeiou" else "a"
    return "None" if x is None else f"{article} {name}"


@dataclass(frozen=True)
class _Generation:
    """What takes how long: `start()`, each token, and what comes after the last one."""

    starting: float
    tokens: tuple[float, ...]
    after: float = 0.0
    begins: float = START

    def __str__(self) -> str:
        seconds = ", ".join(f"{seconds:g}" for seconds in self.tokens) or "no tokens come"
        late = f", and {self.after:g} s after the last one" if self.after else ""
        return (
            f"token_times, of a generation in which start() takes {self.starting:g} s, and the "
            f"tokens after that {seconds} s{late},"
        )

    def times(self) -> list[float]:
        """When each token is there."""
        times, now = [], self.starting
        for seconds in self.tokens:
            now += seconds
            times.append(now)
        return times


@st.composite
def _generations(draw: st.DrawFn) -> _Generation:
    one = st.sampled_from(SECONDS)
    tokens = tuple(draw(st.lists(one, min_size=1, max_size=6)))
    return _Generation(draw(one), tokens, draw(one), draw(st.sampled_from((0.0, START, 1e6))))


def _timed(token_times: Callable[..., list[float]]) -> Callable[[_Generation], list[float]]:
    def answer(case: _Generation) -> list[float]:
        clock, started, made = Clock(case.begins), [], []

        def tokens() -> Iterator[torch.Tensor]:
            for seconds in case.tokens:
                clock.now += seconds
                made.append(seconds)
                yield torch.zeros(1, dtype=torch.long)
            clock.now += case.after

        def start() -> Iterable[torch.Tensor]:
            started.append(clock.now)
            clock.now += case.starting
            return tokens()

        found = asked(token_times, start, clock)
        if not made and isinstance(found, Iterator):
            raise AssertionError(
                f"gives {kind(found)}, which has not run yet, expected a list: put the times into "
                "one, and return it"
            )
        if not made:
            raise AssertionError("lets no token be made: loop over start(), which yields them")
        if len(started) > 1:
            raise AssertionError(
                f"calls start() {len(started)} times, and each call begins a generation. Call it "
                "once"
            )
        refuse_another_clock(clock)
        all_seconds(found, "for the times")
        return found

    return answer


def _with(change: Callable[[list[float], _Generation], list[float]]) -> Callable:
    """The answer of a usual mistake, made from the right one."""
    return lambda case: change(case.times(), case)


STOP_WATCHES = [
    (
        _with(lambda t, _: [one - before for one, before in zip(t, [0.0, *t], strict=False)]),
        "These are the times between tokens; wanted: since the start.",
    ),
    (
        _with(lambda t, _: [one - before for one, before in zip(t[1:], t, strict=False)]),
        "These are the times between tokens, without the first; wanted: since the start.",
    ),
    (
        _with(lambda t, _: [one - t[0] for one in t]),
        "The first token, too, takes its time: read the clock before the loop starts.",
    ),
    (
        _with(lambda t, case: [one - case.starting for one in t]),
        "Read the clock before start() is called: it already does work.",
    ),
    (_with(lambda t, _: t[-1:]), "Wanted: one time for each token, not only for the last."),
    (_with(lambda t, _: t[1:]), "The time of the first token is missing."),
    (_with(lambda t, _: t[:-1]), "The time of the last token is missing."),
    (_with(lambda t, _: [0.0, *t]), "There is one time too many: the start is no token."),
    (
        _with(lambda t, case: [t[-1] + case.after] * len(t)),
        "All tokens were made before the clock was read. Read it as each one comes.",
    ),
    (
        _with(lambda t, case: [case.begins + one for one in t]),
        "Subtract what the clock showed at the start.",
    ),
    (_with(lambda t, _: [-one for one in t]), "Subtract the start from the time, not vice versa."),
    (_with(lambda t, _: [1e3 * one for one in t]), "These are milliseconds; wanted: seconds."),
]


@verdict
def check_token_times(token_times: Callable[..., list[float]]) -> str:
    """Notebook 06, exercise 1. Returns a verdict; raises AssertionError on a wrong stop-watch."""
    first = _Generation(1.0, (4.0, 1.0, 1.0, 2.0))
    judge(_timed(token_times), _Generation.times, _generations(), STOP_WATCHES, [first])
    try:
        found = asked(token_times, lambda: iter("abc"))
        all_seconds(found, "for the times")
        if len(found) != 3 or sorted(found) != found or found[0] < 0:
            raise AssertionError(f"gives {found}, expected three times that do not fall")
    except AssertionError as error:
        raise AssertionError(f"token_times(start), without a clock of our own, {error}.") from None
    return "token_times is right: one time for each token, counted from the start."
