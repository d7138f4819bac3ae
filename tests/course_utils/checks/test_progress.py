"""The strip at the end of a notebook: what passes, what remains, and why."""

import re
import traceback

import torch

from course_utils import attention
from course_utils.checks import EXERCISES, PASSES, check_softmax, progress


def own_softmax(scores):
    return attention.softmax(scores)


def own_mask(num_queries, num_keys):
    return torch.ones(num_queries, num_keys, dtype=torch.bool).tril()


def stub(*args):
    raise NotImplementedError("Your turn: the card above says what to build.")


def states(**defined):
    return dict(progress("01", defined)["state"])


def test_nothing_done(capsys):
    assert set(states().values()) == {"to do"}
    assert capsys.readouterr().out == (
        "0 of 4 pass. Next is 1: the softmax that does not overflow\n"
    )


def test_each_state_is_told_apart(capsys):
    found = states(
        softmax=own_softmax,
        causal_mask=own_mask,
        attention_weights=stub,
        attention=stub,
        MultiHeadAttention=attention.MultiHeadAttention,
    )
    softmax, mask, attend, heads = found.values()
    assert softmax == PASSES
    assert re.match(r"not yet: In causal_mask\(2, 5\), query 0 is at position 3", mask)
    assert attend == "to do"
    assert heads == "the course's version; yours is to come"
    assert capsys.readouterr().out == "1 of 4 pass. Next is 2: the causal mask\n"


def test_an_answer_that_crashes_is_not_passed():
    found = states(softmax=lambda scores: scores.nonsense())
    assert next(iter(found.values())).startswith("not yet: AttributeError")


def test_every_notebook_has_its_exercises():
    assert [len(exercises) for exercises in EXERCISES.values()] == [4, 4, 5, 5, 5, 4]


def test_a_failed_check_ends_in_one_line_and_an_answer_that_crashes_keeps_its_own():
    def lines(answer):
        try:
            check_softmax(answer)
        except Exception as error:
            return traceback.extract_tb(error.__traceback__)

    assert [line.name for line in lines(lambda scores: scores)] == ["lines", "judge"]

    def asserts(scores):
        assert scores.dim() == 7, "an assertion of the answer's own"

    assert lines(asserts)[-1].name == "asserts"
