"""The checks of caches in the wild (chapter 13): what they refuse, say, and accept."""

import contextlib
import re

import pytest

from course_utils.going_further.wild import checks, window

pytestmark = pytest.mark.authors


def not_counted(kept, length):
    kept.past.crop(length - kept.length)


def without_a_count(kept, length):
    before = kept.length
    window.roll_back(kept, length)
    kept.length = before


def asked_for_nothing(kept, length):
    try:
        kept.past.crop(length - kept.length)
    except RuntimeError as error:
        raise NotImplementedError(str(error)) from None
    kept.length = length


def positive(kept, length):
    kept.past.crop(length)
    kept.length = length


def any_error(kept, length):
    with contextlib.suppress(RuntimeError):
        kept.past.crop(length - kept.length)
    kept.length = length


def counted_first(kept, length):
    count, kept.length = kept.length - length, length
    try:
        kept.past.crop(-count)
    except RuntimeError as error:
        raise NotImplementedError(str(error)) from None


def raised_as_it_is(kept, length):
    kept.past.crop(length - kept.length)
    kept.length = length


def one_short(kept, length):
    window.roll_back(kept, min(length + 1, kept.length))
    kept.length = length


def begun_again(kept, length):
    kept.past.reset()
    kept.length = 0


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (not_counted, "the outcome is 5, expected 3 (step 2, kept.length)"),
        (without_a_count, "The adapter's own count, kept.length, has to follow"),
        (asked_for_nothing, "Where nothing is to be taken back, there is nothing to do"),
        (positive, "raised ValueError"),
        (any_error, "is 'taken back', expected 'refused'"),
        (counted_first, "kept.length"),
        (raised_as_it_is, "raised RuntimeError"),
        (one_short, "`crop` keeps one token too many"),
        (begun_again, "the outcome"),
        (lambda kept, length: None, "the outcome is 5, expected 3 (step 2, kept.length)"),
    ],
)
def test_wrong_rollbacks(answer, words):
    with pytest.raises(AssertionError, match=re.escape(words)):
        checks.check_roll_back(answer)


def by_hand(kept, length):
    for _ in range(kept.length - length):
        try:
            kept.past.crop(-1)
        except RuntimeError:
            raise NotImplementedError from None
        kept.length -= 1


def asked_first(kept, length):
    layer = kept.past.layers[0]
    full = layer.is_sliding and layer.get_seq_length() >= layer.sliding_window
    if full and length < kept.length:
        raise NotImplementedError
    if not full:
        kept.past.crop(-(kept.length - length))
    kept.length = length


@pytest.mark.parametrize("answer", [window.roll_back, by_hand, asked_first])
def test_right_rollbacks(answer):
    assert "roll_back is right" in checks.check_roll_back(answer)


def sets(kept, window_, chunks):
    found, start = set(), 0
    for length in chunks:
        gone = set(range(start - kept)) if start > kept else set()
        for position in range(start, start + length):
            if gone & set(range(position - window_ + 1, position + 1)):
                found.add(position)
        start += length
    return sorted(found)


def by_starts(kept, window_, chunks):
    starts = [sum(chunks[:i]) for i in range(len(chunks))]
    return [
        p
        for start, length in zip(starts, chunks, strict=True)
        for p in range(start, start + length)
        if kept < start and p - window_ + 1 < start - kept
    ]


@pytest.mark.parametrize("answer", [window.wrong_positions, sets, by_starts])
def test_right_predictions(answer):
    assert "wrong_positions is right" in checks.check_wrong_positions(answer)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda kept, window_, chunks: [], "expected [7, 8]"),
        (lambda kept, window_, chunks: None, "is None"),
        (lambda kept, w, chunks: list(range(w, sum(chunks))), "wrong_positions("),
        (lambda kept, w, chunks: list(range(kept + 1, sum(chunks))), "wrong_positions("),
        (lambda kept, w, c: [p + 1 for p in window.wrong_positions(kept, w, c)], "expected [7, 8]"),
        (lambda kept, w, c: window.wrong_positions(kept, w, c)[:1], "All wrong positions"),
        (lambda kept, w, c: window.wrong_positions(kept - 1, w, c), "expected []"),
        (lambda kept, w, c: window.wrong_positions(kept, w + 1, c), "A window of w"),
    ],
)
def test_wrong_predictions(answer, words):
    with pytest.raises(AssertionError, match=re.escape(words)):
        checks.check_wrong_positions(answer)


class Keeping(window.CuredLayer):
    """Keeps everything."""

    def update(self, k, v, *more):
        self.spare += k.size(2)
        return super().update(k, v, *more)


class Refusing(window.SpareLayer):
    def crop(self, tokens_to_remove):
        raise NotImplementedError("no")


class Reduced(window.SpareLayer):
    """The spare is used up for good."""

    def crop(self, tokens_to_remove):
        super().crop(tokens_to_remove)
        self.spare += tokens_to_remove


class Halved(window.CuredLayer):
    """The values stay as they were."""

    def crop(self, tokens_to_remove):
        values = self.values
        super().crop(tokens_to_remove)
        self.values = values


class CountedFirst(window.SpareLayer):
    """Forgets, and then refuses."""

    def crop(self, tokens_to_remove):
        forgotten = self.seen > self.held
        self.seen += tokens_to_remove
        if forgotten and self.held + tokens_to_remove < self.window - 1:
            raise NotImplementedError("too few")
        self.keys = self.keys[:, :, : self.held + tokens_to_remove]
        self.values = self.values[:, :, : self.held]


@pytest.mark.parametrize(
    ("layer_class", "words"),
    [
        (window.SpareLayer, "The layer is still the one of the package"),
        (Keeping, "keeps 15 tokens, more than 10"),
        (Refusing, "expected 'taken back'"),
        (Reduced, "The spare fills up again"),
        (Halved, "values"),
        (CountedFirst, "how many tokens were seen"),
        (type("NoNumber", (window.SpareLayer,), {"__init__": lambda self: None}), "TypeError"),
    ],
)
def test_wrong_layers(layer_class, words):
    with pytest.raises(AssertionError, match=re.escape(words)):
        checks.check_cured_layer(layer_class)


class Bare(window.SpareLayer):
    """Refuses without a word, and counts what has been forgotten."""

    def crop(self, tokens_to_remove):
        left = self.held + tokens_to_remove
        if left < min(self.window - 1, self.seen + tokens_to_remove):
            raise NotImplementedError
        self.keys, self.values = self.keys[:, :, :left], self.values[:, :, :left]
        self.seen += tokens_to_remove


@pytest.mark.parametrize("layer_class", [window.CuredLayer, Bare])
def test_right_layers(layer_class):
    assert "CuredLayer is right" in checks.check_cured_layer(layer_class)


def test_a_stub_ends_in_its_own_line():
    def stub(kept, length):
        raise NotImplementedError("Your turn: exercise 1")

    class Stub(window.SpareLayer):
        def crop(self, tokens_to_remove):
            raise NotImplementedError("Your turn: exercise 3")

    for check, answer in ((checks.check_roll_back, stub), (checks.check_cured_layer, Stub)):
        with pytest.raises(NotImplementedError, match="Your turn"):
            check(answer)
