"""What all checks share: verdicts, and what is said of errors and of what is no tensor."""

import re
import traceback

import pytest
import torch

from course_utils.checks.common import raised, tensor, verdict

ONES = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "^The sum is None. Does the function return its result\\?$"),
        ([1], "^The sum is a list, expected a torch.Tensor.$"),
        (ONES[0], "^The sum has shape \\(3,\\), expected \\(2, 3\\).$"),
    ],
)
def test_what_is_no_tensor_of_the_shape_is_told_in_a_sentence(found, words):
    with pytest.raises(AssertionError, match=words):
        tensor(found, "The sum", (2, 3))


def raising(error):
    raise error


def deep_inside(x):
    return x.view(7)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: raising(KeyError("a")), "raised KeyError at `raise(?:ing\\()?.*`: 'a'$"),
        (
            lambda: deep_inside(ONES),
            "raised RuntimeError at `return x.view\\(7\\)`: shape '\\[7\\]'",
        ),
        (lambda: deep_inside(ONES.T), "raised RuntimeError at `return x.view"),
        (lambda: raising(AssertionError()), "raised AssertionError at `raise error`$"),
        (
            lambda: bool(ONES),
            "\\(a tensor of several numbers is neither .* write `is not None`\\)$",
        ),
        (lambda: re.compile("("), "raised error at `.*re.compile"),
    ],
)
def test_an_error_is_told_with_the_students_own_line(answer, words):
    with pytest.raises(Exception) as caught:
        answer()
    assert re.search(words, raised(caught.value)), raised(caught.value)


def test_a_tensor_of_the_right_shape_is_handed_on():
    assert tensor(ONES, "It", (2, 3)) is ONES


def test_a_helper_of_a_check_is_left_out_of_the_error_and_an_answers_own_is_not():
    @verdict
    def check(answer):
        return str(tensor(answer(), "It", (2, 3)))

    def asserts():
        raise AssertionError("the answer's own")

    def names(answer):
        with pytest.raises(AssertionError) as caught:
            check(answer)
        return [line.name for line in traceback.extract_tb(caught.value.__traceback__)]

    assert names(lambda: ONES[0]) == ["names", "judge"]
    assert names(asserts)[-2:] == ["check", "asserts"]


def test_a_stub_ends_in_one_line_too_and_a_long_verdict_is_broken_between_words():
    @verdict
    def check(answer):
        return answer()

    def stub():
        raise NotImplementedError("Your turn: the card above says what to build.")

    def other():
        raise NotImplementedError("this processor cannot do that")

    for answer, last in ((stub, "judge"), (other, "other")):
        with pytest.raises(NotImplementedError) as caught:
            check(answer)
        assert traceback.extract_tb(caught.value.__traceback__)[-1].name == last
    assert max(map(len, check(lambda: "word " * 60).splitlines())) <= 95


def test_a_stub_of_another_exercise_is_named():
    cells = {}
    for name in ("first", "second"):
        source = {
            "first": 'def first(x):\n    raise NotImplementedError("Your turn: the card")\n',
            "second": "def second(x):\n    return first(x)\n",
        }[name]
        exec(compile(source, f"cell of {name}", "exec"), cells)

    @verdict
    def check(answer):
        return str(answer(1))

    with pytest.raises(NotImplementedError, match="^Your turn: the card$"):
        check(cells["first"])
    with pytest.raises(AssertionError, match="^`first` is still to be written: its exercise comes"):
        check(cells["second"])
