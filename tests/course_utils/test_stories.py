"""The toy language: true answers, honest distances, a parser that can say no."""

import itertools
import random

import pytest

from course_utils.stories import (
    END,
    START,
    WORDS,
    Tokenizer,
    held_out_stories,
    is_sentence,
    make_story,
    sentences,
    split,
)


def some_stories(number=100, length=512, seed=7):
    return list(itertools.islice(held_out_stories(seed, length), number))


def latest_place(words, thing):
    """Where `thing` was last put according to `words`, and at which word; found by plain search."""
    last = max(i for i in range(len(words)) if words[i : i + 2] == thing)
    at = next(i for i in range(last, len(words)) if words[i] in WORDS["material"])
    return words[at : at + 2], at


def test_vocabulary_is_small_and_has_no_double():
    words = Tokenizer().words
    assert len(words) == len(set(words)) <= 1000
    places = len(WORDS["material"]) * len(WORDS["container"])
    assert 1 / places <= 0.01


def test_answers_are_true_and_distances_are_counted_from_the_latest_fact():
    questions = 0
    for story in some_stories():
        for q in story.questions:
            thing = story.words[q.start - 3 : q.start - 1]
            before = story.words[: q.start - len(split("Where is the red bell?"))]
            place, at = latest_place(before, thing)
            answer = story.words[q.start : q.end]
            assert answer == ["It", "is", "in", "the", *place, "."]
            assert q.distance == q.end - 3 - at
            questions += 1
    assert questions > 200


def test_things_move_and_the_first_place_would_often_be_wrong():
    moved = total = 0
    for story in some_stories():
        for q in story.questions:
            words = story.words
            thing, place = words[q.start - 3 : q.start - 1], words[q.end - 3 : q.end - 1]
            first = next(i for i in range(len(words)) if words[i : i + 2] == thing)
            at = next(i for i in range(first, len(words)) if words[i] in WORDS["material"])
            moved += words[at : at + 2] != place
            total += 1
    assert moved > total / 5


def test_a_thing_is_asked_for_once_per_place():
    for story in some_stories():
        since_told = {}
        for sentence in sentences(story.words):
            for i in range(len(sentence) - 1):
                thing = tuple(sentence[i : i + 2])
                if thing[0] in WORDS["colour"] and thing[1] in WORDS["object"]:
                    asked = sentence[0] == "Where"
                    assert not (asked and since_told.get(thing, False)), sentence
                    since_told[thing] = asked


@pytest.mark.parametrize("length", [48, 64, 256, 1024])
def test_a_story_keeps_to_its_length(length):
    rng = random.Random(length)
    for _ in range(20):
        words = make_story(rng, length).words
        assert length - 24 <= len(words) <= length
        assert (words[0], words[-1]) == (START, END)


def test_every_sentence_is_in_the_language():
    assert all(is_sentence(s) for story in some_stories(30) for s in sentences(story.words))


@pytest.mark.parametrize(
    "text",
    [
        "Mia put the red bell in the wooden.",
        "Mia put red the key in the wooden box.",
        "Mia put the red box in the wooden key.",
        "put the red bell in the wooden box.",
        "Mia put the red bell in the wooden box",
        "It is in the wooden box. It is in the wooden box.",
        "",
    ],
)
def test_the_parser_can_say_no(text):
    assert not is_sentence(split(text))


def test_the_parser_accepts_the_running_example():
    assert is_sentence(split("Mia put the red bell in the wooden box."))
    assert is_sentence(split("Later Mia put the red bell in the wooden box."))
    assert is_sentence(split("Where is the red bell?"))
    assert is_sentence(split("It is in the wooden box."))


def test_unfinished_sentences_are_left_out():
    words = split("<story> Mia was happy. Where is the")
    assert sentences(words) == [["Mia", "was", "happy", "."]]


def test_encode_and_decode_are_inverse():
    tokenizer = Tokenizer()
    text = "Mia put the red bell in the wooden box. Where is the red bell?"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert max(tokenizer.encode(text)) < tokenizer.vocab_size


def test_an_unknown_word_is_named_with_its_neighbours():
    with pytest.raises(ValueError, match="'woden' is not one of .* Did you mean 'wooden'"):
        Tokenizer().encode("in the woden box")


def test_stories_depend_on_the_seed_alone():
    assert some_stories(3, seed=1) == some_stories(3, seed=1)
    assert some_stories(3, seed=1) != some_stories(3, seed=2)
