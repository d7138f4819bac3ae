"""Scripts of what a user does seldom: errors, many texts, carelessness, rows that are alike.

Each was played for a wrong cache that no other script had found (notebook 05).
"""

import string
from collections.abc import Iterator

from .steps import Feed, Generate, New, Reorder, RollBack, Script, Uncached, feeds

SAME, RUNS, BEGINS_12, BEGINS_40 = 7, 8, 9, 10
MANY, LARGE, MUCH, CALLS, GONE, ONE_BY_ONE = 34, 6, 100, 20, 34, 24
LONG = 400
PROMPTS = (8, 16, 32, 64, 128)
WHOLE_BLOCKS = (64, 128, 256, 512, 1024)


def texts_and_rows(room: int) -> Iterator[Script]:
    """What every model can do: single tokens and chunks, in one row and in several; a third text
    beside two equal ones; texts that are the same for long."""
    end = [Feed(1), Feed(2), Feed(1)]
    yield from after_errors(room)
    yield from many_texts(room)
    yield from in_between(room)
    yield [New(2), *(Feed(n, 2, "A", True) for n in (4, 2, 1)), New(2), Feed(4, 2), *end]
    for length in (n for n in (5, 40) if n + 4 <= room):
        yield [New(3), Feed(length, SAME), Feed(1, 2), Feed(2, 2), Feed(1, 2)]
    if room > 12:
        yield feeds(1, 1, 3, 3, 2, 2, 1, text=RUNS)
        same = [step for c in "AB" for step in (New(cache=c), Feed(8, 0, c))]
        turns = [Feed(n, 0, c) for n in (1, 2) for c in "BAC"]
        yield [*same, New(cache="C"), Feed(8, 2, "C"), *turns]
        long = min(room - 4, 60)
        yield [s for text in (0, BEGINS_12, BEGINS_40) for s in (New(), Feed(long, text))] + end
    for block in (n for n in WHOLE_BLOCKS if n + 4 <= room):
        yield feeds(block - 4, 4, 3, 1)


def after_errors(room: int) -> Iterator[Script]:
    """Tokens had no room; then come another text, and one that was begun before."""
    end = [Feed(1, 1), Feed(2, 1)]
    begin = [*[New(), Feed(room + 1)] * 5, Uncached(room + 1)]
    yield [*begin, New(), Feed(4, 1), *end] if room > 8 else begin
    if 8 < room <= LONG:
        begin = [New(cache="B"), Feed(3, 1, "B"), New(), Feed(room - 3), Feed(4)]
        yield [*begin, Feed(1, 1, "B"), Feed(2, 0, "B"), New(), Feed(3, 1), *end]


def many_texts(room: int) -> Iterator[Script]:
    """One after the other; at the same time; and long ones."""
    if room < 8:
        return
    yield [step for n in range(CALLS) for step in (New(), Feed(2, n % 7), Feed(1))]
    names = string.ascii_letters[:MANY]
    begin = [step for n, c in enumerate(names) for step in (New(cache=c), Feed(3, n % 7, c))]
    yield [*begin, *(Feed(1, n % 2, c) for n, c in enumerate(names))]
    long = [step for c in names[:LARGE] for step in (New(cache=c), Feed(min(room, MUCH) - 1, 0, c))]
    yield [*long, *(Feed(1, 0, c) for c in names[:LARGE])]


def in_between(room: int) -> Iterator[Script]:
    """Before a text goes on: other texts, few or many, with a cache or without."""
    if room < 10:
        return
    end = [Feed(1, 2), Feed(2, 2)]
    others = [step for n in range(GONE) for step in (New(cache="B"), Feed(3, n % 7, "B"))]
    yield [New(), Feed(4), *others, *end]
    yield [New(), Feed(4), Uncached(min(room, 70), 1), Uncached(5, 2, 3), *end]
    begin = [s for n, c in enumerate("ABC") for s in (New(n + 1, cache=c), Feed(4, n, c))]
    yield [*begin, *(Feed(n, 0, c) for n in (1, 2) for c in "ACB")]


def generations(room: int) -> Iterator[Script]:
    """Prompts of whole blocks and one token more, equal prompts, many draws, many rows, a batch of
    which only the first row is known; four turns of a talk, long turns, seven rows."""
    if room < 12:
        return
    yield [Generate(n + more, 4) for n in PROMPTS for more in (0, 1) if n + more + 4 <= room]
    if room >= 24:
        turns = [Generate(n, 2, n, 2, goes_on=True) for n in (1, 2, 1)]
        yield [Generate(3, 2, rows=2), *turns, Generate(3, 3, 2, 7)]
    if room > 60:
        yield [Generate(40, 3), Generate(2, 4, 1, goes_on=True), Generate(50, 1)]
    few, most = min(7, room - 3), min(11, room - 3)
    yield [Generate(3, few, sampled=True), Generate(2, most, sampled=True)]
    equal_first = [Generate(5, 4, rows=3), Generate(5, 4, SAME, 3)]
    yield [Generate(3, few, SAME, 3, sampled=True), Generate(3, 4, 2, 6), *equal_first]


