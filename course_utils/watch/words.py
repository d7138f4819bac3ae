"""What a record says in words: a sentence for each call, and all calls as lines of text."""

import math

from .record import Call, Record
from .rows import KINDS, LEFT_OVER, MISSING, NOTHING, READ, WRITTEN

LEAST = 5  # percent: what a word is looked at to be named
NAMED = 3


def fed(record: Record, call: Call) -> str:
    """The words that went in: "prompt", or the words themselves."""
    words = record.rows[record.earlier :][call.start : call.end]
    return "prompt" if call.start == 0 else " ".join(words)


def count(call: Call, letter: str) -> tuple[int, int]:
    """The fewest and the most rows of K or V with this letter, small or capital, in a layer."""
    rows = [layer[kind].lower().count(letter) for layer in call.cells for kind in KINDS]
    return min(rows), max(rows)


def number_of_rows(call: Call, letter: str) -> str:
    """Such as "1 row", or "0 to 3 rows" where the layers differ."""
    low, high = count(call, letter)
    span = str(high) if low == high else f"{low} to {high}"
    return f"{span} row{'s' * (high != 1)}"


def operations(number: int) -> str:
    return f"{number / 1e6:.1f} million"


def likely(call: Call) -> str:
    """The likeliest words with their probabilities."""
    return ", ".join(f"{word} {value:.2f}" for word, value in call.top)


def looked_at(record: Record, call: Call, layer: int = -1) -> str:
    """The words that the last token looked at most in a layer, with the weights."""
    seen = call.looks[layer][-1]
    most = sorted(range(len(seen)), key=lambda row: -seen[row])[:NAMED]
    words = [f"{record.rows[row]} 0.{seen[row]:02}" for row in most if LEAST <= seen[row] < 100]
    words += [f"{record.rows[row]} 1.00" for row in most if seen[row] == 100]
    return ", ".join(words) or "nothing"


def problems(record: Record, number: int) -> str:
    """What is wrong in a call, or nothing: rows that are missing or left over, and the logits."""
    call = record.calls[number]
    found = []
    if count(call, MISSING)[1]:
        found.append(f"Missing in each layer: {number_of_rows(call, MISSING)} of K and of V.")
    if count(call, LEFT_OVER)[1]:
        found.append(f"Left over from another text: {number_of_rows(call, LEFT_OVER)}.")
    if call.wrong:
        first = " for the first time" if record.first_wrong == number else ""
        size = "NaN or infinity" if math.isinf(call.error) else f"up to {call.error:.3g}"
        place = f"from position {call.position} on, by {size}"
        found.append(f"Wrong{first}: the logits differ {place}.")
    return " ".join(found)


def sentence(record: Record, number: int) -> str:
    """What happens in a call."""
    call = record.calls[number]
    words = call.end - call.start
    prompt = f"The prompt goes in: {words} word{'s' * (words != 1)}"
    what = f"In goes “{fed(record, call)}”" if number else prompt
    text = f"{what}. Each layer writes {number_of_rows(call, WRITTEN)} of K and of V"
    if any(count(call, READ)):
        text += f" and reads {number_of_rows(call, READ)} from the cache"
    return f"{text}. {problems(record, number)}".strip()


def stripe(record: Record, call: Call) -> str:
    """K of the last layer in one line: █ written, ▒ read, ? missing, × wrong or left over."""
    signs = {
        NOTHING: "·",
        WRITTEN: "█",
        READ: "▒",
        MISSING: "?",
        LEFT_OVER: "×",
        "W": "×",
        "R": "×",
    }
    return "".join(signs[letter] for letter in call.cells[-1]["K"])


def strip(record: Record, beside: Record) -> str:
    """All calls of a record as text, three lines each; `beside` is the uncached one."""
    lines = []
    for number, (call, plain) in enumerate(zip(record.calls, beside.calls, strict=False)):
        lines += [
            f"{number + 1}. {sentence(record, number)}",
            f"   {stripe(record, call)}  looks at: {looked_at(record, call)}",
            f"   comes out: {likely(call)} · {operations(call.operations)} operations, "
            f"without a cache {operations(plain.operations)}",
        ]
    if record.ended:
        lines.append(f"{len(record.calls) + 1}. {record.ended}")
    return "\n".join(lines)


def summary(record: Record) -> str:
    """One line about a record: where it is wrong for the first time."""
    if (number := record.first_wrong) is not None:
        call = record.calls[number]
        return f"{record.name}: wrong from call {number + 1} ({fed(record, call)}) on"
    return f"{record.name}: {record.ended or 'right in every call'}"
