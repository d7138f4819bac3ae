"""What the check cell of the window calls (chapter 13, exercise 2)."""

from collections.abc import Callable, Sequence

from hypothesis import strategies as st

from ....checks.common import verdict
from ....checks.inputs import Call
from ....checks.judged import Answer, calling, judge
from .. import window as built


@st.composite
def _feeds(draw: st.DrawFn) -> Call:
    kept, window = draw(st.integers(0, 9)), draw(st.integers(1, 9))
    chunks = draw(st.lists(st.integers(1, 6), max_size=6))
    many = draw(st.sampled_from((1, 1, 1, 20)))
    chunks = [many * length for length in chunks]
    return Call("wrong_positions", (many * kept, many * window, chunks))


def _positions(sees: Callable[[int, int, int, int], bool], each: bool = True) -> Answer:
    """An answer that calls a position wrong by `sees(kept, window, start, position)`."""

    def answer(call: Call) -> list[int]:
        kept, window, chunks = call.args
        wrong, start = [], 0
        for length in chunks:
            asked = range(start, start + length if each else start + 1)
            wrong += [position for position in asked if sees(kept, window, start, position)]
            start += length
        return wrong

    return answer


def _right(kept: int, window: int, start: int, position: int) -> bool:
    return max(position - window + 1, 0) < max(start - kept, 0)


WRONG = [
    (
        _positions(lambda k, w, s, p: max(p - w, 0) < max(s - k, 0)),
        "A window of w shows the token itself and w - 1 before it: the first is p - w + 1.",
    ),
    (
        _positions(lambda k, w, s, p: max(p - w + 1, 0) <= max(s - k, 0)),
        "If the first token of the window is the oldest that is kept, nothing is missing.",
    ),
    (
        _positions(lambda k, w, s, p: p - w + 1 < s - k),
        "No token is missing that never was: both ends are at least 0.",
    ),
    (
        _positions(lambda k, w, s, p: p - w + 1 < max(s - k, 0)),
        "No window begins before position 0.",
    ),
    (
        _positions(lambda k, w, s, p: max(p - w + 1, 0) < max(p - k, 0)),
        "The cache forgets after a chunk, not within: the tokens of a chunk see each other.",
    ),
    (
        _positions(_right, each=False),
        "Not only the first token of a chunk can be wrong.",
    ),
    (
        lambda call: _positions(_right)(call)[:1],
        "All wrong positions are asked for, not the first one alone.",
    ),
    (
        lambda call: [s for s in _positions(_right)(call) if s >= call.args[1]],
        "A window that is not full yet can miss a token, too.",
    ),
]


@verdict
def check_wrong_positions(wrong_positions: Callable[[int, int, Sequence[int]], list[int]]) -> str:
    """Chapter 13, exercise 2. Returns a verdict; raises AssertionError on another function."""
    easy = (
        (6, 8, [7, 1, 1]),
        (6, 8, [12]),
        (7, 8, [7, 1, 1]),
        (6, 8, [4, 4, 4]),
        (2, 8, [3, 3, 3]),
        (0, 1, [2, 2]),
        (0, 2, [2, 2]),
    )

    def as_list(call: Call) -> object:
        found = calling(wrong_positions)(call)
        return list(found) if isinstance(found, tuple | range) else found

    judge(
        as_list,
        calling(built.wrong_positions),
        _feeds(),
        WRONG,
        first=[Call("wrong_positions", case) for case in easy],
        number=200,
        advice="For each token: where does its window begin, and which is the oldest that is kept?",
    )
    return "wrong_positions is right, for caches and windows of any size, in any chunks."
