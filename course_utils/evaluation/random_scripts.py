"""Scripts that nobody thought of: drawn, and made small where they fail, by `hypothesis`.

Draws are repeatable: they depend on the seed, on what a model offers and on its room, and on
nothing else.
"""

from collections.abc import Callable
from functools import partial

from hypothesis import strategies as st

from .drawn import smallest
from .model import Offers
from .steps import Feed, Generate, New, Reorder, RollBack, Script, Step, Uncached

SMALL = (1,) * 5 + (2,) * 4 + (3,) * 3 + (4, 4, 5, 5, 6, 7, 8, 8)
MIDDLE = (9, 12, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65)
LARGE = (96, 127, 128, 129, 192, 255, 256, 257, 500, 511, 512, 513, 1000)
SIZES = SMALL + MIDDLE + SMALL + LARGE
MOST_STEPS = 10
CACHES = "ABC"
MOST_ROWS = 5
TEXTS = 11


def kinds(offers: Offers) -> list[str]:
    """The steps that can be drawn; those that come first are the simpler ones."""
    found = ["feed"] * 6 + ["new", "other", "uncached"]
    found += ["truncate"] * 2 * offers.truncate + ["reorder"] * 2 * offers.reorder
    return found + ["generate"] * 2 * offers.generate + ["padded"] * offers.padded_cache


def scripts(offers: Offers, room: int, most: int) -> st.SearchStrategy[Script]:
    """Scripts that a model with these offers can play."""
    step = st.tuples(
        st.sampled_from(kinds(offers)), st.integers(0, len(SIZES) - 1), st.integers(0, TEXTS - 1)
    )
    rows, steps = st.integers(1, 3), st.lists(step, min_size=1, max_size=MOST_STEPS)
    return st.tuples(rows, steps).map(partial(_possible, room=room, most=most))


class _Writer:
    """Turns drawn numbers into steps, each possible after those before it."""

    def __init__(self, rows: int, room: int, most: int):
        self.room, self.left = room, most
        self.steps: list[Step] = []
        self.cache = "A"
        self.said = 0, 0
        self.stored: dict[str, int] = {}
        self.rows: dict[str, int] = {}
        self.least: dict[str, int] = {}
        self.new("A", rows)

    def new(self, cache: str, rows: int, padding: tuple[int, ...] = ()) -> None:
        self.cache = cache
        self.steps.append(New(rows, padding, cache))
        self.stored[cache], self.rows[cache] = 0, rows
        self.least[cache] = max(padding, default=-1) + 1

    def add(self, kind: str, number: int, text: int) -> None:
        cache, stored = self.cache, self.stored[self.cache]
        tokens = min(SIZES[number], self.room, self.left)
        match kind:
            case "feed":
                tokens = min(max(tokens, self.least[cache] - stored), self.room - stored)
                if tokens > 0:
                    self.feed(tokens, text)
            case "new":
                self.new(cache, 1 + number % 3)
            case "other":
                self.cache = CACHES[(CACHES.index(cache) + 1 + number % 2) % len(CACHES)]
                if self.cache not in self.stored:
                    self.new(self.cache, 1 + number % 3)
            case "uncached" if tokens > 0:
                self.steps.append(Uncached(tokens, text, 1 + number % 2))
            case "truncate" if stored > self.least[cache]:
                length = max(number % (stored + 1), self.least[cache])
                self.steps.append(RollBack(length, cache))
                self.stored[cache] = length
            case "reorder" if stored:
                rows = _order(self.rows[cache], number)
                self.steps.append(Reorder(rows, cache))
                self.rows[cache] = len(rows)
            case "generate" if self.room > 2:
                self.generate(number, text)
            case "padded" if self.room > 8:
                factors = (1, number // 18 % 2, 3)[: 1 + number % 3]
                padding = tuple(number // 3 * factor % 6 for factor in factors)
                self.new(cache, len(padding), padding)
                self.feed(max(padding) + 1 + text % 3, 0)

    def feed(self, tokens: int, text: int) -> None:
        self.steps.append(Feed(tokens, text, self.cache))
        self.stored[self.cache] += tokens
        self.left -= tokens

    def generate(self, number: int, text: int) -> None:
        rows, prompt = 1 + number % 2, min(SMALL[number % len(SMALL)], self.room - 1)
        goes_on = number % 5 > 2 and self.said[0] == rows and self.said[1] + prompt < self.room
        length = prompt + (self.said[1] if goes_on else 0)
        new = min(number % 9, self.room - length)
        flags = {"use_cache": number % 4 != 3, "sampled": number % 3 == 2, "goes_on": goes_on}
        self.steps.append(Generate(prompt, new, text, rows, **flags))
        self.said = rows, length + new


def _order(rows: int, number: int) -> tuple[int, ...]:
    """Which old row each new one is, from a number: 1 to 4 of them."""
    count = 1 + number // 3 % MOST_ROWS
    return tuple((number + i * (1 + number % 2)) % rows for i in range(count))


def _possible(drawn: tuple[int, list[tuple[str, int, int]]], room: int, most: int) -> Script:
    rows, steps = drawn
    writer = _Writer(rows, room, most)
    for step in steps:
        writer.add(*step)
    return writer.steps


def search(
    fails: Callable[[Script], bool], offers: Offers, room: int, number: int, seed: int, most: int
) -> Script | None:
    """The smallest failing script that `hypothesis` finds among `number` drawn ones, or None.

    A script feeds at most `most` tokens.
    """
    return smallest(scripts(offers, room, most), fails, number, seed)
