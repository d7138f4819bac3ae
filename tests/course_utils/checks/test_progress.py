"""The strip at the end of a notebook: what passes, what remains, and why."""

import linecache
import re
import traceback

import pytest
import torch

from course_utils import attention
from course_utils.checks import EXERCISES, PASSES, check_softmax, progress
from course_utils.checks.progress import THE_COURSES, Table

FIRST = "1: the softmax that does not overflow"


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
        "Running 4 checks, each for up to two seconds ...\n"
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
    assert re.match(r"not yet: In causal_mask\(1, 2\), query 0 is at position 1", mask)
    assert attend == "to do"
    assert heads == "the course's version; yours is to come"
    assert capsys.readouterr().out.endswith("\n1 of 4 pass. Next is 2: the causal mask\n")


def test_an_answer_that_crashes_is_not_passed():
    found = states(softmax=lambda scores: scores.nonsense())
    assert found[FIRST].startswith("not yet: ") and "raised AttributeError" in found[FIRST]


def test_a_long_reason_is_shown_to_its_end():
    words = "word " * 60 + "end"
    table = Table({"state": [f"not yet: {words}"]}, ["1: a title"])
    assert f"not yet: {words}" in table._repr_html_()
    assert f"not yet: {words}" in repr(table)


def in_a_cell(source):
    """What a cell defines, where its lines can be looked up, as IPython makes it."""
    name = f"cell of {hash(source)}"
    linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
    defined = {"__name__": "__main__"}
    exec(compile(source, name, "exec"), defined)
    return defined


@pytest.mark.parametrize("decorator", ["", "@torch.enable_grad()\n"])
def test_what_is_copied_from_stuck_is_not_yours(decorator):
    own = (
        f"import torch\nfrom course_utils import attention\n\n{decorator}def softmax(scores):\n"
        "    return attention.softmax(scores)\n"
    )
    assert states(**in_a_cell(own))[FIRST] == PASSES
    theirs = states(**in_a_cell(f"{THE_COURSES}\n{own}"))[FIRST]
    assert theirs == "the course's version; yours is to come"


def test_a_class_that_is_copied_is_not_yours():
    own = (
        "from course_utils import attention\n\nclass MultiHeadAttention"
        "(attention.MultiHeadAttention):\n    def forward(self, x):\n"
        "        return super().forward(x)\n"
    )
    assert list(states(**in_a_cell(own)).values())[3] == PASSES
    assert list(states(**in_a_cell(f"{THE_COURSES}\n{own}")).values())[3] != PASSES


def test_every_notebook_has_its_exercises():
    assert [len(exercises) for exercises in EXERCISES.values()] == [4, 4, 5, 5, 5, 4]


def test_a_failed_check_ends_in_one_line():
    def lines(answer):
        try:
            check_softmax(answer)
        except Exception as error:
            return traceback.extract_tb(error.__traceback__)

    assert [line.name for line in lines(lambda scores: scores)] == ["lines", "judge"]
