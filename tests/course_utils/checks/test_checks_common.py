"""What all checks compare with: what counts as the same, and where a difference is told."""

import traceback

import pytest
import torch

from course_utils.checks.common import (
    close,
    difference,
    known,
    refuse_known,
    same,
    tensor,
    unchanged,
    verdict,
)

ONES = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("found", "wrong", "expected"),
    [
        (ONES, ONES + 1e-6, True),
        (ONES.double(), ONES, True),
        (ONES, ONES + 1e-3, False),
        (ONES[0], ONES, False),
        (None, ONES, False),
        ([1.0, 2.0], [1.0, 2.0], True),
        ([1.0, 2.0], [1.0, 2.0 + 1e-9], False),
        (7, 7, True),
        (None, 7, False),
        (0.5 + 1e-9, 0.5, True),
        (0.51, 0.5, False),
    ],
)
def test_an_answer_is_the_same_as_a_mistake(found, wrong, expected):
    assert same(found, wrong) is expected


def test_the_first_mistake_that_fits_gives_the_advice():
    mistakes = [(2 * ONES, "twice"), (ONES, "once"), (ONES.clone(), "again")]
    assert known(ONES, mistakes) == "once"
    assert known(ONES + 1e-3, mistakes) == ""
    assert known(ONES + 1e-3, mistakes, atol=0.01) == "once"
    refuse_known(3 * ONES, mistakes)
    with pytest.raises(AssertionError, match="^twice$"):
        refuse_known(2 * ONES, mistakes)


def test_a_difference_is_told_with_its_place():
    other = ONES.clone()
    other[1, 2] = 4
    assert difference(ONES, ONES) == ""
    assert difference(ONES, other) == "is 1 at [1, 2], expected 4"
    assert difference(ONES, ONES + 1e-6, rtol=0, atol=1e-9) == "is 1 at [0, 0], expected 1"
    assert difference(ONES, ONES.double()) == "has dtype torch.float32, expected torch.float64"


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "^The sum is None. Does the function return its result\\?$"),
        ([1], "^The sum is a list, expected a torch.Tensor.$"),
        (ONES[0], "^The sum has shape \\(3,\\), expected \\(2, 3\\).$"),
        (ONES / 0 * 0, "^The sum holds NaN \\(not a number\\), expected finite numbers.$"),
        (2 * ONES, "^The sum is 2 at \\[0, 0\\], expected 1.$"),
    ],
)
def test_what_is_not_close_is_told_in_a_sentence(found, words):
    with pytest.raises(AssertionError, match=words):
        close(found, ONES, "The sum")


def test_a_tensor_of_the_right_shape_is_handed_on():
    assert tensor(ONES, "It", (2, 3)) is ONES


def test_a_change_is_seen():
    unchanged([ONES], [ONES.clone()])
    with pytest.raises(AssertionError, match="^Leave it.$"):
        unchanged([ONES, ONES], [ONES, 2 * ONES], "Leave it.")


def test_a_helper_of_a_check_is_left_out_of_the_error_and_an_answers_own_is_not():
    @verdict
    def check(answer):
        return str(close(answer(), ONES, "It"))

    def asserts():
        raise AssertionError("the answer's own")

    def names(answer):
        with pytest.raises(AssertionError) as caught:
            check(answer)
        return [line.name for line in traceback.extract_tb(caught.value.__traceback__)]

    assert names(lambda: 2 * ONES) == ["names", "judge"]
    assert names(asserts)[-2:] == ["check", "asserts"]
