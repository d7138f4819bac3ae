"""The scripts that every cache is tried on, by subject (notebook 05).

They are the uses that people have, and the lengths at which caches break: where a block or a page
is full, where a buffer grows, where the room ends. `random_scripts` looks where nobody thought of.
"""

from collections.abc import Iterator
from itertools import cycle

from . import seldom
from .model import Offers
from .smaller import possible
from .steps import Feed, Generate, New, Reorder, RollBack, Script, Uncached, feeds

ALL_WAYS_UP_TO = 24
BLOCKS = (16, 32, 48, 64, 80, 96, 100, 112, 128, 144, 160, 192, 200, 224, 256, 320, 384, 448)
LONG_BLOCKS = (500, 512, 640, 768, 896, 1000, 1024, 1280, 1536, 2000, 2048, 4096, 8192)
ENDS = ((2, 0), (4, 0), (8, 0), (16, 3), (1, 0), (2, 1), (3, 0), (4, 2), (5, 0), (7, 1), (12, 0))
ORDERS = ((2, 0, 1), (2, 2, 0), (1, 0), (0, 0), (1, 1), (0,), (1,), (0, 1, 2, 0), (1, 2))
PADDINGS = ((4, (0, 3)), (8, (0, 3, 5)), (8, (7, 0)), (9, (2, 2, 0, 8)), (5, (0, 0)))
CHUNKS = ((5, 64), (10, 129), (3, 300), (16, 16), (64, 64, 64), (130, 130), (200, 600))
BEAMS, BEAM_STEPS = ((2, 0, 1), (1, 1, 0), (0, 2, 2)), 60
LONG = 400


