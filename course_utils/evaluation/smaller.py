"""Making a failing script smaller: a step less, a smaller number, until nothing less fails."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

from .steps import Feed, Generate, New, Reorder, RollBack, Script, Step, Uncached, size


def reduced(script: Script, fails: Callable[[Script], bool], room: int, tries: int) -> Script:
    """A script that fails and of which no simpler variation fails, or the best after `tries`."""
    best = list(script)
    while tries > 0:
        for simpler in variations(best):
            if size(simpler) < size(best) and possible(simpler, room):
                tries -= 1
                if fails(simpler):
                    best = simpler
                    break
                if tries <= 0:
                    break
        else:
            break
    return best


def variations(script: Script) -> Iterator[list[Step]]:
    """The script without a step, with two `Feed`s as one, with some tokens less in a `Feed` and in
    all later rollbacks, and with a smaller number in a step; the boldest come first.
    """
    for i in reversed(range(len(script))):
        yield [*script[:i], *script[i + 1 :]]
    for i, (step, after) in enumerate(pairwise(script)):
        if isinstance(step, Feed) and isinstance(after, Feed) and step.cache == after.cache:
            together = replace(step, tokens=step.tokens + after.tokens)
            yield [*script[:i], together, *script[i + 2 :]]
    for i, step in enumerate(script):
        if isinstance(step, Feed) and _rolls_back(script[i + 1 :], step.cache):
            for fewer in dict.fromkeys((step.tokens // 2, 1)):
                later = [_sooner(other, fewer, step.cache) for other in script[i + 1 :]]
                yield [*script[:i], replace(step, tokens=step.tokens - fewer), *later]
    for i, step in enumerate(script):
        for simpler in _simpler(step):
            yield [*script[:i], simpler, *script[i + 1 :]]


def _rolls_back(script: Script, cache: str) -> bool:
    return any(isinstance(step, RollBack) and step.cache == cache for step in script)


def _sooner(step: Step, fewer: int, cache: str) -> Step:
    if isinstance(step, RollBack) and step.cache == cache:
        return replace(step, length=max(step.length - fewer, 0))
    return step


def _simpler(step: Step) -> Iterator[Step]:
    numbers = {New: ("rows",), Feed: ("tokens",), RollBack: ("length",)}
    numbers |= {Uncached: ("tokens", "rows"), Generate: ("tokens", "new", "rows")}
    for name in numbers.get(type(step), ()):
        value = getattr(step, name)
        least = int(name not in ("length", "new"))
        for less in dict.fromkeys((least, value // 2, value - 1)):
            if least <= less < value and not (name == "rows" and getattr(step, "padding", ())):
                yield replace(step, **{name: less})
    if isinstance(step, New) and len(step.padding) > 2:
        for row in reversed(range(step.rows)):
            padding = step.padding[:row] + step.padding[row + 1 :]
            yield replace(step, rows=step.rows - 1, padding=padding)
    if getattr(step, "text", 0):
        yield replace(step, text=0)
    if getattr(step, "carelessly", False):
        yield replace(step, carelessly=False)
    if isinstance(step, Reorder) and len(step.rows) > 1:
        yield replace(step, rows=step.rows[:-1])


def possible(script: Script, room: int) -> bool:
    """Can a user do this? Tokens past the end of the room are possible: they must be refused."""
    stored, rows, least = {}, {}, {}
    said = None
    for step in script:
        cache = getattr(step, "cache", None)
        if not isinstance(step, New | Uncached | Generate) and cache not in stored:
            return False
        match step:
            case New():
                stored[cache], rows[cache] = 0, step.rows
                least[cache] = max(step.padding, default=-1) + 1
            case Feed():
                if step.tokens < 1:
                    return False
                stored[cache] += step.tokens if stored[cache] + step.tokens <= room else 0
                if stored[cache] < least[cache]:
                    return False
            case RollBack():
                if not least[cache] <= step.length <= stored[cache] or not stored[cache]:
                    return False
                stored[cache] = step.length
            case Reorder():
                if max(step.rows) >= rows[cache] or not stored[cache]:
                    return False
                rows[cache] = len(step.rows)
            case Uncached():
                if step.tokens < 1:
                    return False
            case Generate():
                length = step.tokens + step.new
                if step.goes_on:
                    if said is None or said[0] != step.rows:
                        return False
                    length += said[1]
                if step.tokens < 1 or length > room:
                    return False
                said = step.rows, length
    return True
