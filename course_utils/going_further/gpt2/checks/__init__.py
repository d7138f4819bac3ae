"""What the check cells of "Real weights" call (chapter 12)."""

from functools import partial

from .... import checks
from .formulas import check_fold_head, check_gelu_new
from .pieces import check_merge_pair
from .places import check_split_c_attn, check_translate

__all__ = [
    "EXERCISES",
    "check_fold_head",
    "check_gelu_new",
    "check_merge_pair",
    "check_split_c_attn",
    "check_translate",
    "progress",
]

EXERCISES = {
    "12": {
        "1: one merge": (check_merge_pair, ("merge_pair",)),
        "2: three matrices out of one": (check_split_c_attn, ("split_c_attn",)),
        "3: GPT-2's GELU": (check_gelu_new, ("gelu_new",)),
        "4: the names": (check_translate, ("translate",)),
        "5: a head without a bias": (check_fold_head, ("fold_head",)),
    },
}
progress = partial(checks.progress, exercises=EXERCISES)
