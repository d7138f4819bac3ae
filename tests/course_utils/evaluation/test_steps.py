"""Scripts: how they read, and what can be played."""

import pytest

from course_utils import evaluation
from course_utils.evaluation import Feed, Generate, New, Reorder, RollBack, Uncached, feeds, words
from course_utils.evaluation.smaller import possible, reduced

SCRIPTS = {
    "7 tokens at once into an empty cache": feeds(7),
    "prefill 256, then 1 token": feeds(256, 1),
    "prefill 4, then 12 tokens": feeds(4, 12),
    "prefill 4, then 1 at a time": feeds(4, 1, 1),
    "3 tokens, 1 at a time from an empty cache": feeds(1, 1, 1),
    "in chunks of 3, 3, 1": feeds(3, 3, 1),
    "a new cache for 2 rows; 3 tokens; back to 1; 2 times 1 token of text 2": [
        New(2),
        Feed(3),
        RollBack(1),
        Feed(1, 2),
        Feed(1, 2),
    ],
    "A: a new cache; B: a new cache for 2 rows, padded by 0, 3; B: 4 tokens; A: 1 token; B: rows "
    "become 1, 1, 0": [
        New(),
        New(2, (0, 3), "B"),
        Feed(4, cache="B"),
        Feed(1),
        Reorder((1, 1, 0), "B"),
    ],
    "5 tokens without a cache for 2 rows; generate 0 tokens after 3 tokens of text 1 without a "
    "cache; draw 2 tokens after all that and 1 token with a cache": [
        Uncached(5, rows=2),
        Generate(3, 0, 1, use_cache=False),
        Generate(1, 2, sampled=True, goes_on=True),
    ],
}


@pytest.mark.parametrize("text", SCRIPTS)
def test_a_script_in_words_and_as_python(text):
    assert words(SCRIPTS[text]) == text
    assert eval(repr(SCRIPTS[text]), vars(evaluation)) == SCRIPTS[text]
    assert possible(SCRIPTS[text], room=300)


@pytest.mark.parametrize(
    "script",
    [
        [Feed(1)],
        [New(), Feed(0)],
        [New(), RollBack(0)],
        [New(), Feed(3), RollBack(4)],
        [New(2), Feed(3), Reorder((2,))],
        [New(2, (0, 3)), Feed(3)],
        [New(2, (0, 3)), Feed(6), RollBack(3)],
        [New(), Feed(1, cache="B")],
        [Generate(20, 5)],
        [Generate(3, 3), Generate(1, 1, rows=2, goes_on=True)],
        [Generate(3, 15), Generate(4, 3, goes_on=True)],
    ],
    ids=repr,
)
def test_what_no_user_can_do(script):
    assert not possible(script, room=24)


def test_a_script_is_reduced_to_what_fails():
    def fails(script):
        """A rollback, and later a chunk of two or more."""
        kinds = [type(step) for step in script]
        if RollBack not in kinds:
            return False
        later = script[kinds.index(RollBack) :]
        return any(isinstance(step, Feed) and step.tokens > 1 for step in later)

    long = [New(3), Feed(9), Feed(4, 1), RollBack(7), Feed(1), Uncached(5), Feed(11, 3), Feed(1)]
    assert fails(long)
    found = reduced(long, fails, room=24, tries=200)
    assert found == [New(), Feed(1), RollBack(0), Feed(2)]
    assert reduced(long, fails, room=24, tries=0) == long


def test_feeds_are_put_together_and_padded_rows_left_out():
    def past_eight(script):
        return sum(step.tokens for step in script[1:-1]) >= 8 and script[-1].tokens > 0

    chunks = [New(), Feed(5), Feed(1), Feed(2), Feed(1)]
    assert reduced(chunks, past_eight, room=24, tries=200) == [New(), Feed(8), Feed(1)]

    def one_row_by_two(script):
        return 2 in script[0].padding and len(script) == 2

    padded = [New(5, (0, 1, 2, 3, 4)), Feed(6)]
    found = reduced(padded, one_row_by_two, room=24, tries=200)
    assert found[0].rows == len(found[0].padding) == 2


def test_lengths_that_depend_on_each_other_are_reduced_together():
    def fails(script):
        """Two tokens are taken back, twice, and as many as there are must have been stored."""
        match script:
            case [New(), Feed(tokens=n), RollBack(length=first), RollBack(length=second), *_]:
                return n - first == first - second == 2
        return False

    long = [New(3), Feed(22), RollBack(20), RollBack(18), Feed(1, 1), Feed(3, 2)]
    found = reduced(long, fails, room=24, tries=200)
    assert found == [New(), Feed(4), RollBack(2), RollBack(0)]


def test_a_long_script_is_told_in_a_few_words():
    beams = [New(), *[Feed(1), Reorder((0, 0)), Feed(2)] * 20]
    said = words(beams)
    assert said.startswith("a new cache; 1 token; rows become 0, 0; 2 tokens; 1 token")
    assert said.endswith("; ... (61 steps); 2 tokens") and len(said) < 250
