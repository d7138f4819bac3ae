"""Drawn scripts can be played, repeat, and become small."""

import sys
import types

import pytest
from helpers import small_model

from course_utils.evaluation import Feed, New, RollBack, lane_in, offers
from course_utils.evaluation.model import Offers
from course_utils.evaluation.random_scripts import search
from course_utils.evaluation.smaller import possible
from course_utils.left_padding import LeftPaddedTransformer

ALL = Offers(True, True, True, True)


def drawn(offered, room, number, seed=0):
    scripts = []
    search(lambda script: scripts.append(script) or False, offered, room, number, seed, 700)
    return scripts


@pytest.mark.parametrize("room", [1, 2, 7, 24, 1280])
def test_each_can_be_played(room):
    found = drawn(ALL, room, 200)
    assert len(found) > 100
    assert all(possible(script, room) for script in found)


def test_a_right_model_passes_them():
    lane = lane_in(small_model(LeftPaddedTransformer))
    assert offers(lane.fresh()) == ALL
    assert all(lane.play(script).problem is None for script in drawn(ALL, lane.room, 60, seed=7))


def test_they_repeat_whatever_else_is_loaded(tmp_path, monkeypatch):
    """Hypothesis reads the modules of the project for constants that might be of interest."""
    before = drawn(ALL, 24, 100)
    numbers = tmp_path / "numbers_of_mine.py"
    numbers.write_text("WORTH_TRYING = " + repr(list(range(60))))
    module = types.ModuleType("numbers_of_mine")
    module.__file__ = str(numbers)
    monkeypatch.setitem(sys.modules, "numbers_of_mine", module)
    assert drawn(ALL, 24, 100) == before
    assert drawn(ALL, 24, 100, seed=1) != before


def test_nothing_is_left_in_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawn(ALL, 24, 100)
    assert not list(tmp_path.iterdir())


def test_only_what_is_offered_is_drawn():
    found = drawn(Offers(False, False, False, False), 24, 200)
    kinds = {type(step).__name__ for script in found for step in script}
    assert kinds == {"New", "Feed", "Uncached"}


def test_a_failing_script_becomes_small():
    def fails(script):
        kinds = [type(step) for step in script]
        return RollBack in kinds and Feed in kinds[kinds.index(RollBack) :]

    found = search(fails, ALL, 24, 200, 0, 700)
    assert found == [New(), Feed(1), RollBack(0), Feed(1)]
