"""The checks of caches in the wild (chapter 13): what they refuse, say, and accept."""

import contextlib
import copy
import re

import pytest
import torch

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


def saying(words):
    """Refuses with other words than the library's."""

    def roll_back(kept, length):
        try:
            window.roll_back(kept, length)
        except NotImplementedError as error:
            raise NotImplementedError(*words(str(error))) from None

    return roll_back


def asked_first(kept, length):
    layer = kept.past.layers[0]
    full = layer.is_sliding and layer.get_seq_length() >= layer.sliding_window
    if full and length < kept.length:
        raise NotImplementedError("a window")
    window.roll_back(kept, length)


def first_layer(kept, length):
    if length < kept.length:
        try:
            kept.past.layers[0].crop(length - kept.length)
        except RuntimeError as error:
            raise NotImplementedError(str(error)) from None
        kept.length = length


def keys_only(kept, length):
    values = [layer.values for layer in kept.past.layers]
    window.roll_back(kept, length)
    for layer, whole in zip(kept.past.layers, values, strict=True):
        layer.values = whole


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
        (saying(lambda words: ()), "without a reason"),
        (saying(lambda words: ("this cache cannot do it",)), "without the words of the library's"),
        (saying(lambda words: (words.split()[0],)), "without the words of the library's"),
        (asked_first, "with 'a window', without the words"),
        (first_layer, "2 layers, 5 fed, then roll_back(kept, 3)"),
        (keys_only, "its values"),
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
        except RuntimeError as error:
            raise NotImplementedError(error) from None
        kept.length -= 1


def told_by_its_cause(kept, length):
    gone = kept.length - length
    if gone:
        try:
            kept.past.crop(-gone)
        except RuntimeError as error:
            raise NotImplementedError from error
        kept.length -= gone


def in_a_sentence(kept, length):
    before, past = kept.length, kept.past
    if before == length:
        return
    kept.past, kept.length = copy.deepcopy(past), length
    try:
        kept.past.crop(length - before)
    except Exception as why:
        kept.past, kept.length = past, before
        raise NotImplementedError(f"{before - length} tokens cannot be taken back: {why}") from why


@pytest.mark.parametrize("answer", [window.roll_back, by_hand, told_by_its_cause, in_a_sentence])
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


def one_by_one(kept, window_, chunks):
    """Plays it: which keys are there, token by token; as a tuple."""
    there, wrong, start = [], [], 0
    for length in chunks:
        here = [*there, *range(start, start + length)]
        for position in range(start, start + length):
            needed = range(max(position - window_ + 1, 0), position + 1)
            wrong += [position] * (not set(needed) <= set(here))
        there, start = here[max(len(here) - kept, 0) :], start + length
    return tuple(wrong)


@pytest.mark.parametrize("answer", [window.wrong_positions, sets, by_starts, one_by_one])
def test_right_predictions(answer):
    assert "wrong_positions is right" in checks.check_wrong_positions(answer)


def taken_out(kept, window_, chunks):
    found = window.wrong_positions(kept, window_, chunks)
    while chunks:
        chunks.pop()
    return found


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
        (lambda kept, w, c: set(window.wrong_positions(kept, w, c)), "is {"),
        (lambda kept, w, c: taken_out(kept, w, c), "changes a list that came in"),
        (lambda *given: [p for p in window.wrong_positions(*given) if p < 64], "wrong_positions("),
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


class FullAgain(window.SpareLayer):
    """The spare counts as full again after every token."""

    used = 0

    def update(self, *given):
        self.used = 0
        return super().update(*given)

    def crop(self, tokens_to_remove):
        if self.seen > self.held and self.used - tokens_to_remove > self.spare:
            raise NotImplementedError("used up")
        super().crop(tokens_to_remove)
        self.used -= tokens_to_remove


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


class Bare(window.SpareLayer):
    """Refuses without a word, and counts what has been forgotten."""

    reason = ()

    def crop(self, tokens_to_remove):
        left = self.held + tokens_to_remove
        if left < min(self.window - 1, self.seen + tokens_to_remove):
            raise NotImplementedError(*self.reason)
        self.keys, self.values = self.keys[:, :, :left], self.values[:, :, :left]
        self.seen += tokens_to_remove


def changing(change):
    """After a rollback, keys and values are changed."""

    class Changed(window.CuredLayer):
        def crop(self, tokens_to_remove):
            super().crop(tokens_to_remove)
            self.keys, self.values = change(self.keys), change(self.values)

    return Changed


one_row_for_all = changing(lambda x: x[:1].expand_as(x))
one_head_for_all = changing(lambda x: x[:, :1].expand_as(x))
in_16_bits = changing(lambda x: x.half().to(x.dtype))


@pytest.mark.parametrize(
    ("layer_class", "words"),
    [
        (window.SpareLayer, "The layer is still the one of the package"),
        (Keeping, "keeps 15 tokens, more than 10"),
        (Refusing, "expected 'taken back'"),
        (Reduced, "The spare fills up again"),
        (FullAgain, "is 'taken back', expected 'refused' (step 4)"),
        (Halved, "values"),
        (CountedFirst, "how many tokens were seen"),
        (Bare, "without a reason"),
        (one_row_for_all, "rows"),
        (one_head_for_all, "heads"),
        (in_16_bits, "keys"),
        (type("NoNumber", (window.SpareLayer,), {"__init__": lambda self: None}), "TypeError"),
    ],
)
def test_wrong_layers(layer_class, words):
    with pytest.raises(AssertionError, match=re.escape(words)):
        checks.check_cured_layer(layer_class)


class WithAReason(Bare):
    reason = ("too few would be left",)


class WrittenOver(window.CuredLayer):
    """Keys and values stay in memory that is taken once."""

    def update(self, k, v, *more):
        looked_at = (
            [torch.cat(both, dim=2) for both in ((self.keys, k), (self.values, v))]
            if (self.is_initialized)
            else [k, v]
        )
        super().update(k, v, *more)
        if not hasattr(self, "memory"):
            room = self.window - 1 + self.spare
            self.memory = [x.new_zeros(*x.shape[:2], room, x.size(3)) for x in (k, v)]
        kept = []
        for memory, x in zip(self.memory, (self.keys, self.values), strict=True):
            memory[:, :, : x.size(2)] = x.clone()
            kept.append(memory[:, :, : x.size(2)])
        self.keys, self.values = kept
        return tuple(looked_at)


@pytest.mark.parametrize("layer_class", [window.CuredLayer, WithAReason, WrittenOver])
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
