"""What the check cells of FlashAttention call (chapter 08)."""

from functools import partial

from .... import checks
from .backwards import check_flash_backward
from .chunks import check_absorb
from .common import plain
from .merging import check_merge
from .tiles import check_flash_attention

__all__ = [
    "EXERCISES",
    "check_absorb",
    "check_flash_attention",
    "check_flash_backward",
    "check_merge",
    "plain",
    "progress",
]

EXERCISES = {
    "08": {
        "1: one more chunk of keys": (check_absorb, ("absorb",)),
        "2: attention in tiles": (check_flash_attention, ("flash_attention",)),
        "3: merge the parts": (check_merge, ("merge",)),
        "4: backwards without the weights (optional)": (check_flash_backward, ("flash_backward",)),
    },
}
progress = partial(checks.progress, exercises=EXERCISES)
