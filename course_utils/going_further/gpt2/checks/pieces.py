"""What the check cell of one merge calls (chapter 12)."""

from collections.abc import Callable, Sequence

from hypothesis import strategies as st

from ....checks.common import is_stub, raised, verdict
from ....checks.inputs import Call
from ....checks.judged import Answer, judge
from .. import bpe

EASY = (
    ("t h e", ("t", "h")),
    ("a b c a b", ("a", "b")),
    ("b a b a", ("a", "b")),
    ("Ġ th e n", ("th", "e")),
    ("th e n", ("h", "e")),
    ("t he n", ("t", "h")),
    ("a bc ab c", ("ab", "c")),
    ("a a a", ("a", "a")),
    ("a a a a a", ("a", "a")),
    ("x y", ("y", "x")),
    ("x", ("x", "x")),
    ("", ("x", "x")),
)
LONG = "a b b " * 80, ("a", "b")


@st.composite
def _words(draw: st.DrawFn) -> Call:
    """Pieces of which many are those of the pair, or nearly; a backslash is a byte, too."""
    piece = st.sampled_from(("a", "b", "ab", "ba", ".", "\\"))
    pair = draw(piece), draw(piece)
    pieces = draw(st.lists(st.sampled_from(pair) | piece, max_size=6))
    return Call("merge_pair", (pieces, pair))


def _merging(merge_pair: Callable[[Sequence[str], bpe.Pair], list[str]]) -> Answer:
    def answer(call: Call) -> object:
        pieces, pair = call.copied().args
        try:
            found = merge_pair(pieces, pair)
        except Exception as error:
            if is_stub(error):
                raise
            raise AssertionError(raised(error)) from error
        if pieces != call.args[0]:
            raise AssertionError(
                f"changes the list that came in, to {pieces}. Make a new one: the old pieces may "
                "still be needed"
            )
        if isinstance(found, str) or not isinstance(found, Sequence):
            raise AssertionError(f"is {found!r}, expected a list of pieces")
        return list(found)

    return answer


def _walk(
    pieces: list[str], together: Callable[[list[str]], bool], behind: int = 2, end: int = 0
) -> list[str]:
    """From left to right, `behind` further after a merge; what is left at the end is not read."""
    found, i = [], 0
    while i < len(pieces) - end:
        both = i + 1 < len(pieces) and together(pieces[i : i + 2])
        found.append("".join(pieces[i : i + 1 + both]))
        i += behind if both else 1
    return found


def _one_of_them(which: int) -> Callable:
    def wrong(pieces: list[str], pair: bpe.Pair) -> list[str]:
        places = [i for i in range(len(pieces) - 1) if tuple(pieces[i : i + 2]) == pair]
        if not places:
            return pieces
        at = places[which]
        return [*pieces[:at], "".join(pair), *pieces[at + 2 :]]

    return wrong


def _from_the_right(pieces: list[str], pair: bpe.Pair) -> list[str]:
    turned = [piece[::-1] for piece in reversed(pieces)]
    found = bpe.merge_pair(turned, (pair[1][::-1], pair[0][::-1]))
    return [piece[::-1] for piece in reversed(found)]


def _used_twice(pieces: list[str], pair: bpe.Pair) -> list[str]:
    found, skip = [], False
    for i, piece in enumerate(pieces):
        if tuple(pieces[i : i + 2]) == pair:
            found.append("".join(pair))
            skip = True
        elif skip:
            skip = False
        else:
            found.append(piece)
    return found


def _as_one_string(pieces: list[str], pair: bpe.Pair) -> list[str]:
    return " ".join(pieces).replace(" ".join(pair), "".join(pair)).split()


def _by_letters(pieces: list[str], pair: bpe.Pair) -> list[str]:
    whole = "".join(pair)
    return "".join(pieces).replace(whole, f"\0{whole}\0").split("\0")


ALL = "Every occurrence is merged, also at the very end."
ORDER = "The order counts: (a, b) is not (b, a)."
WHOLE = "Two pieces must match, each as a whole; not their letters."
WRONG = [
    (lambda pieces, pair: pieces, f"Nothing is merged. {ALL}"),
    (_one_of_them(0), f"Only the first is merged. {ALL}"),
    (_one_of_them(-1), f"Only the last is merged. {ALL}"),
    (_from_the_right, "The merges go from left to right; here they come from the right."),
    (
        lambda pieces, pair: _walk(pieces, lambda two: tuple(two) == pair, behind=1),
        "After a merge the second piece comes again. No piece is used twice: go on after both.",
    ),
    (_used_twice, "From left to right, and no piece is used twice."),
    (
        lambda pieces, pair: _walk(pieces, lambda two: tuple(two) in (pair, pair[::-1])),
        ORDER,
    ),
    (lambda pieces, pair: bpe.merge_pair(bpe.merge_pair(pieces, pair), pair[::-1]), ORDER),
    (
        lambda pieces, pair: _walk(pieces, lambda two: two[0] == pair[0]),
        "Both pieces must match; here the second may be any.",
    ),
    (
        lambda pieces, pair: _walk(pieces, lambda two: tuple(two) == pair, end=1),
        "The last piece is lost when no merge ends with it.",
    ),
    (lambda pieces, pair: _walk(pieces, lambda two: "".join(two) == "".join(pair)), WHOLE),
    (_as_one_string, WHOLE),
    (_by_letters, WHOLE),
]


@verdict
def check_merge_pair(merge_pair: Callable[[Sequence[str], bpe.Pair], list[str]]) -> str:
    """Chapter 12, exercise 1. Returns a verdict; raises AssertionError on a wrong merge."""
    calls = [Call("merge_pair", (text.split(), pair)) for text, pair in (*EASY, LONG)]
    judge(
        _merging(merge_pair),
        _merging(bpe.merge_pair),
        _words(),
        [(_merging(wrong), advice) for wrong, advice in WRONG],
        first=calls,
        number=150,
        advice="From left to right, each two neighbours that are the pair become one piece.",
    )
    for call in calls:
        if merge_pair(*call.args) is call.args[0]:
            raise AssertionError(f"{call} is the very list that came in, expected a new one.")
    return "merge_pair is right: every occurrence, from left to right, and the order counts."
