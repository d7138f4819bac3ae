"""What a user of a cache does, step by step (notebook 05).

A *script* is a list of steps, such as `[New(), Feed(256), Feed(1)]`. The tokens come from `texts`;
which logits are right for every step follows from the tokens alone. Caches are called A, B, C, ...
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import groupby


class Step:
    def __repr__(self) -> str:
        """As one would type it: the first argument by place, the others by name if not usual."""
        first, *others = fields(self)
        value = getattr(self, first.name)
        shown = [] if value == first.default else [repr(value)]
        shown += [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in others
            if getattr(self, field.name) != field.default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, repr=False)
class New(Step):
    """Start (again) with an empty cache; the first `padding[i]` columns of row i mean nothing.

    With `twin`, it is a cache of another model of the class, with other weights, which is used
    beside this one.
    """

    rows: int = 1
    padding: tuple[int, ...] = ()
    cache: str = "A"
    twin: bool = False


@dataclass(frozen=True, repr=False)
class Feed(Step):
    """The next tokens of a text go in. If they have no room, this must raise an error.

    `carelessly`, gradients are on, and the logits that came out are written over afterwards; here
    an error is no fault.
    """

    tokens: int
    text: int = 0
    cache: str = "A"
    carelessly: bool = False


@dataclass(frozen=True, repr=False)
class RollBack(Step):
    """`truncate`: forget all positions from `length` on."""

    length: int
    cache: str = "A"


@dataclass(frozen=True, repr=False)
class Reorder(Step):
    """`reorder`: row i becomes what row rows[i] was."""

    rows: tuple[int, ...]
    cache: str = "A"


@dataclass(frozen=True, repr=False)
class Uncached(Step):
    """The beginning of a text without a cache, in between."""

    tokens: int
    text: int = 0
    rows: int = 1


@dataclass(frozen=True, repr=False)
class Generate(Step):
    """`generate` so many new ids after the first `tokens` of a text: the likeliest, or drawn.

    They are drawn at one of several temperatures, which depends on how many they are.
    If it `goes_on`, the prompt is all that the last `generate` returned, and these tokens.
    """

    tokens: int
    new: int
    text: int = 0
    rows: int = 1
    use_cache: bool = True
    sampled: bool = False
    goes_on: bool = False


Script = Sequence[Step]
MOST_PHRASES = 14


def feeds(*chunks: int, rows: int = 1, text: int = 0) -> Script:
    """A script that feeds a text in these chunks: (4, 1, 1) is 4, then 1, then 1."""
    return [New(rows), *(Feed(tokens, text) for tokens in chunks)]


def size(script: Script) -> tuple[int, int, int, int]:
    """What makes one script smaller than another: no `generate`, steps, tokens, all numbers."""
    generates = any(isinstance(step, Generate) for step in script)
    tokens = sum(getattr(step, "tokens", 0) for step in script)
    values = [value for step in script for value in vars(step).values()]
    numbers = [v for value in values for v in (value if isinstance(value, tuple) else (value,))]
    numbers += [len(value) for value in values if isinstance(value, tuple)]
    return generates, len(script), tokens, sum(v for v in numbers if isinstance(v, int))


def describe(chunks: Sequence[int]) -> str:
    """(4, 1, 1) as "prefill 4, then 1 at a time"."""
    first, rest = chunks[0], chunks[1:]
    if not rest:
        return f"{_tokens(first)} {'at once ' * (first > 1)}into an empty cache"
    if set(chunks) == {1}:
        return f"{len(chunks)} tokens, 1 at a time from an empty cache"
    if len(rest) == 1:
        return f"prefill {first}, then {_tokens(rest[0])}"
    if set(rest) == {1}:
        return f"prefill {first}, then 1 at a time"
    shown = ", ".join(map(str, chunks[:5])) + (", ..." if len(chunks) > 5 else "")
    return f"in chunks of {shown}"


def words(script: Script) -> str:
    """A script in plain words."""
    chunks = [step.tokens for step in script if isinstance(step, Feed)]
    if chunks and list(script) == feeds(*chunks):
        return describe(chunks)
    several = len({getattr(step, "cache", "A") for step in script}) > 1
    where = [getattr(step, "cache", "") * several for step in script]
    phrases = [
        f"{cache}: {_phrase(step)}" if cache else _phrase(step)
        for cache, step in zip(where, script, strict=True)
    ]
    runs = [(phrase, len(list(same))) for phrase, same in groupby(phrases)]
    said = [phrase if n == 1 else f"{n} times {phrase}" for phrase, n in runs]
    if len(said) > MOST_PHRASES:
        said = [*said[: MOST_PHRASES - 2], f"... ({len(script)} steps)", said[-1]]
    return "; ".join(said)


def _phrase(step: Step) -> str:
    of = f" of text {step.text}" if getattr(step, "text", 0) else ""
    of += ", carelessly" if getattr(step, "carelessly", False) else ""
    match step:
        case New():
            padded = f", padded by {', '.join(map(str, step.padding))}" if step.padding else ""
            twin = " of another model" if step.twin else ""
            return "a new cache" + _rows(step.rows) + padded + twin
        case Feed():
            return _tokens(step.tokens) + of
        case RollBack():
            return f"back to {step.length}"
        case Reorder():
            return f"rows become {', '.join(map(str, step.rows))}"
        case Uncached():
            return f"{_tokens(step.tokens)}{of} without a cache" + _rows(step.rows)
        case Generate():
            how = f"{'draw' if step.sampled else 'generate'} {_tokens(step.new)}"
            cache = "with" if step.use_cache else "without"
            after = f"after {'all that and ' * step.goes_on}{_tokens(step.tokens)}"
            return f"{how} {after}{of} {cache} a cache" + _rows(step.rows)
    raise TypeError(f"{step!r} is not a step of a script.")


def _rows(number: int) -> str:
    return f" for {number} rows" if number > 1 else ""


def _tokens(number: int) -> str:
    return f"{number} token" + "s" * (number != 1)