def rolled_back(room: int) -> Iterator[Script]:
    """From the end of the room, after another text was begun; three times in a row; over many
    calls; where another text has the same beginning, at that time or later; again and again."""
    if room >= 24:
        yield from guessed(room)
    if 12 < room <= LONG:
        other = [New(cache="B"), Feed(3, 1, "B")]
        end = [Feed(1, 2), Feed(1, 0, "B"), Feed(3, 3)]
        yield [New(), Feed(room), *other, RollBack(room - 4), *end]
        singles = [Feed(1)] * min(room - 4, CALLS)
        yield [New(), Feed(2), *singles, RollBack(3), Feed(1, 2), Feed(2, 3)]
        same, other = [New(cache="B"), Feed(8, 0, "B")], [Feed(1, 0, "B"), Feed(2, 0, "B")]
        yield [New(), Feed(8), *same, RollBack(4), Feed(4, 2), *other]
        yield [New(), Feed(8), RollBack(2), Feed(6, 2), *same, *other]
        yield [New(2), Feed(12), RollBack(10), RollBack(8), RollBack(6), Feed(1, 2), Feed(2)]


def guessed(room: int) -> Iterator[Script]:
    """Back to the prompt, again and again, and to nothing; one token at a time; in two caches, with
    other calls before they go on; before a long chunk."""
    guesses = [step for n in range(4) for step in (Feed(3, n), RollBack(6))]
    yield [New(), Feed(6), *guesses, RollBack(6), Feed(1), RollBack(0), Feed(20, 2), Feed(1)]
    stored = range(2, min(room - 2, ONE_BY_ONE))
    yield [New(), Feed(2), *(s for n in stored for s in (Feed(2, 1), RollBack(n + 1))), Feed(1)]
    begin = [s for n, c in enumerate("AB") for s in (New(2, cache=c), Feed(6, n, c))]
    other = [Uncached(9, 2, 3), New(3, cache="C"), Feed(4, 2, "C")]
    end = [Feed(2, 3), Feed(2, 0, "B"), Feed(1, 0, "C"), Feed(1)]
    yield [*begin, RollBack(3), RollBack(4, "B"), *other, *end]
    if room > 60:
        yield [New(), Feed(20), RollBack(7), Feed(40, 2), Feed(1)]


def reordered(room: int, truncate: bool) -> Iterator[Script]:
    """Rows that go and come, many beams, a rollback at once, where another text has the same
    beginning; twice at once; one row that becomes five; two caches, with other calls before they go
    on; after all was forgotten; guesses and beams in turn."""
    if room < 10:
        return
    begin = [New(3), Feed(5)]
    end = [Reorder((1,)), Reorder((0, 0)), Feed(1), Reorder((1, 0)), Reorder((1, 0)), Feed(1, 1)]
    yield [*begin, Reorder((2,)), Feed(1), Reorder((0, 0, 0)), Feed(1, 2), *end]
    copies = Reorder((2, 1, 0, 1, 2, 0, 1, 2))
    yield [*begin, copies, Feed(1), Reorder((1, 2, 3, 0)), Feed(2)]
    yield [*begin, Reorder((0, 1, 2) * 6), Feed(1, 1)]
    same = [New(3, cache="B"), Feed(5, 0, "B")]
    yield [*begin, *same, Reorder((1, 2, 0)), Feed(2, 2), Feed(1, 0, "B"), Feed(2, 0, "B")]
    if truncate:
        yield [*begin, Reorder((1, 2, 0)), RollBack(3), Feed(1), Feed(2)]
        yield [*begin, Reorder((1, 2, 0)), RollBack(0), Feed(3, 1), Feed(1)]
        orders = enumerate(((1, 2, 0), (0, 2, 1), (2, 0, 1), (1, 1, 0)))
        turns = (s for n, o in orders for s in (Reorder(o), Feed(3, 1), RollBack(n + 4)))
        yield [New(3), Feed(3), *turns, Feed(2)]
    twice = [Reorder((1, 2, 0)), Reorder((1, 0, 2)), Feed(1)]
    yield [*begin, *twice, Reorder((2, 0, 1)), Reorder((0, 2, 1)), Feed(2, 1)]
    yield [New(), Feed(5), Reorder((0,) * 5), Feed(1), Feed(2)]
    both = [New(3, cache="B"), Feed(5, 1, "B"), Reorder((1, 2, 0)), Reorder((2, 1, 0), "B")]
    other = [Uncached(9, 2, 4), New(2, cache="C"), Feed(2, 2, "C")]
    yield [*begin, *both, *other, Feed(1), Feed(1, 0, "B"), Feed(2)]


def padded(room: int, reorder: bool) -> Iterator[Script]:
    """Two batches of the same shape and other padding, one after the other and at the same time,
    or of the same padding; one row; the same padding in all rows; many rows; much padding."""
    if room < 10:
        return
    first, second = [New(2, (0, 3)), Feed(5)], [Feed(1), Feed(2)]
    yield [*first, *second, New(2, (3, 1)), Feed(5), *second]
    other = [New(2, (2, 0), "B"), Feed(5, 1, "B")]
    yield [*first, *other, *second, Feed(1, 0, "B"), Feed(2, 0, "B")]
    yield [New(6, (0, 1, 2, 3, 4, 5)), Feed(7), *second]
    yield [New(1, (4,)), Feed(6), *second, New(2, (2, 2)), Feed(5), *second]
    if reorder:
        same = [New(2, (0, 3), "B"), Feed(5, 1, "B")]
        yield [*first, *same, Reorder((1, 0)), Feed(1), Feed(1, 0, "B")]
    for much in (n for n in (15, 20, 70) if n + 5 <= room):
        yield [New(3, (0, much, much - 3)), Feed(much + 2), *second]
