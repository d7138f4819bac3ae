"""How an answer that keeps something is judged: by all that is seen of it, thing after thing."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from hypothesis import strategies as st
from torch import Tensor

from .judged import difference, judge, named

Case = TypeVar("Case")
Subject = TypeVar("Subject")
Seen = dict[str, object]

LINE = re.compile(r" at `.*?`(?=: )", re.DOTALL)
RAISED, NO_ROW = "what is raised", "index out of range in self"
NEVER_THERE = -7.25e5  # in place of NaN, which is not equal to itself


def judge_seen(
    see: Callable[[Subject, Case], Seen],
    answer: Subject,
    right: Subject,
    cases: st.SearchStrategy[Case],
    mistakes: Iterable[tuple[Subject, str]],
    telling: Sequence[Case],
    first: Sequence[Case] = (),
    number: int = 60,
    hints: Mapping[str, str] | None = None,
) -> None:
    """Raise AssertionError, with the smallest case, unless the answer is right in all cases.

    `see(answer, case)` holds what is seen of an answer by its name, in the order in which it is
    compared; an AssertionError in it is the end of the message. A mistake is another answer, and
    advice for who gave it: it is named if all that is seen of it is the same in the `telling`
    cases, unless that is only that an index was too large. `hints` are advice by words of a
    message, for those in which no mistake is named.
    """

    def compared(case: Case) -> None:
        found = see(answer, case)
        for name, expected in see(right, case).items():
            if how := difference(found[name], expected, expected):
                raise AssertionError(f"{name} {how}")

    try:
        judge(compared, lambda case: None, cases, first=first, number=number)
    except AssertionError as error:
        asked = [(_seeing(see, wrong), name) for wrong, name in mistakes]
        seeing = _seeing(see, answer)
        vague = all(NO_ROW in str(seeing(case).get(RAISED)) for case in telling)
        name = "" if telling and vague else named(seeing, asked, telling)
        hint = next((hint for words, hint in (hints or {}).items() if words in str(error)), "")
        raise AssertionError(f"{error} {name or hint}".strip()) from None


def _seeing(see: Callable[[Subject, Case], Seen], answer: Subject) -> Callable[[Case], Seen]:
    def seen(case: Case) -> Seen:
        try:
            found = see(answer, case)
        except AssertionError as error:
            return {RAISED: LINE.sub("", str(error))}
        return {n: x.nan_to_num(NEVER_THERE) if _real(x) else x for n, x in found.items()}

    return seen


def _real(x: object) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def some(number: int, thing: str) -> str:
    """A number of things: "1 row", "2 rows"."""
    return f"{number} {thing}{'s' * (number != 1)}"
