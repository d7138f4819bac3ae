"""What the check cell of the schedule calls: who stays and who joins (chapter 10)."""

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from ....checks.common import is_stub, raised, verdict
from ....checks.judged import Answer, judge
from ..scheduling import Request, Schedule


@dataclass(frozen=True)
class Turn:
    """Who runs ("y" is done, "n" is not), how many tokens each who waits has, how many rows."""

    running: str
    waiting: tuple[int, ...]
    max_rows: int

    def __str__(self) -> str:
        done = [i for i, how in enumerate(self.running) if how == "y"]
        here = [_name(i) + " (done)" * (i in done) for i in range(len(self.running))]
        queue = [_name(len(here) + i) for i in range(len(self.waiting))]
        waiting, running = f"waiting=[{', '.join(queue)}]", f"running=[{', '.join(here)}]"
        return f"continuous({waiting}, {running}, max_rows={self.max_rows})"


FIRST = [
    Turn("yny", (2, 2, 2), 3),
    Turn("nnn", (2, 2), 3),
    Turn("", (2, 2, 2, 2), 2),
    Turn("nyn", (2,), 4),
    Turn("yy", (), 2),
    Turn("ny", (2, 2, 2, 2, 2), 4),
    Turn("nynnyynnyn", (2,) * 14, 20),
]


@st.composite
def turns(draw: st.DrawFn) -> Turn:
    running = draw(st.lists(st.sampled_from("ny"), max_size=11))
    waiting = draw(st.lists(st.integers(1, 4), max_size=13))
    free = draw(st.integers(0, 9))
    return Turn("".join(running), tuple(waiting), max(1, len(running) + free))


def _name(number: int) -> str:
    return chr(ord("A") + number)


def _played(continuous: Schedule) -> Answer:
    """The answer to a `Turn`: nothing, or an AssertionError that says what is wrong."""

    def answer(turn: Turn) -> None:
        running = [Request([1], 2, tokens=[0] * (1 + (how == "y"))) for how in turn.running]
        waiting = [Request([1] * length, 1 + length) for length in turn.waiting]
        given = list(waiting), list(running)
        try:
            found = continuous(*given, turn.max_rows)
        except Exception as error:
            if is_stub(error):
                raise
            raise AssertionError(raised(error)) from error
        if not isinstance(found, tuple | list) or [*map(type, found)] != [list, list]:
            raise AssertionError("must return two lists: who stays, and who joins")
        if given != (waiting, running):
            raise AssertionError("changes the lists that came in: return new ones")
        letters = {id(request): _name(i) for i, request in enumerate([*running, *waiting])}
        stays, joins = ([letters.get(id(r), "?") for r in part] for part in found)
        _check_stays(stays, letters, running)
        _check_joins(joins, letters, running, waiting, turn.max_rows)
        if found[1] is given[0] and joins:
            raise AssertionError(
                "returns the waiting list itself as those who join. Return a new list: whoever "
                "takes requests off the queue changes it while reading it"
            )

    return answer


def _list(names: Sequence[str]) -> str:
    return f"[{', '.join(names)}]"


def _check_stays(stays: list[str], letters: dict[int, str], running: list[Request]) -> None:
    expected = [letters[id(r)] for r in running if not r.done]
    if stays == expected:
        return
    story = f"lets {_list(stays)} stay, expected {_list(expected)}. "
    here = [letters[id(r)] for r in running]
    if set(stays) - set(here):
        swapped = not set(stays) & set(here)
        story += "They wait: is it the other way round? " if swapped else "Not all of them run. "
        raise AssertionError(story + "First come those who stay, then those who join")
    if sorted(stays) == expected:
        raise AssertionError(story + "They are the right ones: leave them in the same order")
    raise AssertionError(story + "Who is done leaves, and who is not stays, each once")


def _check_joins(
    joins: list[str],
    letters: dict[int, str],
    running: list[Request],
    waiting: list[Request],
    max_rows: int,
) -> None:
    free = max_rows - sum(not r.done for r in running)
    queue = [letters[id(r)] for r in waiting]
    expected = queue[:free]
    if joins == expected:
        return
    story = f"lets {_list(joins)} join, expected {_list(expected)}. "
    if len(joins) > free:
        raise AssertionError(story + f"These are more than there are free rows: {free}")
    before = max_rows - len(running)
    if len(joins) == before < len(expected) and before < free:
        raise AssertionError(story + "The rows of those who are done are free, too")
    if not joins:
        raise AssertionError(story + "There is a free row, and nobody has to wait for the others")
    if len(joins) < len(expected):
        raise AssertionError(story + "While somebody waits, every free row is taken")
    raise AssertionError(story + "Who came first joins first: take them from the head of the queue")


@verdict
def check_continuous(continuous: Schedule) -> str:
    """Chapter 10, exercise 1. Returns a verdict; raises AssertionError on a wrong schedule."""
    judge(_played(continuous), lambda turn: None, turns(), first=FIRST, number=100)
    return "continuous is right: who is done leaves at once, and who came first joins first."
