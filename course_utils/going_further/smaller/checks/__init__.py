"""What the check cells of "Smaller caches" call (chapter 09)."""

from functools import partial

from .... import checks
from .band import check_band_mask
from .eviction import check_victim
from .heads import check_pool_heads
from .packing import check_pack
from .ring import check_window_cache

__all__ = [
    "EXERCISES",
    "check_band_mask",
    "check_pack",
    "check_pool_heads",
    "check_victim",
    "check_window_cache",
    "progress",
]

EXERCISES = {
    "09": {
        "1: fewer heads": (check_pool_heads, ("pool_heads",)),
        "2: a band": (check_band_mask, ("band_mask",)),
        "3: a ring of slots": (check_window_cache, ("WindowCache",)),
        "4: two to a byte": (check_pack, ("pack", "unpack")),
        "5: who has to go": (check_victim, ("victim",)),
    },
}
progress = partial(checks.progress, exercises=EXERCISES)
