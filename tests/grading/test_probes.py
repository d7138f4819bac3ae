"""Probes tell right from wrong: whatever way an answer is written, and at any seed."""

import pandas as pd
import pytest
from mutants import sample
from mutated_answers import exercises, probed, reasons
from other_answers import OTHER_ANSWERS
from rarely_wrong import RARELY_WRONG
from submitted import got_points, hand_in_mutants
from wrong_answers import WRONG_ANSWERS, wrong_sources

from grading.probes import PROBES

pytestmark = pytest.mark.instructor
NOTEBOOKS = ("01", "02", "03", "04", "05", "06")
SEEDS = (3, 2**31 - 2)
OF_EACH = 2
# Wrong answers that were accepted at such seeds: all masks were square, or all chunks one token.
UNLUCKY = {
    "causal_mask": (("num_keys - num_queries, num_keys", "num_queries"), (96, 440, 1619193600)),
    "growing_cache": (("[layer], k]", "[layer], k[:, :, -1:]]"), (11, 15, 21)),
}


@pytest.mark.parametrize("name", PROBES)
def test_right_answers_written_in_other_ways_are_right(name):
    others = OTHER_ANSWERS[name]
    assert len(others) >= 3
    for seed in SEEDS:
        for source in (exercises()[name].answer, *others):
            assert probed(name, source, seed)[0] == "accepted", (seed, source)


@pytest.mark.parametrize("name", PROBES)
def test_plausible_wrong_answers_are_wrong(name):
    for source in wrong_sources(name, exercises()[name].answer):
        for seed in SEEDS:
            assert probed(name, source, seed)[0] != "accepted", (seed, source)


@pytest.mark.parametrize("name", PROBES)
def test_answers_that_are_right_on_most_inputs_are_wrong(name):
    answer = exercises()[name].answer
    for place, source in enumerate(wrong_sources(name, answer, RARELY_WRONG[name])):
        seed = SEEDS[place % 2]
        assert probed(name, source, seed)[0] != "accepted", (seed, source)


@pytest.mark.parametrize("name", UNLUCKY)
def test_no_seed_draws_only_inputs_on_which_a_mistake_is_right(name):
    (right, wrong), seeds = UNLUCKY[name]
    answer = exercises()[name].answer
    assert right in answer
    for seed in seeds:
        assert probed(name, answer.replace(right, wrong), seed)[0] == "refused", seed


@pytest.mark.parametrize("name", PROBES)
def test_what_is_printed_is_short_and_depends_on_the_seed(name):
    from grading.graft import expected_output

    printed = {expected_output(name, seed) for seed in (*SEEDS, 5)}
    assert len(printed) > 1 and max(map(len, printed)) < 150_000


def test_there_are_wrong_answers_to_every_exercise():
    assert {*WRONG_ANSWERS} == {*RARELY_WRONG} == {*OTHER_ANSWERS} == {*PROBES}


def some_mutants(name):
    """A fixed sample; those first that run and give something else."""
    verdicts = {}
    for place, mutant in enumerate(sample(exercises()[name].mutants(), 6)):
        word, _ = probed(name, mutant.source, SEEDS[place % 2])
        assert word != "accepted" or (name, mutant.what) in reasons(), (name, mutant.what)
        verdicts[mutant] = word
    told = [mutant for mutant, word in verdicts.items() if word == "refused"]
    return (told + [mutant for mutant, word in verdicts.items() if word == "raised"])[:OF_EACH]


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_no_mutant_gets_points_from_the_command(tmp_path, notebook):
    """Real submissions, each with a mutant of every exercise.

    The command ends with another status if the worked answers do not get all their points.
    """
    from grading import __main__

    names = [name for name, probe in PROBES.items() if probe.notebook == notebook]
    chosen = {name: some_mutants(name) for name in names}
    assert all(len(found) == OF_EACH for found in chosen.values())
    hand_in_mutants(tmp_path / "in", notebook, chosen)
    options = ["--notebook", notebook, "--out", str(tmp_path / "out"), "--seed", "20261129"]
    command = ["grade", str(tmp_path / "in"), *options, "--no-feedback", "--jobs", "2"]
    assert __main__.main(command) == 0
    book = pd.read_csv(tmp_path / "out" / "gradebook.csv")
    assert len(book) == OF_EACH * len(names)
    assert got_points(book, notebook, chosen) == []
    assert set(book["status"]) == {"wrong"}
