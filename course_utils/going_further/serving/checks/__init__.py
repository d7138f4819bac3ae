"""What the check cells of many users call (chapter 10)."""

from functools import partial

from .... import checks
from .blocks import check_block_pool
from .guesses import check_accept_greedy
from .leftovers import check_residual
from .rows import check_continuous
from .tables import check_reserve

__all__ = [
    "EXERCISES",
    "check_accept_greedy",
    "check_block_pool",
    "check_continuous",
    "check_reserve",
    "check_residual",
    "progress",
]

EXERCISES = {
    "10": {
        "1: who joins": (check_continuous, ("continuous",)),
        "2: the allocator": (check_block_pool, ("BlockPool",)),
        "3: copy on write": (check_reserve, ("BlockTables",)),
        "4: keep what is right": (check_accept_greedy, ("accept_greedy",)),
        "5: what is left of p": (check_residual, ("residual",)),
    },
}
progress = partial(checks.progress, exercises=EXERCISES)
