"""What the check cells of "Caches in the wild" call (chapter 13)."""

from functools import partial

from .... import checks
from .rolling_back import check_roll_back
from .spare import check_cured_layer
from .windows import check_wrong_positions

__all__ = [
    "EXERCISES",
    "check_cured_layer",
    "check_roll_back",
    "check_wrong_positions",
    "progress",
]

EXERCISES = {
    "13": {
        "1: tokens taken back": (check_roll_back, ("roll_back",)),
        "2: which logits are wrong": (check_wrong_positions, ("wrong_positions",)),
        "3: find the line": (check_cured_layer, ("CuredLayer",)),
    },
}
progress = partial(checks.progress, exercises=EXERCISES)
