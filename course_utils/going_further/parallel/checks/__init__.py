"""What the check cells of many processes call (chapter 11)."""

from functools import partial

from .... import checks
from .blocks import check_parallel_feed_forward
from .parts import check_split_layer
from .sums import check_regions
from .vocabulary import check_cross_entropy, check_greedy_token

__all__ = [
    "EXERCISES",
    "check_cross_entropy",
    "check_greedy_token",
    "check_parallel_feed_forward",
    "check_regions",
    "check_split_layer",
    "progress",
]

EXERCISES = {
    "11": {
        "1: who holds what": (check_split_layer, ("split_layer",)),
        "2: f and g": (check_regions, ("copy_to", "reduce_from")),
        "3: a feed-forward block in parts": (
            check_parallel_feed_forward,
            ("parallel_feed_forward",),
        ),
        "4: a loss without the logits": (check_cross_entropy, ("cross_entropy",)),
        "5: the next token": (check_greedy_token, ("greedy_token",)),
    },
}
progress = partial(checks.progress, exercises=EXERCISES)
