"""Small mistakes in the worked answers, made by a program: the check of each exercise refuses them.

A sample; all are judged by `python benchmarks/answer_mutants.py`.
"""

import pytest
from apart import Apart
from mutants import sample
from mutated_answers import exercises, reasons, verdict

pytestmark = pytest.mark.authors

SAMPLE = 2
SECONDS = 120


@pytest.fixture(scope="module")
def judged():
    judge = Apart("mutated_answers.verdict")
    yield judge
    judge.close()


def test_every_exercise_is_found():
    numbers = [exercise.notebook for exercise in exercises().values()]
    assert len(numbers) == 57 and set(numbers) == {f"{n:02}" for n in range(1, 14)}


@pytest.mark.sampled(6)  # the notebooks run all of them
@pytest.mark.parametrize("name", exercises())
def test_the_worked_answer_is_accepted(judged, name):
    assert judged(name, exercises()[name].answer, limit=SECONDS)[0] == "accepted"


@pytest.mark.parametrize("name", exercises())
def test_mutants_are_not_accepted(judged, name):
    exercise = exercises()[name]
    for mutant in sample(exercise.mutants(), SAMPLE):
        try:
            word, said = judged(name, mutant.source, limit=SECONDS)
        except TimeoutError:
            continue
        assert word != "accepted" or (name, mutant.what) in reasons(), f"{mutant.what}: {said}"
        assert word != "refused" or len(said) > 20


def test_a_reason_is_given_for_a_mutant_that_there_is():
    mutants = {(n, mutant.what) for n, e in exercises().items() for mutant in e.mutants()}
    assert set(reasons()) <= mutants
    assert all(len(reason.split()) > 3 for reason in reasons().values())


def test_an_answer_that_is_no_python_does_not_load():
    assert verdict("causal_mask", "def causal_mask(:")[0] == "does not load"


def test_a_call_that_does_not_end_or_dies_is_told_and_the_next_one_answers():
    call = Apart("builtins.eval")
    with pytest.raises(TimeoutError, match="stopped after 1 seconds"):
        call("[None for n in iter(int, 1)]", limit=1)
    with pytest.raises(ProcessLookupError):
        call("__import__('os')._exit(0)", limit=SECONDS)
    assert call("6 * 7", limit=SECONDS) == 42
    call.close()