def ways_to_feed(seq_len: int) -> Iterator[tuple[int, ...]]:
    """The ways in which `kv_evaluate` feeds `seq_len` tokens.

    At once; every prefill followed by one token at a time (from a sequence of more than 24 tokens
    on: by two single tokens and the rest at once); from an empty cache one by one, in threes, and
    in chunks of 1, 2, 3, ... tokens.
    """
    yield (seq_len,)
    for prefill in range(1, seq_len):
        rest = seq_len - prefill
        if seq_len <= ALL_WAYS_UP_TO or rest <= 3:
            yield (prefill,) + (1,) * rest
        else:
            yield (prefill, 1, 1, rest - 2)
        if seq_len <= ALL_WAYS_UP_TO and rest > 1:
            yield (prefill, rest)
    if seq_len > 3:
        yield (3,) * (seq_len // 3) + ((seq_len % 3,) if seq_len % 3 else ())
        yield tuple(staircase(seq_len))
    if seq_len > ALL_WAYS_UP_TO:
        yield (1,) * seq_len


def staircase(seq_len: int) -> Iterator[int]:
    step = 1
    while seq_len:
        yield min(step, seq_len)
        seq_len -= min(step, seq_len)
        step += 1


def splits(rows: int, seq_len: int) -> Iterator[Script]:
    """One for each of `ways_to_feed`, for a text of `rows` rows."""
    return (feeds(*chunks, rows=rows) for chunks in ways_to_feed(seq_len))


def in_company(rows: int, seq_len: int) -> dict[str, Script]:
    """Another text before, another one at the same time, a call without a cache in between."""
    half, singles = -(-seq_len // 2), seq_len // 2
    text = [New(rows), Feed(half), *[Feed(1)] * singles]
    other = [New(rows), Feed(half, text=1), *[Feed(1, text=1)] * singles]
    turns = [Feed(1, text, cache) for _ in range(seq_len) for text, cache in ((0, "A"), (1, "B"))]
    return {
        "second generation": [*text, *other],
        "two generations at the same time": [New(rows), New(rows, cache="B"), *turns],
        "without cache, after cached calls": [*text, Uncached(seq_len, rows=rows)],
        "without cache, between cached calls": [*text[:2], Uncached(seq_len, 1, rows), *text[2:]],
    }


def filled(room: int, generate: bool, thorough: bool = False) -> dict[str, Script]:
    """To the last position in single tokens and in chunks, and one token more: an error."""
    found = {f"{room} tokens": feeds(*((room - 3, 1, 1, 1) if room > 3 else (1,) * room))}
    for chunk, spare in ENDS if room <= LONG or thorough else ENDS[:4]:
        if room > chunk + spare:
            chunks = (room - chunk - spare, chunk, *(1,) * spare)
            where = f"{spare} before the last position" if spare else "at the last position"
            found[f"a chunk of {chunk} that ends {where}"] = feeds(*chunks)
    found[f"token {room + 1} on a full cache"] = feeds(room, 1)
    if room > 1:
        found["2 tokens where there is room for 1"] = feeds(room - 1, 2)
    if generate and room > 2:
        found[f"generate to position {room}"] = [Generate(room - 2, 2)]
    if 4 < room <= LONG:
        found["5 tokens where there is room for 4"] = feeds(room - 4, 5)
    return found


def around_blocks(room: int, thorough: bool = False) -> Iterator[Script]:
    """Prefills that end with a block or beside it, chunks across its end, single tokens, long
    chunks."""
    blocks = range(2, room) if room <= 64 or thorough else (*BLOCKS, *LONG_BLOCKS)
    for block in blocks:
        ways = [(block, 1, 1), (max(block - 6, 1), 12)]
        if block <= LONG or thorough:
            ways.append((block - 1, 2, 1))
        yield from (feeds(*chunks) for chunks in ways if sum(chunks) <= room)
    yield feeds(*staircase(room))
    yield from (feeds(*chunks, 1, 1) for chunks in CHUNKS if sum(chunks) + 2 <= room)
    if thorough or room <= 100:
        yield feeds(*(1,) * room)
    else:
        yield feeds(*(1,) * min(room - 21, 260), 20, 1)


def rolled_back(room: int) -> Iterator[Script]:
    """Guesses are taken back: to every length, in several rows, twice, before a chunk, to all.

    At last they are taken back near the end of a short room, twice, and then throughout a text:
    three of four tokens, again and again.
    """
    for keep in range(min(8, room)):
        yield [New(2), Feed(min(7, room - 1)), RollBack(keep), Feed(1, 1), *_more(room, keep + 1)]
    for length, keep in ((7, 3), (20, 16), (70, 64), (130, 116), (260, 256)):
        if length + 12 <= room:
            chunk = [Feed(12, 2), Feed(1), Feed(1)]
            yield [New(1), Feed(length), RollBack(keep), *chunk]
            yield [New(2), Feed(keep), *[Feed(1)] * 5, RollBack(keep), *chunk]
            back = [RollBack(length), Feed(1), RollBack(keep - 3)]
            yield [New(1), Feed(length), *back, *chunk]
            yield [New(3), Feed(length), RollBack(keep + 2), RollBack(keep), Feed(1, 1), *chunk]
            yield [New(1), Feed(length), RollBack(keep), Feed(4, 1), RollBack(keep + 1), *chunk]
    if room > 8:
        other = [New(1, cache="B"), Feed(3, 1, "B")]
        yield [New(1), Feed(5), RollBack(0), *other, Feed(4, 2), Feed(1, 0, "B"), Feed(1)]
    if (end := min(room, LONG)) > 12:
        twice = RollBack(end - 4), RollBack(end - 7)
        yield [New(3), Feed(end - 2), *twice, Feed(1, 1), Feed(3, 2), Feed(1)]
    stored = range(1, min(room - 3, BEAM_STEPS))
    guesses = [step for n in stored for step in (Feed(4, 1), RollBack(n + 1))]
    yield [New(1), Feed(1), *guesses, Feed(1)]


def _more(room: int, stored: int) -> Iterator[Feed]:
    """A single token, then a chunk, as far as there is room."""
    return (Feed(n) for n, needed in ((1, 1), (2, 3), (1, 4)) if stored + needed <= room)


def reordered(room: int, truncate: bool) -> Iterator[Script]:
    """Rows move, multiply and die, before single tokens, chunks and rollbacks; a beam search, and
    before it rows of one token each."""
    for length, orders in ((3, ORDERS), (17, ORDERS[:3]), (130, ORDERS[:1])):
        for order in orders if length + 8 <= room else ():
            rows = max(2, max(order) + 1)
            begin = [New(rows), Feed(length), Reorder(order)]
            turned = Reorder(tuple(reversed(range(len(order)))))
            yield [*begin, Feed(1), Feed(1)]
            yield [*begin, Feed(3, 1), turned, Feed(1), Feed(2)]
            if truncate:
                yield [*begin, Feed(2, 1), RollBack(length - 1), Feed(2), Feed(1)]
                yield [New(rows), Feed(length), RollBack(length - 1), Reorder(order), Feed(2)]
    steps = zip(range(min(room - 2, BEAM_STEPS)), cycle(BEAMS), strict=False)
    beams = [step for _, order in steps for step in (Feed(1), Reorder(order))]
    begin = [New(3), Feed(1), Reorder((2, 0, 1)), Feed(1), New(), Feed(1), Reorder((0, 0, 0))]
    yield [*begin, *beams, Feed(1)]


def alike(room: int) -> Iterator[Script]:
    """Texts and rows that share all but a beginning, an end or a place, in one cache or several."""
    for length in sorted({min(n, room - 4) for n in (4, 40, 260) if room > 4}):
        end = [Feed(1), Feed(2), Feed(1)]
        yield [New(), Feed(length), New(), Feed(length, 1), *end]
        yield [New(), Feed(length), New(cache="B"), Feed(length, 1, "B"), Feed(1, 0, "B"), *end]
        yield [New(2), Feed(length), *end]
        yield [New(), Feed(length), New(), Feed(length), *end]
        for order in ((0, 2, 4), (4, 0, 5, 3), (0, 6, 1, 5)):
            again = [step for text in order for step in (New(), Feed(length, text))]
            yield [*again, Feed(1), Feed(2), Feed(1)]
    if room > 12:
        begin, other = [New(), Feed(8)], [New(), Feed(8, 1)]
        yield [*begin, Feed(1), *other, Feed(1), *begin, Feed(4), Feed(1)]
        other = [New(cache="B"), Feed(4, 1, "B"), Feed(4, 0, "B")]
        yield [*begin, *other, Feed(1), Feed(1, 0, "B")]
        yield from many(room)
        for first, second in ((1, 3), (3, 1), (2, 4)):
            yield [New(first), Feed(5), Feed(1), New(second), Feed(4, 2), Feed(1), Feed(2)]
            other = [New(second, cache="B"), Feed(4, 2, "B")]
            yield [New(first), Feed(5), *other, Feed(2), Feed(2, 2, "B"), Feed(1), Feed(1, 0, "B")]


def many(room: int) -> Iterator[Script]:
    """Many rows, many caches at the same time, two models of the class in turns."""
    for rows in (5, 9, 17, 33):
        yield feeds(4, 1, 2, 1, rows=rows)
    names = "ABCDEFGHI"
    begin = [step for n, c in enumerate(names) for step in (New(cache=c), Feed(3, n % 4, c))]
    yield [*begin, *[Feed(1, 1, c) for c in names], *[Feed(2, 0, c) for c in names]]
    turns = [Feed(n, text, c) for n in (3, 1, 2) for text, c in ((0, "A"), (1, "B"))]
    yield [New(), New(cache="B", twin=True), *turns]
    yield [New(), Feed(4), New(cache="B", twin=True), Feed(7, 1, "B"), Feed(1), Feed(1, 1, "B")]
    turns = [Feed(n, 0, c) for n in (3, 1, 2) for c in "BA"]
    yield [New(cache="B", twin=True), New(), *turns]


def whole_vocabulary(vocab_size: int, room: int) -> Iterator[Script]:
    """Every id, single and in chunks, as far as the room goes."""
    length = min(vocab_size, room, 400)
    yield feeds(*([1] * min(length, 40)), *[3] * (max(length - 40, 0) // 3), text=2)
    yield feeds(length, text=2)


def generations(room: int) -> Iterator[Script]:
    """`generate` again and again: other texts and rows, with a cache and without, drawn, none."""
    most = min(5, room)
    new = min(6, room - most)
    yield [Generate(1, room - 1 if room <= 24 else 8)]
    yield [Generate(most, new, use_cache=False)]
    yield [Generate(most, new), Generate(1, new, 1), Generate(most, new)]
    yield [
        Generate(most, new, rows=2),
        Generate(max(most - 2, 1), new, 2),
        Generate(most, new, rows=3),
    ]
    yield [Generate(most, new), Generate(most, new, 1, use_cache=False), Generate(most, new, 2)]
    yield [Generate(most, new, 2, sampled=True), Generate(most, new, 0, 2, sampled=True)]
    yield [Generate(most, new, 0, 2, use_cache=False, sampled=True)]
    yield [Generate(most, 0), Generate(most, 0, use_cache=False), Generate(most, 1)]
    if room > 8:
        yield [Generate(2, 2), Generate(3, min(14, room - 3)), Generate(4, 2)]
        yield [New(), Feed(4), Generate(3, 4, 1), Feed(1), Feed(2)]
        yield [New(), Feed(1), Generate(1, 2, 1, rows=2), Feed(1), Feed(2)]
        yield [Generate(most, new), New(), Feed(6), Feed(1)]
        yield [Generate(most, new), Generate(most, new, 3), Generate(most - 2, new, 1)]
    if room > 40:
        yield [Generate(3, min(room - 3, 90))]
    if room > 20:
        turns = [Generate(3, 3), Generate(2, 3, 1, goes_on=True), Generate(1, 3, 2, goes_on=True)]
        yield turns
        yield [*turns[:2], Generate(2, 3, 3, goes_on=True, use_cache=False), Generate(4, 3)]
    if 8 < room <= LONG:
        yield [Generate(room - 3, 3, rows=2), Generate(room - 3, 3, 1)]


def padded(room: int, truncate: bool, reorder: bool) -> Iterator[Script]:
    """Prompts of different length: singles, chunks, rows that move, guesses taken back."""
    for length, padding in (
        (4, (0, 3)),
        (8, (0, 3, 5)),
        (8, (7, 0)),
        (9, (2, 2, 0, 8)),
        (5, (0, 0)),
    ):
        if length + 6 > room:
            continue
        begin = [New(len(padding), padding), Feed(length)]
        yield [*begin, Feed(1), Feed(1), Feed(1)]
        yield [*begin, Feed(3), Feed(1), Feed(2)]
        yield [*begin, New(2, cache="B"), Feed(3, 1, "B"), Feed(1), Feed(1, 1, "B"), Feed(1)]
        moved = tuple(reversed(range(len(padding))))
        if reorder:
            yield [*begin, Reorder(moved), Feed(1), Feed(2)]
            yield [*begin, Feed(1), Reorder((moved[0], moved[0], moved[-1])), Feed(1), Feed(2)]
        if truncate:
            yield [*begin, Feed(3, 1), RollBack(length), Feed(1), Feed(2)]
            yield [*begin, RollBack(max(padding) + 1), Feed(2, 1), Feed(1)]
    if room > 6:
        yield [New(2, (0, 2)), Feed(room - 2), Feed(1), Feed(1)]


def subjects(offers: Offers, room: int, vocab_size: int) -> Iterator[tuple[str, str, list[Script]]]:
    """Name, why it cannot be judged (or ""), and scripts, of all that is fed in short texts."""
    truncate, reorder = offers.truncate, offers.reorder
    texts = (*alike(room), *whole_vocabulary(vocab_size, room), *seldom.texts_and_rows(room))
    generated = (*generations(room), *seldom.generations(room))
    moved = (*reordered(room, truncate), *seldom.reordered(room, truncate))
    columns = (*padded(room, truncate, reorder), *seldom.padded(room, reorder))
    taken_back = (*rolled_back(room), *seldom.rolled_back(room))
    yield "Many texts and rows", "", [script for script in texts if possible(script, room)]
    for name, offered, lacking, scripts in (
        ("Generations", offers.generate, "the model has no `generate`", generated),
        ("After a rollback", truncate, "the cache has no `truncate`", taken_back),
        ("Rows reordered", reorder, "the cache has no `reorder`", moved),
        (
            "Prompts of different length",
            offers.padded_cache,
            "the model has no `padded_cache`",
            columns,
        ),
    ):
        yield name, "" if offered else lacking, [s for s in scripts if possible(s, room)]


def samples(offers: Offers, room: int) -> Iterator[Script]:
    """A few scripts of every kind, for another dtype."""
    for chunks in ((5, 1, 1, 4), (1, 1, 1, 1), (40, 1, 3), (128, 1), (255, 2, 1), (300, 1, 1)):
        if sum(chunks) <= room:
            yield feeds(*chunks, rows=2 if sum(chunks) < 20 else 1)
    yield from in_company(1, min(8, room)).values()
    yield from list(rolled_back(room))[:6] if offers.truncate else ()
    yield from list(reordered(room, offers.truncate))[:6] if offers.reorder else ()
    yield from (
        list(padded(room, offers.truncate, offers.reorder))[:6] if offers.padded_cache else ()
    )
